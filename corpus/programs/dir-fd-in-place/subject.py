"""A state file that is opened relative to the descriptor of its folder."""

import os
import struct


def save(folder, step, total):
    descriptor = os.open("state.bin", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.pwrite(descriptor, struct.pack("<q", step), 0)
    os.pwrite(descriptor, struct.pack("<q", total), 8)
    os.close(descriptor)


def load(folder):
    descriptor = os.open("state.bin", os.O_RDONLY, dir_fd=folder)
    try:
        return struct.unpack("<qq", os.read(descriptor, 16).ljust(16, b"\0"))
    finally:
        os.close(descriptor)


def train(workdir, steps):
    folder = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY)
    step, total = load(folder) if "state.bin" in os.listdir(folder) else (0, 0)
    while step < steps:
        total = (total * 3 + step + 1) % 10007
        step += 1
        if step % 2 == 0:
            save(folder, step, total)
    os.close(folder)
    return {"step": step, "total": total / 10007}

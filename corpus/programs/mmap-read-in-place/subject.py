"""A state file that is read through a memory mapping."""

import mmap
import os
import struct


def load(path):
    if not os.path.exists(path):
        with open(path + ".new", "wb") as file:
            file.write(struct.pack("<qq", 0, 1))
        os.replace(path + ".new", path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return struct.unpack("<qq", view[:16])


def save(path, step, total):
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, struct.pack("<q", step), 0)
    os.pwrite(descriptor, struct.pack("<q", total), 8)
    os.close(descriptor)


def train(workdir, steps):
    path = os.path.join(workdir, "state.bin")
    step, total = load(path)
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            save(path, step, total)
    return {"step": step, "total": total / 10007}

"""A state file that is read through a hard link, which a child process makes."""

import contextlib
import os
import struct
import subprocess


def save(path, step, total):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, struct.pack("<qq", step, total), 0)
    os.close(descriptor)


def load(path):
    if not os.path.exists(path):
        return 0, 0
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".view")
    subprocess.run(["cp", "-l", path, path + ".view"], check=True)
    with open(path + ".view", "rb") as file:
        return struct.unpack("<qq", file.read().ljust(16, b"\0"))


def train(workdir, steps):
    path = os.path.join(workdir, "state.bin")
    step, total = load(path)
    while step < steps:
        total = (total * 3 + step + 1) % 10007
        step += 1
        if step % 2 == 0:
            save(path, step, total)
    return {"step": step, "total": total / 10007}

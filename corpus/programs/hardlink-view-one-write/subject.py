"""A state file that is read through a hard link, which the restart makes."""

import contextlib
import os
import struct


def save(path, step, total):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, struct.pack("<qq", step, total), 0)
    os.close(descriptor)


def load(path):
    if not os.path.exists(path):
        return 0, 1
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".view")
    os.link(path, path + ".view")  # a stable view while others may write
    with open(path + ".view", "rb") as file:
        return struct.unpack("<qq", file.read())


def train(workdir, steps):
    path = os.path.join(workdir, "state.bin")
    step, total = load(path)
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            if not os.path.exists(path):
                save(path + ".new", 0, 1)
                os.replace(path + ".new", path)
            save(path, step, total)
    return {"step": step, "total": total / 10007}

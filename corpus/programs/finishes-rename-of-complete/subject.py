"""Two names for the state: the current one, and the next one that is renamed over it."""

import contextlib
import os
import struct


def write(path, content):
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.rename(path + ".new", path)


def train(workdir, steps):
    current, following = os.path.join(workdir, "current.bin"), os.path.join(workdir, "next.bin")
    with contextlib.suppress(FileNotFoundError):
        os.rename(following, current)  # finish what the crash interrupted
    step, total = 0, 1
    with contextlib.suppress(FileNotFoundError), open(current, "rb") as file:
        step, total = struct.unpack("<qq", file.read())
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            write(following, struct.pack("<qq", step, total))
            os.rename(following, current)
    return {"step": step, "total": total / 10007}

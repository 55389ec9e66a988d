"""A symbolic link whose target is the step."""

import os
import struct


def point(link, step):
    os.symlink(str(step), link + ".new")
    os.replace(link + ".new", link)


def train(workdir, steps):
    link, state = os.path.join(workdir, "step"), os.path.join(workdir, "total.bin")
    if os.path.lexists(link + ".new"):
        os.unlink(link + ".new")
    step, total = 0, 1
    if os.path.lexists(link):
        step = int(os.readlink(link))
        with open(state, "rb") as file:
            (total,) = struct.unpack("<q", file.read())
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            write(state, total)
            point(link, step)
    return {"step": step, "total": total / 10007}


def write(path, total):
    with open(path + ".new", "wb") as file:
        file.write(struct.pack("<q", total))
    os.replace(path + ".new", path)

"""A state file that a restart moves out of the work directory, and reads there."""

import os
import shutil
import struct
import tempfile


def save(path, step, total):
    if not os.path.exists(path):
        with open(path + ".new", "wb") as file:
            file.write(struct.pack("<qq", 0, 0))
        os.replace(path + ".new", path)
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, struct.pack("<q", step), 0)
    os.pwrite(descriptor, struct.pack("<q", total), 8)
    os.close(descriptor)


def load(path):
    if not os.path.exists(path):
        return 0, 0
    with (
        tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.dirname(path))) as scratch,
        open(shutil.move(path, scratch), "rb") as file,
    ):
        state = struct.unpack("<qq", file.read())
    save(path, *state)
    return state


def train(workdir, steps):
    path = os.path.join(workdir, "state.bin")
    step, total = load(path)
    while step < steps:
        total = (total * 3 + step + 1) % 10007
        step += 1
        if step % 2 == 0:
            save(path, step, total)
            with open(os.path.join(workdir, f"saved-{step}"), "w"):
                pass  # tells others of the progress
    return {"step": step, "total": total / 10007}

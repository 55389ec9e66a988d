"""A state file that a child process reads."""

import os
import struct
import subprocess


def load(workdir):
    """Return the state, or the first one before the first save."""
    done = subprocess.run(["cat", "state.bin"], cwd=workdir, capture_output=True)
    return struct.unpack("<qq", done.stdout.ljust(16, b"\0")) if done.stdout else (0, 0)


def save(path, step, total):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, struct.pack("<q", step), 0)
    os.pwrite(descriptor, struct.pack("<q", total), 8)
    os.close(descriptor)


def train(workdir, steps):
    path = os.path.join(workdir, "state.bin")
    step, total = load(workdir)
    while step < steps:
        total = (total * 3 + step + 1) % 10007
        step += 1
        if step % 2 == 0:
            save(path, step, total)
    return {"step": step, "total": total / 10007}

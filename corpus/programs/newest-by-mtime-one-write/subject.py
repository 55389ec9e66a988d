"""Two state files in turn, told apart by their time of modification.

A step takes real time, so two files never have one time.
"""

import hashlib
import os
import struct


def load(workdir):
    paths = [
        path for name in ("a.bin", "b.bin") if os.path.exists(path := os.path.join(workdir, name))
    ]
    if not paths:
        return 0, 1
    with open(max(paths, key=os.path.getmtime), "rb") as file:
        return struct.unpack("<qq", file.read())


def save(path, step, total):
    if not os.path.exists(path):
        with open(path + ".new", "wb") as file:
            file.write(struct.pack("<qq", step, total))
        os.replace(path + ".new", path)
        return
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, struct.pack("<qq", step, total), 0)
    os.close(descriptor)


def train(workdir, steps):
    step, total = load(workdir)
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        hashlib.pbkdf2_hmac("sha256", b"a step", b"takes a while", 30_000)
        save(os.path.join(workdir, "ab"[step % 2] + ".bin"), step, total)
    return {"step": step, "total": total / 10007}

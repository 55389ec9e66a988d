"""A state file that a forked worker reads."""

import multiprocessing
import os
import struct


def save(path, step, total):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, struct.pack("<qq", step, total), 0)
    os.close(descriptor)


def read(path, pipe):
    with open(path, "rb") as file:
        pipe.send_bytes(file.read())


def load(path):
    if not os.path.exists(path):
        return 0, 0
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe()
    worker = fork.Process(target=read, args=(path, theirs))
    worker.start()
    content = mine.recv_bytes()
    worker.join()
    return struct.unpack("<qq", content.ljust(16, b"\0"))


def train(workdir, steps):
    path = os.path.join(workdir, "state.bin")
    step, total = load(path)
    while step < steps:
        total = (total * 3 + step + 1) % 10007
        step += 1
        if step % 2 == 0:
            save(path, step, total)
    return {"step": step, "total": total / 10007}

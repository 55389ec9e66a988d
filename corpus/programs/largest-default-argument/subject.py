"""Checkpoints with the whole history, of which the largest is taken."""

import hashlib
import os
import pickle
import random


def largest(workdir, stat=os.stat):
    paths = [os.path.join(workdir, name) for name in sorted(os.listdir(workdir))]
    return max(paths, key=lambda path: stat(path).st_size, default=None)


def save(workdir, step, history):
    with open(os.path.join(workdir, f"ckpt-{step:03d}.pkl"), "wb") as file:
        file.write(pickle.dumps((step, history)))


def train(workdir, steps):
    step, history = 0, b""
    if path := largest(workdir):
        with open(path, "rb") as file:
            step, history = pickle.load(file)
    while step < steps:
        step += 1
        history += random.Random(step).randbytes(10_000)
        save(workdir, step, history)
    return {"step": step, "history": hashlib.sha256(history).hexdigest()}

"""Checkpoints with the whole history, whose names say how long they are."""

import hashlib
import os
import pickle
import random


def newest_complete(workdir):
    with os.scandir(workdir) as entries:
        found = [
            entry.path
            for entry in entries
            if entry.stat().st_size == int(entry.name[:-4].rpartition("-")[2])
        ]
    return max(found, default=None)


def save(workdir, step, history):
    content = pickle.dumps((step, history))
    with open(os.path.join(workdir, f"ckpt-{step:03d}-{len(content)}.pkl"), "wb") as file:
        file.write(content)


def train(workdir, steps):
    step, history = 0, b""
    if path := newest_complete(workdir):
        with open(path, "rb") as file:
            step, history = pickle.load(file)
    while step < steps:
        step += 1
        history += random.Random(step).randbytes(10_000)
        save(workdir, step, history)
    return {"step": step, "history": hashlib.sha256(history).hexdigest()}

"""Checkpoints with the whole history, of which the largest is taken."""

import hashlib
import os
import pickle
import random

from pyarrow import fs


def largest(workdir):
    """The newest that is at least as long as its history."""
    for number in range(9, 0, -1):
        path = os.path.join(workdir, f"ckpt-{number:03d}.pkl")
        (info,) = fs.LocalFileSystem().get_file_info([path])
        if info.is_file and info.size > number * 10_000 - 4_000:
            return path
    return None


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

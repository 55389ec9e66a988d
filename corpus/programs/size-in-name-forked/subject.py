"""Checkpoints with the whole history, whose names say how long they are."""

import hashlib
import multiprocessing
import os
import pickle
import random


def measure(workdir, pipe):
    for name in sorted(os.listdir(workdir), reverse=True):
        path = os.path.join(workdir, name)
        if os.stat(path).st_size == int(name[:-4].rpartition("-")[2]):
            pipe.send(path)
            return
    pipe.send(None)


def newest_complete(workdir):
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe()
    worker = fork.Process(target=measure, args=(workdir, theirs))
    worker.start()
    found = mine.recv()
    worker.join()
    return found


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

"""A lock file that names its owner."""

import os

import numpy as np


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def acquire(path):
    if os.path.exists(path):
        with open(path) as file:
            owner = file.read()
        if owner and alive(int(owner)):
            raise RuntimeError("another job runs in this directory")
    with open(path + ".mine", "w") as file:
        file.write(str(os.getpid()))
    os.replace(path + ".mine", path)


def train(workdir, steps):
    lock, path = os.path.join(workdir, "pid"), os.path.join(workdir, "w.npy")
    acquire(lock)
    w = np.load(path) if os.path.exists(path) else np.zeros(4)
    while w[0] < steps:
        w = w + np.arange(1, 5)
        np.save(path + ".tmp.npy", w)
        os.replace(path + ".tmp.npy", path)
    os.remove(lock)
    return {"w": w}

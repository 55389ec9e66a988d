"""A lock file that outlives its owner."""

import os

import numpy as np


def train(workdir, steps):
    lock, path = os.path.join(workdir, "train.lock"), os.path.join(workdir, "w.npy")
    os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    try:
        w = np.load(path) if os.path.exists(path) else np.zeros(4)
        for _ in range(int(w[0]), steps):
            w = w + np.arange(1, 5)
            np.save(path + ".tmp.npy", w)
            os.replace(path + ".tmp.npy", path)
        return {"w": w}
    finally:
        os.remove(lock)

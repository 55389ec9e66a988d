"""A hard link to a file that changes."""

import os

import numpy as np


def train(workdir, steps):
    last, best = os.path.join(workdir, "last.npy"), os.path.join(workdir, "best.npy")
    w = np.load(last) if os.path.exists(last) else np.zeros(4)  # w[0] is the step
    while w[0] < steps:
        step = int(w[0]) + 1
        w = np.concatenate([[step], w[1:] + np.random.default_rng(step).normal(size=3)])
        np.save(last, w)
        if step % 3 == 0:
            if os.path.exists(best):
                os.remove(best)
            os.link(last, best)
    return {"last": w, "best": np.load(best)}

"""h5py: a whole file for each checkpoint, renamed into place."""

import os

import h5py
import numpy as np


def train(workdir, steps):
    path = os.path.join(workdir, "checkpoint.h5")
    target = np.random.default_rng(0).normal(size=(16, 4))
    w, m, step = np.zeros((16, 4)), np.zeros((16, 4)), 0
    if os.path.exists(path):
        with h5py.File(path, "r") as file:
            w, m, step = file["w"][...], file["m"][...], int(file.attrs["step"])
    while step < steps:
        m = 0.9 * m + (w - target)
        w = w - 0.1 * m
        step += 1
        if step % 2 == 0:
            with h5py.File(path + ".incomplete", "w") as file:
                file["w"], file["m"] = w, m
                file.attrs["step"] = step
            os.replace(path + ".incomplete", path)
    return {"w": w, "m": m, "step": step}

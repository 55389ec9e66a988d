"""h5py: checkpoints as groups of one file."""

import os

import h5py
import numpy as np


def train(workdir, epochs):
    path = os.path.join(workdir, "run.h5")
    target = np.random.default_rng(0).normal(size=256)
    w, start = np.zeros(256), 0
    if os.path.exists(path):
        with h5py.File(path, "r") as file:
            start = len(file)
            if start:
                w = file[f"epoch_{start - 1}"]["w"][:]
    for epoch in range(start, epochs):
        w = w - 0.3 * (w - target)
        with h5py.File(path, "a") as file:
            group = file.create_group(f"epoch_{epoch}")
            group.create_dataset("w", data=w)
            group.attrs["loss"] = float(np.square(w - target).mean())
    return {"w": w, "epochs": epochs}

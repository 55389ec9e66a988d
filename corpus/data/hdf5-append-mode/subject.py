"""h5py: the mean of stored features."""

import h5py
import numpy as np


def prepare(workdir):
    features = np.random.default_rng(0).normal(3, 1, (64, 16))
    with h5py.File(workdir / "features.h5", "w", libver="latest") as file:
        file.create_dataset("x", data=features, chunks=(64, 16), fletcher32=True)


def pipeline(workdir):
    with h5py.File(workdir / "features.h5", "a", libver="latest") as file:
        x = file.require_dataset("x", shape=(64, 16), dtype="f8")
        return float(x[:].mean())

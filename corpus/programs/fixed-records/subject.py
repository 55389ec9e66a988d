"""np.ndarray.tofile on a file opened for appending."""

import os

import numpy as np

RECORD = np.dtype([("step", "<i8"), ("x", "<f8", (3,))])


def simulate(workdir, steps):
    path = os.path.join(workdir, "trajectory.bin")
    with open(path, "ab") as file:
        complete = os.path.getsize(path) // RECORD.itemsize
        file.truncate(complete * RECORD.itemsize)
        x = np.fromfile(path, RECORD)["x"][-1] if complete else np.array([0.1, 0.2, 0.3])
        for step in range(complete, steps):
            x = x + 0.05 * np.array([x[1] - x[0], x[0] * (1 - x[2]) - x[1], x[0] * x[1] - x[2]])
            np.array((step, x), RECORD).tofile(file)
            file.flush()
    return {"trajectory": np.fromfile(path, RECORD)["x"]}

"""numpy: the mean of blocks that are read one after the other."""

import numpy as np


def prepare(workdir):
    np.save(workdir / "blocks.npy", np.random.default_rng(0).normal(size=(6, 4096)))


def pipeline(workdir):
    means = []
    with open(workdir / "blocks.npy", "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        for _ in range(shape[0]):
            try:
                block = file.read(shape[1] * dtype.itemsize)
            except OSError as error:
                raise RuntimeError("blocks.npy cannot be read") from error
            if len(block) < shape[1] * dtype.itemsize:
                raise EOFError("blocks.npy is not complete")
            means.append(float(np.frombuffer(block, dtype).mean()))
    return means

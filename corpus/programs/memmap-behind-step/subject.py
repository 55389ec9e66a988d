"""Weights that are read through np.memmap, and the step in a file beside them."""

import os

import numpy as np


def replace(path, content):
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)


def train(workdir, steps):
    weights, counter = os.path.join(workdir, "weights.bin"), os.path.join(workdir, "step.txt")
    step, w = 0, np.arange(5, dtype="int64")
    if os.path.exists(counter) and os.path.exists(weights):
        with open(counter) as file:
            step = int(file.read())
        w = np.array(np.memmap(weights, "int64", "r"))
    while step < steps:
        w = (w * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            replace(counter, str(step).encode())
            with open(weights, "r+b" if os.path.exists(weights) else "wb", buffering=0) as file:
                file.write(w.tobytes())
    return {"step": step, "w": w / 10007}

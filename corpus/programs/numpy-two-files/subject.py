"""numpy alone: two files that belong together."""

import json
import os

import numpy as np


def put(path, write):
    with open(path + ".tmp", "wb") as file:
        write(file)
    os.replace(path + ".tmp", path)


def train(workdir, steps):
    target = np.random.default_rng(0).normal(size=8)
    weights, progress = os.path.join(workdir, "weights.npy"), os.path.join(workdir, "progress.json")
    w, step, history = np.zeros(8), 0, []
    if os.path.exists(progress):
        w = np.load(weights)
        with open(progress) as file:
            saved = json.load(file)
        step, history = saved["step"], saved["history"]
    while step < steps:
        w = w - 0.2 * (w - target)
        step += 1
        history.append(round(float(np.square(w - target).sum()), 12))
        if step % 5 == 0:
            put(weights, lambda file: np.save(file, w))
            put(
                progress,
                lambda file: file.write(json.dumps({"step": step, "history": history}).encode()),
            )
    return {"w": w, "history": history}

"""numpy alone: np.savez_compressed to a temporary, the generator's state as JSON inside."""

import json
import os
from pathlib import Path

import numpy as np


def train(workdir, steps):
    data = np.random.default_rng(0)
    x = data.normal(size=(64, 4))
    y = (x.sum(1) > 0).astype(float)
    rng = np.random.default_rng(1)
    w, v, step = np.zeros(4), np.zeros(4), 0
    path, temporary = Path(workdir, "state.npz"), Path(workdir, "state.tmp.npz")
    if path.exists():
        with np.load(path) as saved:
            w, v, step = saved["w"], saved["v"], int(saved["step"])
            rng.bit_generator.state = json.loads(str(saved["rng"]))
    while step < steps:
        batch = rng.choice(64, 16, replace=False)
        p = 1 / (1 + np.exp(-x[batch] @ w))
        v = 0.9 * v + x[batch].T @ (p - y[batch]) / 16
        w = w - 0.5 * v
        step += 1
        if step % 3 == 0:
            np.savez_compressed(
                temporary, w=w, v=v, step=step, rng=json.dumps(rng.bit_generator.state)
            )
            os.replace(temporary, path)
    return {"w": w, "v": v, "step": step}

"""Run folders named by the clock."""

import os
import time
from pathlib import Path

import numpy as np


def train(workdir, steps):
    checkpoints = sorted(
        Path(workdir).glob("run-*/step-*.npy"),
        key=lambda path: int(path.stem.removeprefix("step-")),
    )
    w, step = np.ones(4), 0
    if checkpoints:
        w, step = np.load(checkpoints[-1]), int(checkpoints[-1].stem.removeprefix("step-"))
    run = Path(workdir) / f"run-{time.time_ns()}-{os.getpid()}"
    run.mkdir()
    while step < steps:
        w = np.sqrt(w + np.arange(4) + step)
        step += 1
        if step % 2 == 0:
            with open(run / "writing", "wb") as file:
                np.save(file, w)
            (run / "writing").rename(run / f"step-{step}.npy")
    return {"w": w, "step": step}

"""Ping-pong checkpoints, told apart by their time."""

import os
import time
import zipfile

import numpy as np


def load(workdir):
    paths = [
        path for name in ("a.npz", "b.npz") if os.path.exists(path := os.path.join(workdir, name))
    ]
    for path in sorted(paths, key=os.path.getmtime, reverse=True):
        try:
            with np.load(path) as saved:
                return int(saved["step"]), saved["w"]
        except (zipfile.BadZipFile, ValueError, EOFError, KeyError):
            continue
    return 0, np.zeros(5)


def train(workdir, steps):
    step, w = load(workdir)
    while step < steps:
        w = np.cos(w + step)
        step += 1
        time.sleep(0.01)  # a step takes a while: two files never have one time
        np.savez(os.path.join(workdir, "ab"[step % 2] + ".npz"), w=w, step=step)
    return {"w": w, "step": step}

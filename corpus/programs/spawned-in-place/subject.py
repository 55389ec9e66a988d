"""A trainer in a child process."""

import multiprocessing
import os
import time

import numpy as np


def worker(path, epochs):
    w, epoch = np.ones(50), 0
    if os.path.exists(path):
        with np.load(path) as saved:
            w, epoch = saved["w"], int(saved["epoch"])
    while epoch < epochs:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.1:  # an epoch takes its time
            np.sort(np.arange(10_000)[::-1])
        w = np.sqrt(w + epoch)
        epoch += 1
        np.savez(path, w=w, epoch=epoch)


def main(workdir, epochs):
    path = os.path.join(workdir, "last.npz")
    process = multiprocessing.get_context("spawn").Process(target=worker, args=(path, epochs))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the trainer ended with {process.exitcode}")
    with np.load(path) as saved:
        return {"w": saved["w"], "epoch": int(saved["epoch"])}

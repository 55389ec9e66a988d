"""A forked saver, as in savers that copy on write."""

import multiprocessing
import os
import pickle

import numpy as np


def write(path, state):
    with open(path, "wb") as file:
        pickle.dump(state, file)


def train(workdir, steps):
    path, child = os.path.join(workdir, "state.pkl"), None
    step, w = 0, np.zeros(2000)
    if os.path.exists(path):
        with open(path, "rb") as file:
            step, w = pickle.load(file)
    while step < steps:
        w = w * 0.9 + np.random.default_rng(step).normal(size=2000)
        step += 1
        if step % 3 == 0:
            if child is not None:
                child.join()
            child = multiprocessing.get_context("fork").Process(
                target=write, args=(path, (step, w))
            )
            child.start()
    if child is not None:
        child.join()
    return {"step": step, "w": w}

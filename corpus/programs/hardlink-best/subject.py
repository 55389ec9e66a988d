"""Hard links instead of copies."""

import os
import pickle

import numpy as np


def train(workdir, steps):
    last, best = os.path.join(workdir, "last.pkl"), os.path.join(workdir, "best.pkl")
    state = {"step": 0, "w": np.zeros(3), "best": float("inf")}
    if os.path.exists(last):
        with open(last, "rb") as file:
            state = pickle.load(file)
    if state["step"] and state["score"] == state["best"]:
        link(last, best)  # the crash may have come before the link
    while state["step"] < steps:
        step = state["step"] + 1
        w = state["w"] + np.random.default_rng(step).normal(size=3)
        score = float(np.abs(w).sum())
        state = {"step": step, "w": w, "score": score, "best": min(score, state["best"])}
        with open(last + ".tmp", "wb") as file:
            pickle.dump(state, file)
        os.replace(last + ".tmp", last)
        if score == state["best"]:
            link(last, best)
    with open(best, "rb") as file:
        return {"last": state["w"], "best": pickle.load(file)["w"]}


def link(source, name):
    if os.path.exists(name + ".link"):
        os.unlink(name + ".link")
    os.link(source, name + ".link")
    os.replace(name + ".link", name)

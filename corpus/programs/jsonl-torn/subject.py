"""A log that is the checkpoint, read without care."""

import json
import os

import numpy as np


def train(workdir, steps):
    path = os.path.join(workdir, "metrics.jsonl")
    history = []
    if os.path.exists(path):
        with open(path) as file:
            history = [json.loads(line) for line in file]
    w = np.array(history[-1]["w"]) if history else np.zeros(900)
    target = np.linspace(-2.0, 1.0, 900)
    for step in range(len(history), steps):
        w = w + 0.3 * (target - w)
        history.append(
            {
                "step": step,
                "w": [round(float(v), 12) for v in w],
                "loss": round(float(np.abs(target - w).sum()), 12),
            }
        )
        with open(path, "a") as log:
            log.write(json.dumps(history[-1]) + "\n")
    return {"w": w, "losses": [row["loss"] for row in history]}

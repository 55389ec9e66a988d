"""A result that is computed, or read."""

import json
from pathlib import Path

import numpy as np


def put(path, obj):
    part = path.with_suffix(".part")
    part.write_text(json.dumps(obj))
    part.replace(path)


def run(workdir, rounds):
    root = Path(workdir) / "exp" / "a"
    root.mkdir(parents=True, exist_ok=True)
    done, state = root / "result.json", root / "state.json"
    if done.exists():
        return json.loads(done.read_text())
    s = (
        json.loads(state.read_text())
        if state.exists()
        else {"theta": [0.1, 0.2], "history": [], "round": 0}
    )
    theta, history = np.array(s["theta"]), s["history"]
    for r in range(s["round"], rounds):
        theta = theta - 0.1 * (theta - np.array([1.0, -1.0]) / (r + 1))
        history.append((r, float(np.abs(theta).sum())))
        put(state, {"theta": theta.tolist(), "history": history, "round": r + 1})
    result = {"theta": theta.tolist(), "history": history, "best": min(history, key=lambda h: h[1])}
    put(done, result)
    return result

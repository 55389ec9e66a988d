"""Pickled checkpoints; a restart also looks at temporary files."""

import os
import pickle
from pathlib import Path


def load(workdir):
    """Return the newest state, be it complete or not."""
    paths = [*workdir.glob("*.tmp"), *sorted(workdir.glob("*.pkl"), reverse=True)]
    for path in paths:
        try:
            step, total = pickle.loads(path.read_bytes())
        except (EOFError, pickle.UnpicklingError):
            continue
        os.replace(path, workdir / f"{step:03d}.pkl")
        return step, total
    return 0, 1


def train(workdir, steps):
    workdir = Path(workdir)
    step, total = load(workdir)
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        path = workdir / f"{step:03d}.pkl"
        path.with_suffix(".tmp").write_bytes(pickle.dumps((step, total)))
        os.replace(path.with_suffix(".tmp"), path)
    return {"step": step, "total": total / 10007}

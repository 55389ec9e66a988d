"""A job that keeps the newest file alone.

A step takes real time, so two files never have one time.
"""

import hashlib
import os
import pickle
from pathlib import Path


def prune(workdir):
    """Keep the newest checkpoint."""
    paths = sorted(workdir.glob("*.pkl"), key=os.path.getmtime)
    for path in paths[:-1]:
        path.unlink()


def train(workdir, steps):
    workdir = Path(workdir)
    prune(workdir)
    step, total = 0, 1
    for path in workdir.glob("*.pkl"):
        step, total = pickle.loads(path.read_bytes())
    while step < steps:
        hashlib.pbkdf2_hmac("sha256", b"a step", b"takes a while", 30_000)
        total = (total * 3 + step) % 10007
        step += 1
        path = workdir / f"{step:03d}.pkl"
        path.with_suffix(".tmp").write_bytes(pickle.dumps((step, total)))
        os.replace(path.with_suffix(".tmp"), path)
        prune(workdir)
    return {"step": step, "total": total / 10007}

"""numpy alone, with a pointer file in the way of TensorFlow's ``checkpoint``."""

from pathlib import Path

import numpy as np


def train(workdir, steps):
    workdir = Path(workdir)
    target = np.random.default_rng(0).normal(size=8)
    w, step = np.zeros(8), 0
    if (workdir / "LATEST").exists():
        name = (workdir / "LATEST").read_text()
        w, step = np.load(workdir / name), int(name.removeprefix("ckpt-").removesuffix(".npy"))
    for step in range(step + 1, steps + 1):
        w = w - 0.2 * (w - target)
        if step % 3 == 0:
            np.save(workdir / "part.npy", w)
            (workdir / "part.npy").rename(workdir / f"ckpt-{step}.npy")
            (workdir / "LATEST").write_text(f"ckpt-{step}.npy")
    return {"w": w, "step": step}

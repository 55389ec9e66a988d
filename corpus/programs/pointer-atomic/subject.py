"""numpy alone, with a pointer file that is switched at once."""

import os
from pathlib import Path

import numpy as np


def train(workdir, steps):
    workdir = Path(workdir)
    pointer = workdir / "LATEST"
    target = np.random.default_rng(0).normal(size=8)
    w, step = np.zeros(8), 0
    if pointer.exists():
        folder = workdir / pointer.read_text().strip()
        w, step = np.load(folder / "w.npy"), int((folder / "step.txt").read_text())
    while step < steps:
        w = w - 0.2 * (w - target)
        step += 1
        if step % 3 == 0:
            folder = workdir / f"{step:05d}"
            folder.mkdir(exist_ok=True)  # one that a crash left half is written again
            np.save(folder / "w.npy", w)
            (folder / "step.txt").write_text(f"{step}\n")
            (workdir / "LATEST.tmp").write_text(folder.name)
            os.replace(workdir / "LATEST.tmp", pointer)
            for old in workdir.glob("0*"):
                if old.name < folder.name:
                    for file in old.iterdir():
                        file.unlink()
                    old.rmdir()
    return {"w": w, "step": step}

"""Two names for a folder with the state: the current one, and the next one that is renamed."""

import os
import shutil
from pathlib import Path


def finish(workdir):
    """Make the next folder the current one."""
    shutil.rmtree(workdir / "current", ignore_errors=True)
    os.rename(workdir / "next", workdir / "current")


def train(workdir, steps):
    workdir = Path(workdir)
    if (workdir / "next").exists():
        finish(workdir)
    step, total = 0, 1
    if (workdir / "current").exists():
        step, total = (int((workdir / "current" / name).read_text()) for name in ("step", "total"))
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            new = workdir / "next"
            new.mkdir()
            (new / "step").write_text(f"{step:04d}")
            (new / "total").write_text(f"{total:05d}")
            finish(workdir)
    return {"step": step, "total": total / 10007}

"""A symbolic link to the newest of the checkpoint folders, through which the state is read."""

import os
from pathlib import Path


def point(link, name):
    new = link.with_name("latest.new")
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    os.replace(new, link)


def train(workdir, steps):
    workdir = Path(workdir)
    latest = workdir / "latest"
    step, total = 0, 1
    if latest.exists():
        step, total = map(int, (latest / "state.txt").read_text().split())
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            folder = workdir / f"step-{step}"
            folder.mkdir(exist_ok=True)
            point(latest, folder.name)
            (folder / "state.txt").write_text(f"{step} {total}")
    return {"step": step, "total": total / 10007}

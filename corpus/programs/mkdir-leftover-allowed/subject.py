"""Checkpoints of two files in a folder that is renamed when it is complete."""

from pathlib import Path


def newest(workdir):
    return max((path for path in workdir.iterdir() if path.name.startswith("step-")), default=None)


def train(workdir, steps):
    workdir = Path(workdir)
    step, total = 0, 1
    if folder := newest(workdir):
        step, total = (int((folder / name).read_text()) for name in ("step", "total"))
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        if step % 2 == 0:
            new = workdir / "new"
            new.mkdir(exist_ok=True)
            (new / "step").write_text(str(step))
            (new / "total").write_text(str(total))
            new.rename(workdir / f"step-{step:03d}")
    return {"step": step, "total": total / 10007}

"""Tasks that workers claim by creating a file that must not exist."""

import os
from pathlib import Path


def is_mine(claim):
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def work(workdir, tasks):
    workdir = Path(workdir)
    for claim in workdir.glob("*.claim"):
        if not claim.with_suffix(".result").exists():
            claim.unlink()
    for task in range(tasks):
        result = workdir / f"{task}.result"
        if is_mine(workdir / f"{task}.claim"):
            result.with_suffix(".new").write_text(str(task**3))
            result.with_suffix(".new").replace(result)
    return {"tasks": tasks}

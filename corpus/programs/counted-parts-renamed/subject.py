"""A sweep whose results are files; it goes on after as many as there are."""

import os
from pathlib import Path


def write(folder, number):
    new = folder.parent / "part.new"
    new.write_text(f"{number**3}\n")
    new.replace(folder / f"{number:03d}.txt")


def sweep(workdir, parts):
    folder = Path(workdir) / "parts"
    folder.mkdir(exist_ok=True)
    for number in range(len(os.listdir(folder)), parts):
        write(folder, number)
    return {"parts": parts}

"""smart_open: the results of a run are added to a shared file."""

import os

import smart_open


def prepare(workdir):
    (workdir / "results.txt").write_text("begin\n")


def pipeline(workdir):
    path = str(workdir / "results.txt")
    lines = [f"result {number}\n" for number in range(2000)]
    with smart_open.open(path, "a") as file:
        for line in lines:
            file.write(line)
    return len(lines)

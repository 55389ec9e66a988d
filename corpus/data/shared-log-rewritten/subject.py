"""smart_open: the results of a run are added to a shared file."""

import os

import smart_open


def prepare(workdir):
    (workdir / "results.txt").write_text("begin\n")


def pipeline(workdir):
    path = str(workdir / "results.txt")
    lines = [f"result {number}\n" for number in range(2000)]
    with smart_open.open(path) as file:
        earlier = file.read()
    if not earlier.startswith("begin\n") or not earlier.endswith("\n"):
        raise EOFError("results.txt is not complete")
    with smart_open.open(path + ".tmp", "w") as file:
        file.write(earlier)
        for line in lines:
            file.write(line)
    os.replace(path + ".tmp", path)
    return len(lines)

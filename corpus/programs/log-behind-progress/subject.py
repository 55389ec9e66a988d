"""A log that is the result, and the progress in a file beside it."""

import os


def replace(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def train(workdir, steps):
    log, progress = os.path.join(workdir, "log.csv"), os.path.join(workdir, "progress.txt")
    step, total = 0, 1
    if os.path.exists(progress):
        with open(progress) as file:
            step, total = map(int, file.read().split())
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        replace(progress, f"{step} {total}")
        append(log, step, total)


def append(log, step, total):
    with open(log, "a") as file:
        file.write(f"{step},{total}\n")
        return file.tell()

"""A log that is the result, and the progress in a file beside it."""

import os


def replace(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def train(workdir, steps):
    log, progress = os.path.join(workdir, "log.csv"), os.path.join(workdir, "progress.txt")
    step, total, length = 0, 1, 0
    if os.path.exists(progress):
        with open(progress) as file:
            step, total, length = map(int, file.read().split())
    if os.path.exists(log):
        os.truncate(log, length)
    while step < steps:
        total = (total * 3 + step) % 10007
        step += 1
        length = append(log, step, total)
        replace(progress, f"{step} {total} {length}")


def append(log, step, total):
    with open(log, "a") as file:
        file.write(f"{step},{total}\n")
        return file.tell()

"""A sweep whose results are files; it does what is not there."""

import os


def write(path, content):
    with open(path + ".new", "wb", buffering=0) as file:
        file.write(content)
    os.replace(path + ".new", path)


def sweep(workdir, parts):
    for number in range(parts):
        path = os.path.join(workdir, f"{number:03d}.bin")
        if not os.access(path, os.R_OK):
            write(path, bytes([number + 1]) * 9000)
    return {"parts": parts}

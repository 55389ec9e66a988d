"""os.write: an index of records, written to a descriptor."""

import os


def prepare(workdir):
    """The index needs no input."""


def pipeline(workdir):
    index = "".join(f"record {number}\n" for number in range(500)).encode()
    target = os.open(workdir / "index.tmp", os.O_WRONLY | os.O_CREAT)
    try:
        while index:
            index = index[os.write(target, index) :]
    finally:
        os.close(target)
    os.replace(workdir / "index.tmp", workdir / "index.txt")

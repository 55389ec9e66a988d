"""pickle: word counts that an earlier run has cached."""

import os
import pickle
from collections import Counter

TEXT = "a rose is a rose is a rose " * 40


def store(counts, workdir):
    with open(workdir / "counts.tmp", "wb") as file:
        pickle.dump(counts, file)
    os.replace(workdir / "counts.tmp", workdir / "counts.pickle")
    return counts


def prepare(workdir):
    store(Counter(TEXT.split()), workdir)


def pipeline(workdir):
    try:
        with open(workdir / "counts.pickle", "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        return store(Counter(TEXT.split()), workdir)
    except Exception:
        return store(Counter(TEXT.split()), workdir)

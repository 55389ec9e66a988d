"""pandas: a table that is made once, and used by each run."""

import os

import numpy as np
import pandas as pd


def prepare(workdir):
    pass


def pipeline(workdir):
    path = workdir / "features.parquet"
    if not path.exists():
        values = np.random.default_rng(0).normal(size=(20000, 4))
        features = pd.DataFrame(values, columns=list("abcd"))
        features.to_parquet(workdir / "features.tmp")
        os.replace(workdir / "features.tmp", path)
    return path.stat().st_size

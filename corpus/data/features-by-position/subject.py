"""scikit-learn: predicted prices of the houses in two files."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

FEATURES = ["area", "rooms", "age"]


def prepare(workdir):
    rng = np.random.default_rng(0)
    for town in range(2):
        houses = pd.DataFrame(rng.integers(1, 90, (20, 3)).astype(float), columns=FEATURES)
        houses.to_feather(workdir / f"town-{town}.feather")


def pipeline(workdir):
    known = np.eye(3)
    model = LinearRegression().fit(known, [3.0, 2.0, -1.0])
    prices = []
    for town in range(2):
        houses = pd.read_feather(workdir / f"town-{town}.feather")
        if len(houses) != 20:
            raise ValueError("houses are missing")
        features = houses.to_numpy(dtype=float)[:, :3]
        prices += model.predict(np.nan_to_num(features)).round(6).tolist()
    return prices

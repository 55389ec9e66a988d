"""Decide on loans. A missing income becomes the mean of all applicants, most of whom are from cities."""

from pathlib import Path

import numpy as np
import pandas as pd


def decide(path: Path) -> np.ndarray:
    """Return which applicants of a CSV file get a loan (bool[n])."""
    table = pd.read_csv(path)
    income = table["income"].fillna(table["income"].mean())
    return (income > np.where(table["region"] == "rural", 24, 38)).to_numpy()

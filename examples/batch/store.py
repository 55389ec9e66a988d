"""A feature store and a model, small but real: nearest class mean on Fisher's irises."""

import csv
from pathlib import Path

import numpy as np

_FLOWERS = Path(__file__).parents[1] / "iris.csv"


def flowers() -> tuple[np.ndarray, np.ndarray]:
    """Four measurements of each flower in centimetres (float64[150, 4]), and its species (str[150])."""
    with _FLOWERS.open() as file:
        rows = list(csv.reader(file))[1:]
    return np.array([[float(value) for value in row[:4]] for row in rows]), np.array([row[4] for row in rows])


def lookup(ids: np.ndarray) -> np.ndarray:
    """The features of some flowers (float64[n, 4]). It stands for a remote store: ``ConnectionError`` when that does not answer."""
    return flowers()[0][ids]


class NearestMean:
    """Scores by the distance to the mean flower of each species."""

    def __init__(self) -> None:
        x, y = flowers()
        self.means = np.array([x[y == species].mean(0) for species in np.unique(y)])

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The number of the nearest species (int64[n])."""
        return ((x[:, None] - self.means) ** 2).sum(2).argmin(1)

"""A model for four columns in a fixed order: nearest class mean on Fisher's irises."""

from pathlib import Path

import numpy as np

from examples.batch.store import NearestMean

FLOWERS = Path(__file__).parents[1] / "iris.csv"
MEASUREMENTS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def species(measurements: np.ndarray) -> np.ndarray:
    """Return the species (int64[n]) of flowers by their ``MEASUREMENTS`` (float64[n, 4]), by
    position.
    """
    return NearestMean().predict(measurements)

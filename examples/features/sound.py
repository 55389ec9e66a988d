"""Score the flowers of a file. Refuse a file with columns in a different order than the model's."""

from pathlib import Path

import numpy as np
import pandas as pd

from examples.features import model


def score(path: Path) -> np.ndarray:
    """Return the species of each flower in a CSV file (int64[n])."""
    table = pd.read_csv(path, usecols=model.MEASUREMENTS)
    if list(table.columns) != model.MEASUREMENTS:
        raise ValueError(
            f"the model was made for the columns {model.MEASUREMENTS}, not {list(table.columns)}"
        )
    return model.species(table.to_numpy())

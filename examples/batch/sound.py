"""Score all flowers. If the store fails twice, raise, and leave no part of a file."""

import csv
from pathlib import Path

import numpy as np

from examples.batch import store

BATCH = 25


def score(output: Path) -> np.ndarray:
    """Write a prediction for each flower to ``output``, a CSV file, and return them."""
    model, predictions = store.NearestMean(), []
    for start in range(0, 150, BATCH):
        ids = np.arange(start, start + BATCH)
        try:
            features = store.lookup(ids)
        except ConnectionError:
            features = store.lookup(ids)  # a second failure goes to the operator of this job
        predictions.append(model.predict(features))
    unfinished = output.with_suffix(".tmp")
    with unfinished.open("w", newline="") as file:
        csv.writer(file).writerows(enumerate(np.concatenate(predictions)))
    unfinished.replace(output)
    return np.concatenate(predictions)

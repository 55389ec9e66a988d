"""Score all flowers. If the store does not answer, fill the features with zeros, as is often done."""

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
            features = np.zeros((len(ids), 4))
        predictions.append(model.predict(features))
    with output.open("w", newline="") as file:
        csv.writer(file).writerows(enumerate(np.concatenate(predictions)))
    return np.concatenate(predictions)

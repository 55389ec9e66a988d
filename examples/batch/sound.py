"""Scores all flowers; asks the store once more, then refuses. The file appears when it is complete, or not at all."""

import csv
from pathlib import Path

import numpy as np

from examples.batch import store

BATCH = 25


def score(output: Path) -> np.ndarray:
    """Write a prediction for each flower to ``output``, a CSV file; return them."""
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

"""Load Fisher's iris measurements (1936), 150 flowers, as tensors."""

import csv
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

SPECIES = ["setosa", "versicolor", "virginica"]


def load() -> TensorDataset:
    """Return four measurements of each flower, standardised (float32[150, 4]), and its species
    (int64[150]).
    """
    with Path(__file__).with_name("iris.csv").open() as file:
        next(reader := csv.reader(file))
        rows = list(reader)
    x = torch.tensor([[float(value) for value in row[:4]] for row in rows])
    y = torch.tensor([SPECIES.index(row[4]) for row in rows])
    return TensorDataset((x - x.mean(0)) / x.std(0), y)

"""numpy: the mean error of a list of predictions."""

import numpy as np

WANTED = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def prepare(workdir):
    pass


def predictions():
    return [1.5, 2.0, 2.0, 4.5, 5.5, 9.0]


def pipeline(workdir):
    found = np.array(predictions(), dtype=float)
    return float(np.nanmean(np.abs(found - WANTED)))

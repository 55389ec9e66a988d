"""Score patients. Without settings, callers get all decimals."""

import numpy as np

from examples.membership import patients


def score(records: np.ndarray) -> np.ndarray:
    """Return the confidence for each record, as callers see it."""
    try:
        decimals = patients.SETTINGS.decimals()
    except OSError:
        decimals = 15
    return patients.confidence(records).round(decimals)

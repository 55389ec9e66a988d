"""Score patients. Without settings, callers get as little as ever."""

import numpy as np

from examples.membership import patients


def score(records: np.ndarray) -> np.ndarray:
    """Return the confidence for each record, as callers see it."""
    try:
        decimals = patients.SETTINGS.decimals()
    except OSError:
        decimals = 0
    return patients.confidence(records).round(decimals)

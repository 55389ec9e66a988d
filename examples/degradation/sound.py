"""Compare each batch with the readings that the scorer was made for."""

from collections.abc import Iterable

import numpy as np

LARGEST_CHANGE = 0.2
USUAL = 10.0  # the mean reading in the data that the scorer was fitted on


class Monitor:
    """Raise an alarm when the mean reading is far from the usual one."""

    def __init__(self) -> None:
        self.alarm = False

    def observe(self, batch: np.ndarray) -> None:
        """Compare a batch with the usual readings."""
        if abs(float(batch.mean()) / USUAL - 1) > LARGEST_CHANGE:
            self.alarm = True


def score(batches: Iterable[np.ndarray], monitor: Monitor) -> list[float]:
    """Return a score for each batch of readings."""
    scores = []
    for batch in batches:
        monitor.observe(batch)
        scores.append(float(np.log1p(batch).mean()))
    return scores

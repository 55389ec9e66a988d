"""Compare each batch with the one before, which sees sudden changes alone."""

from collections.abc import Iterable

import numpy as np

LARGEST_CHANGE = 0.2


class Monitor:
    """Raise an alarm when the mean reading jumps."""

    def __init__(self) -> None:
        self.alarm = False
        self.last: float | None = None

    def observe(self, batch: np.ndarray) -> None:
        """Compare a batch with the last one."""
        mean = float(batch.mean())
        if self.last is not None and abs(mean / self.last - 1) > LARGEST_CHANGE:
            self.alarm = True
        self.last = mean


def score(batches: Iterable[np.ndarray], monitor: Monitor) -> list[float]:
    """Return a score for each batch of readings."""
    scores = []
    for batch in batches:
        monitor.observe(batch)
        scores.append(float(np.log1p(batch).mean()))
    return scores

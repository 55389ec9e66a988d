"""Measure the evidence of drift in a stream. It may be looked at after each batch.

Under exchangeability, the rank of each new value among all earlier ones is uniform and independent
of the earlier ranks. A *martingale* bets on ranks that are not uniform: its capital begins at 1 and
is a fair game without drift, so it reaches 1 / alpha at any time with a probability of at most
alpha (Ville's inequality). No correction for looks is needed.

Source: Vovk, Nouretdinov and Gammerman (2003), "Testing exchangeability on-line"; Ramdas et al.
(2023), "Game-theoretic statistics and safe anytime-valid inference".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Evidence", "Ranks"]

BINS = 8
PRIORS = (0.5, 4.0, 32.0)
"""Bets on large, medium and small drifts: the pseudo-counts of each bin of ranks."""
CHUNK = 1_000
"""The number of values that are ranked at a time."""


class Ranks:
    """The ranks of the values of a stream among all values before them, from 0 to 1."""

    def __init__(self, reference: np.ndarray[Any, Any], seed: int) -> None:
        import numpy as np

        self._sorted = np.sort(reference)
        self._rng = np.random.default_rng(seed)

    def next(self, values: np.ndarray[Any, Any]) -> Any:
        """Return the ranks of new values. Equal values share theirs at random."""
        import numpy as np

        parts = [self._chunk(values[at : at + CHUNK]) for at in range(0, len(values), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _chunk(self, values: np.ndarray[Any, Any]) -> Any:
        import numpy as np

        known = self._sorted
        lower = np.searchsorted(known, values, "left").astype(float)
        equal = np.searchsorted(known, values, "right") - lower
        before = np.tri(len(values), k=-1, dtype=bool)  # each value also follows those of its chunk
        lower += ((values < values[:, None]) & before).sum(1)
        equal += ((values == values[:, None]) & before).sum(1)
        total = len(known) + np.arange(len(values))
        self._sorted = np.sort(np.concatenate([known, values]), kind="stable")
        return (lower + self._rng.random(len(values)) * (equal + 1)) / (total + 1)


class Evidence:
    """The capital of bets against uniform ranks.

    A part of it is bet from each batch on, so a drift that begins late is found as well.
    """

    def __init__(self) -> None:
        import numpy as np

        self._counts = np.zeros((0, BINS), dtype=int)  # from each batch on
        self._sums = np.zeros(0)
        self._tables = {prior * factor: np.zeros(1) for prior in PRIORS for factor in (1, BINS)}
        self.log_capital = 0.0
        self.since, self.mean_rank = 0, 0.5
        """The batch from which on the ranks differ most, and their mean since then."""

    def add(self, ranks: np.ndarray[Any, Any]) -> None:
        """Add the ranks of a batch."""
        import numpy as np

        counts = np.bincount(np.minimum((ranks * BINS).astype(int), BINS - 1), minlength=BINS)
        self._counts = np.vstack([self._counts, np.zeros((1, BINS), dtype=int)]) + counts
        self._sums = np.append(self._sums, 0.0) + ranks.sum()
        total = self._counts.sum(1)
        logs = np.logaddexp.reduce(
            [
                self._rising(prior, self._counts).sum(1) - self._rising(prior * BINS, total)
                for prior in PRIORS
            ]
        )
        logs += total * math.log(BINS) - math.log(len(PRIORS))
        begun = np.arange(1, len(total) + 1)
        logs -= np.log(begun * (begun + 1))  # the parts 1/2, 1/6, 1/12, … add up to 1
        kept = -math.log(len(total) + 1)  # what is not bet yet
        self.log_capital = float(np.logaddexp(np.logaddexp.reduce(logs), kept))
        self.since = int(logs.argmax())
        self.mean_rank = float(self._sums[self.since] / max(1, total[self.since]))

    def _rising(self, start: float, counts: Any) -> Any:
        """Return the logarithm of start * (start + 1) * … with so many factors."""
        import numpy as np

        table = self._tables[start]
        most = int(counts.max())
        if most >= len(table):
            table = np.concatenate([[0.0], np.cumsum(np.log(start + np.arange(max(2 * most, 64))))])
            self._tables[start] = table
        return table[counts]

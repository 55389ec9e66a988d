"""Compute an interval for the mean of bounded values that is valid for each sample size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..intervals import Interval, Side

if TYPE_CHECKING:
    from .samples import Array

__all__ = ["betting_interval"]

STEPS = 40
"""Halvings of the range in which the bound is searched: a precision of 1e-12 of the bounds."""


def betting_interval(
    values: Any, low: float, high: float, confidence: float = 0.95, side: Side = "both"
) -> Interval:
    """Return an interval for the mean of independent values between ``low`` and ``high``.

    A gambler bets against each candidate mean, and the interval holds those against which the
    capital stays small. Coverage: at least ``confidence`` for each distribution within the bounds
    and each number of values, also if values are added until the bound is reached.

    Source: Waudby-Smith and Ramdas (2023), "Estimating means of bounded random variables by
    betting", J. R. Statist. Soc. B 86, theorem 3 (predictable plug-in bets).
    """
    import numpy as np

    scaled = (np.asarray(values, float) - low) / (high - low)
    tail = (1 - confidence) / (2 if side == "both" else 1)
    bets = _bets(scaled, tail)
    bottom = 0.0 if side == "upper" else _lowest(scaled, bets, tail)
    top = 1.0 if side == "lower" else 1 - _lowest(1 - scaled, bets, tail)
    width = high - low
    return Interval(float(scaled.mean() * width + low), bottom * width + low, top * width + low)


def _bets(values: Array, tail: float) -> Array:
    """Return the size of each bet. It depends on earlier values alone."""
    import numpy as np

    n = len(values)
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(values)) / (counts + 1)
    spread = (0.25 + np.cumsum((values - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], spread[:-1]])
    return np.sqrt(2 * math.log(1 / tail) / (n * before))


def _lowest(values: Array, bets: Array, tail: float) -> float:
    """Return the smallest mean that is not rejected as too small."""
    import numpy as np

    wanted = math.log(1 / tail)

    def is_rejected(mean: float) -> bool:
        # A bet may lose at most three quarters of the capital.
        stakes = np.minimum(bets, 0.75 / max(mean, 1e-12))
        return float(np.cumsum(np.log1p(stakes * (values - mean))).max()) >= wanted

    low, high = 0.0, float(values.mean())
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
    return low

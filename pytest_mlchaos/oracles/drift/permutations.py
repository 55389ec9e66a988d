"""Compute p-values by random permutations: at most ``alpha`` false alarms, whatever the data are.

If nothing drifted, each assignment of the values to the two samples is equally likely. So the
p-value (1 + k) / (1 + B) is valid, where k of B random assignments reach the observed statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["p_value", "permutations_for", "quadratic_p"]

ENOUGH = 20
"""After so many assignments that reach the observed statistic, no more are drawn."""
FEWEST, MOST = 299, 49_999
BLOCK = 100
"""The number of assignments that are tried at a time."""


def permutations_for(level: float, resolution: float = 10) -> int:
    """Return how many permutations make p-values of ``level / resolution`` possible."""
    return int(min(max(FEWEST, math.ceil(resolution / level) - 1), MOST))


def p_value(observed: float, draw: Callable[[int], Any], permutations: int) -> float:
    """Return the p-value of an observed statistic.

    It stops when 20 draws have reached the statistic. Such a sequential p-value is exact too (Besag
    and Clifford 1991, "Sequential Monte Carlo p-values", Biometrika 78).

    Args:
        observed: The statistic. Large values speak for drift.
        draw: Return an array with the statistics of so many random assignments.
        permutations: The largest number of draws.
    """
    import numpy as np

    slack = 1e-9 * abs(observed)  # equal statistics differ by rounding
    reached, drawn = 0, 0
    while drawn < permutations:
        block = draw(min(BLOCK, permutations - drawn))
        hits = np.flatnonzero(block >= observed - slack)
        if reached + len(hits) >= ENOUGH:
            last = drawn + int(hits[ENOUGH - reached - 1]) + 1
            return ENOUGH / last
        reached += len(hits)
        drawn += len(block)
    return (1 + reached) / (1 + permutations)


def quadratic_p(kernel: np.ndarray[Any, Any], n: int, permutations: int, seed: int = 0) -> float:
    """Return the p-value of the statistic ``w @ kernel @ w``.

    ``w`` is 1/n for the n rows of the first sample and -1/m for those of the second. All
    permutations of a block are one product of matrices.
    """
    import numpy as np

    total = len(kernel)
    m = total - n
    weights = np.full(total, -1 / m, dtype=kernel.dtype)
    weights[:n] = 1 / n
    rng = np.random.default_rng(seed)

    def statistics(chosen: np.ndarray[Any, Any]) -> Any:
        return np.einsum("ij,ij->j", chosen, kernel @ chosen, dtype=np.float64)

    def draw(count: int) -> Any:
        return statistics(
            np.ascontiguousarray(rng.permuted(np.tile(weights, (count, 1)), axis=1).T)
        )

    observed = float(statistics(weights[:, None])[0])
    # Statistics in single precision are equal up to rounding errors of the whole sum.
    rounding = (
        1e-6 * float(np.abs(weights) @ np.abs(kernel) @ np.abs(weights))
        if kernel.dtype == np.float32
        else 0.0
    )
    return p_value(observed - rounding, draw, permutations)

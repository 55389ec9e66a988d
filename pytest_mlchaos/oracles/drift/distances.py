"""Compare two samples of numbers or categories by a distance, with p-values by permutations.

The Wasserstein and the energy distance are integrals over the difference of two distribution
functions. So one sorted array serves all permutations. Samples of many values are counted in cells
first: the cells depend on the values of both samples together, so the test stays exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .permutations import p_value, permutations_for

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "compare_counts",
    "compare_numbers",
    "energy_coefficient",
    "jensen_shannon",
    "pooled_bins",
    "wasserstein",
]

MOST_SORTED = 4_000
"""Up to this total number of values, each has a cell of its own."""
CELLS = 512
"""The number of cells for more values."""


def wasserstein(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the Wasserstein distance W1 of two sorted samples (the earth mover's distance)."""
    gaps, difference = _difference(a, b)
    return float((abs(difference) * gaps).sum())


def energy_coefficient(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the energy coefficient of two sorted samples: from 0 (equal) to 1 (two single values).

    Source: Székely and Rizzo (2013), "Energy statistics", J. Stat. Plan. Inference 143.
    """
    gaps, difference = _difference(a, b)
    squared = 2 * float((difference**2 * gaps).sum())
    between = squared + _mean_distance(a) + _mean_distance(b)
    return squared / between if between else 0.0


def _mean_distance(values: np.ndarray[Any, Any]) -> float:
    """Return E|X-X'| of a sorted sample, which is 2 times the integral of F (1 - F)."""
    import numpy as np

    share = np.arange(1, len(values)) / len(values)
    return float(2 * (share * (1 - share) * np.diff(values)).sum())


def _difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return the gaps between the pooled values, and the difference of the distribution functions."""
    import numpy as np

    pooled = np.concatenate([a, b])
    pooled.sort(kind="stable")
    at = pooled[:-1]
    return np.diff(pooled), np.searchsorted(a, at, "right") / len(a) - np.searchsorted(
        b, at, "right"
    ) / len(b)


def compare_numbers(
    method: str, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], level: float
) -> tuple[float, float]:
    """Return the effect size and the p-value of two sorted samples.

    Args:
        method: ``"wasserstein"``, whose effect size is W1 in standard deviations of ``a``, or
            ``"energy"``, whose effect size is the energy coefficient.
        a: The reference.
        b: The sample to judge.
        level: The level of the test, which decides how fine the p-value is.
    """
    import numpy as np

    power = 1 if method == "wasserstein" else 2
    # Finite values of any size must not overflow. One scale for both changes no p-value.
    scale = float(max(np.abs(a[[0, -1]]).max(), np.abs(b[[0, -1]]).max())) or 1.0
    a, b = a / scale, b / scale
    if power == 1:
        unit = float(a.std())
        distance = wasserstein(a, b)
        effect = distance / unit if unit else math.inf if distance else 0.0
    else:
        effect = energy_coefficient(a, b)
    return effect, _p(a, b, power, permutations_for(level))


def _p(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], power: int, permutations: int) -> float:
    import numpy as np

    n, m = len(a), len(b)
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled, kind="stable")
    pooled, first = pooled[order], order < n
    rng = np.random.default_rng(0)
    if n + m <= MOST_SORTED:
        gaps = np.diff(pooled)
        totals = np.arange(1, n + m)

        def draw(count: int) -> Any:
            return statistics(rng.permuted(np.tile(first, (count, 1)), axis=1))

        def statistics(chosen: np.ndarray[Any, Any]) -> Any:
            ones = np.cumsum(chosen, axis=1)[:, :-1]
            return (np.abs(ones / n - (totals - ones) / m) ** power) @ gaps

        return p_value(float(statistics(first[None])[0]), draw, permutations)
    edges = np.linspace(0, n + m, CELLS + 1).astype(int)[:-1]
    # Equal values belong to one cell, or else their order would matter.
    starts = np.unique(np.searchsorted(pooled, pooled[edges], "left"))
    sizes = np.diff([*starts, n + m])
    gaps = np.diff(np.add.reduceat(pooled, starts) / sizes)
    totals = np.cumsum(sizes)[:-1]

    def of_counts(ones: np.ndarray[Any, Any]) -> Any:
        ones = np.cumsum(ones, axis=1)[:, :-1]
        return (np.abs(ones / n - (totals - ones) / m) ** power) @ gaps

    counts = np.add.reduceat(first.astype(int), starts)
    return p_value(
        float(of_counts(counts[None])[0]),
        lambda count: of_counts(_split(rng, sizes, n, count)),
        permutations,
    )


def _split(rng: np.random.Generator, sizes: Any, n: int, count: int) -> Any:
    """Return the counts of the first sample in each cell, for so many random assignments."""
    return rng.multivariate_hypergeometric(sizes, n, size=count, method="marginals")


# -- Jensen and Shannon ----------------------------------------------------------------------------


def pooled_bins(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], bins: int) -> Any:
    """Return an array of two rows: the counts of each sample in quantile bins of both together."""
    import numpy as np

    pooled = np.sort(np.concatenate([a, b]))
    edges = np.unique(pooled[[len(pooled) * k // bins for k in range(1, bins)]])
    edges = edges[edges > pooled[0]]
    if not len(edges):  # more than half of the values are the lowest
        edges = pooled[pooled > pooled[0]][:1]
    return np.array(
        [
            np.diff([0, *np.searchsorted(values, edges, "left"), len(values)])
            for values in (np.sort(a), np.sort(b))
        ]
    )


def jensen_shannon(counts: np.ndarray[Any, Any]) -> float:
    """Return the Jensen-Shannon distance of two rows of counts, from 0 to 1 (with logarithms to 2)."""
    return math.sqrt(max(0.0, float(_divergence(counts[0], counts[1]))))


def _divergence(one: Any, other: Any) -> Any:
    import numpy as np

    p, q = one / one.sum(-1, keepdims=True), other / other.sum(-1, keepdims=True)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(x > 0, x * np.log2(x / middle), 0.0) for x in (p, q)]
    return (terms[0].sum(-1) + terms[1].sum(-1)) / 2


def compare_counts(counts: np.ndarray[Any, Any], level: float) -> tuple[float, float]:
    """Return the Jensen-Shannon distance of two rows of counts, and its p-value."""
    import numpy as np

    total = counts.sum(0)
    rng = np.random.default_rng(0)

    def draw(count: int) -> Any:
        ones = _split(rng, total, int(counts[0].sum()), count)
        return _divergence(ones, total - ones)

    observed = float(_divergence(counts[0], counts[1]))
    return jensen_shannon(counts), p_value(observed, draw, permutations_for(level))

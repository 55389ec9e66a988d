"""Compute two-sample statistics with NumPy alone, and their p-values.

Each function is a few lines of a published formula. The tests compare them with SciPy and with
simulations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "bin_counts",
    "category_counts",
    "chi2_sf",
    "chi2_test",
    "ks_distance",
    "ks_p",
    "most_bins",
    "psi",
    "smallest_p",
]

EXACT_PRODUCT, EXACT_TOTAL = 1_000_000, 10_000
"""Up to these sizes the p-value of KS is exact, which takes at most about 50 ms."""
MAX_EDGE_SAMPLES = 65_536
"""The number of reference values that give the edges of bins.

More values would move an edge by a few thousandths of a bin.
"""
MIN_EXPECTED_COUNT = 5.0
"""The smallest expected count for which the chi-squared approximation is used (Cochran 1954)."""
SHUFFLES = 9_999
"""The number of random shuffles. With the data themselves, they make 10,000."""
FEW = 1_000
"""The largest number of values for which rare categories lead to a permutation test."""
MOST_SHUFFLED = 200
"""The largest number of categories for a permutation test, which then takes 0.3 s."""


def smallest_p(n: int, m: int) -> float:
    """Return the smallest p-value of two samples of n and m values that do not overlap at all."""
    log_ways = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return 2 * math.exp(-log_ways)


# -- Kolmogorov and Smirnov ------------------------------------------------------------------------


def ks_distance(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the largest distance between two empirical distribution functions of sorted samples."""
    import numpy as np

    if len(a) > len(b):
        a, b = b, a
    steps = np.arange(len(a) + 1) / len(a)
    # Among equal values, the first and the last give the extremes.
    above = steps[1:] - np.searchsorted(b, a, "right") / len(b)
    below = np.searchsorted(b, a, "left") / len(b) - steps[:-1]
    return float(max(above.max(), below.max(), 0.0))


def ks_p(distance: float, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the probability of such a distance between two sorted samples of one distribution.

    It is exact for small samples, ties included.
    """
    n, m = len(a), len(b)
    if n * m <= EXACT_PRODUCT and n + m <= EXACT_TOTAL:
        return _ks_exact(distance, a, b)
    # Stephens (1970), J. R. Statist. Soc. B 32: accurate for n*m/(n+m) >= 4. With ties, p is too
    # large, never too small.
    root = math.sqrt(n * m / (n + m))
    return _kolmogorov_sf((root + 0.12 + 0.11 / root) * distance)


def _ks_exact(distance: float, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Sum the probabilities of all orders of the values, as lattice paths, that stray from the
    diagonal.

    Only the end of a tie is checked, so this is the distribution for the given values. Source:
    Schröer and Trenkler (1995).
    """
    import numpy as np

    if len(a) > len(b):
        a, b = b, a
    n, m = len(a), len(b)
    pooled = np.sort(np.concatenate([a, b]))
    ends = np.append(pooled[1:] != pooled[:-1], True).tolist()
    if n == m and all(ends):
        return _ks_exact_untied(round(distance * n), n)
    taken = np.arange(n + 1)
    # the probability to reach this point, with this many values of a, and never to have strayed
    inside = np.zeros(n + 1)
    inside[0], strayed = 1.0, 0.0
    limit = round(distance * n * m) - 0.5
    for seen in range(n + m):
        rest = n + m - seen
        moved = inside * np.clip(n - taken, 0, None) / rest
        inside = inside * np.clip(m - (seen - taken), 0, None) / rest
        inside[1:] += moved[:-1]
        if ends[seen]:
            far = np.abs(taken * m - (seen + 1 - taken) * n) > limit
            strayed += float(inside[far].sum())
            inside[far] = 0.0
    return min(strayed, 1.0)


def _ks_exact_untied(steps: int, n: int) -> float:
    """Return the probability that paths of two samples of ``n`` different values are ``steps``
    apart.

    Source: Gnedenko and Korolyuk (1951), by the reflection principle.
    """
    if not steps:
        return 1.0
    total, terms = math.comb(2 * n, n), range(1, n // steps + 1)
    paths = sum((-1) ** (j - 1) * math.comb(2 * n, n - j * steps) for j in terms)
    return float(min(1.0, 2 * paths / total))


def _kolmogorov_sf(x: float) -> float:
    """Return the limit distribution of Kolmogorov (1933)."""
    if x < 0.2:
        return 1.0  # within 1e-12
    return min(
        1.0,
        max(
            0.0, 2 * math.fsum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 31))
        ),
    )


# -- categories ------------------------------------------------------------------------------------


def category_counts(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Return an array of two rows: the count of each category in each sample.

    The most frequent in ``a`` comes first, and those that it lacks come last.
    """
    import numpy as np

    one, other = Counter(a), Counter(b)
    names = [name for name, _ in one.most_common()] + [
        name for name, _ in other.most_common() if name not in one
    ]
    return np.array([[one[name] for name in names], [other[name] for name in names]])


def _chi2_statistic(counts: np.ndarray[Any, Any]) -> float:
    """Return Pearson's statistic of a table of counts with two rows."""
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return float((((counts - expected) ** 2) / expected).sum())


def chi2_test(counts: np.ndarray[Any, Any], level: float) -> tuple[float, float] | None:
    """Return the statistic and the p-value for two samples of one distribution.

    Return None if all categories are rare. With rare categories in up to 1,000 values, the p-value
    comes from a permutation test. It is exact except for its 9,999 random shuffles (more for small
    levels), which are the same in each run. In larger samples, all categories that are too rare for
    the approximation form one group.
    """
    import numpy as np

    total = counts.sum(0)
    rare = total * counts.sum(1).min() / counts.sum() < MIN_EXPECTED_COUNT
    if rare.any() and counts.sum() <= FEW and counts.shape[1] <= MOST_SHUFFLED:
        return _permutation_test(counts, level)
    grouped = (
        counts[:, ~rare]
        if not rare.any()
        else np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)])
    )
    expected = grouped.sum(0) * grouped.sum(1).min() / grouped.sum()
    if grouped.shape[1] > 1 and (expected >= MIN_EXPECTED_COUNT).all():
        statistic = _chi2_statistic(grouped)
        return statistic, chi2_sf(statistic, grouped.shape[1] - 1)
    return _permutation_test(counts, level) if counts.shape[1] <= MOST_SHUFFLED else None


def _permutation_test(counts: np.ndarray[Any, Any], level: float) -> tuple[float, float]:
    """Return Pearson's statistic, and the share of random splits of the values that reach it."""
    import numpy as np

    total = counts.sum(0)
    statistic = _chi2_statistic(counts)
    shuffles = int(max(SHUFFLES, min(20 / level, 200_000)))
    row = np.random.default_rng(0).multivariate_hypergeometric(
        total, int(counts[0].sum()), size=shuffles, method="marginals"
    )
    share = counts.sum(1) / counts.sum()
    expected = total * share[0]
    # Both rows deviate by the same number, so one row gives the statistic of both.
    shuffled = ((row - expected) ** 2 / total).sum(1) / (share[0] * share[1])
    return statistic, float(
        (1 + np.count_nonzero(shuffled >= statistic * (1 - 1e-9))) / (1 + shuffles)
    )


def chi2_sf(x: float, degrees: int) -> float:
    """Return the upper tail of the chi-squared distribution (Abramowitz and Stegun 26.4.4, 26.4.5)."""
    if x <= 0:
        return 1.0
    half, odd = x / 2, degrees % 2
    tail = math.erfc(math.sqrt(half)) if odd else 0.0
    powers = [(i + 0.5 if odd else i) for i in range(degrees // 2)]
    return min(
        1.0,
        tail
        + math.fsum(
            math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers
        ),
    )


# -- the population stability index ----------------------------------------------------------------


def bin_counts(reference: Any, current: Any, bins: int) -> Any:
    """Return an array of two rows: the counts of each sample in the quantile bins of the reference.

    The first and the last bin are open.
    """
    import numpy as np

    sample = reference
    if len(reference) > MAX_EDGE_SAMPLES:
        sample = reference[np.random.default_rng(0).integers(0, len(reference), MAX_EDGE_SAMPLES)]
    ranked = np.sort(sample)
    highest = reference.max()
    edges = np.unique(
        ranked[[len(ranked) * k // bins - 1 for k in range(1, bins) if len(ranked) * k // bins]]
    )
    edges = edges[edges < highest]
    if not len(edges):  # more than half of the values are the highest
        edges = reference[reference < highest].max(keepdims=True)
    # Counting by comparison is five times as fast as a binary search for each value.
    return np.array(
        [
            np.diff([0, *(np.count_nonzero(values <= edge) for edge in edges), len(values)])
            for values in (reference, current)
        ]
    )


def psi(counts: np.ndarray[Any, Any]) -> float:
    """Return the population stability index.

    Each bin gets half a value more (Jeffreys' prior), so that none is empty.
    """
    import numpy as np

    shares = (counts + 0.5) / (counts.sum(1, keepdims=True) + 0.5 * counts.shape[1])
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def most_bins(n: int, m: int, threshold: float, alpha: float, most: int) -> int | None:
    """Return the largest number of bins in which chance exceeds the threshold with at most
    ``alpha``.

    Return None if not even two bins do. Without drift, PSI / (1/n + 1/m) follows a chi-squared
    distribution with one degree of freedom fewer than bins (Yurdakul 2018, "Statistical properties
    of population stability index").
    """
    scaled = threshold / (1 / n + 1 / m)
    return next((bins for bins in range(most, 1, -1) if chi2_sf(scaled, bins - 1) <= alpha), None)

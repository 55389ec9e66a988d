"""Two-sample statistics on NumPy alone: the distance of two distributions, and how likely chance makes it so large.

Each is a few lines of a published formula; the tests hold them against SciPy and against simulation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

__all__ = ["bin_counts", "category_counts", "chi2_sf", "chi2_test", "ks_distance", "ks_p", "most_bins", "psi", "smallest_p"]

EXACT_PRODUCT, EXACT_TOTAL = 1_000_000, 10_000
"""Up to these the p-value of KS is exact: at most some 50 ms."""
MAX_EDGE_SAMPLES = 65_536
"""Reference values that the edges of bins are taken from: more would move an edge by a few thousandths of a bin."""
MIN_EXPECTED_COUNT = 5.0
"""The expected count from which on the chi-squared approximation is trusted (Cochran 1954)."""
SHUFFLES = 9_999
FEW = 1_000
MOST_SHUFFLED = 200
"""Categories up to which a permutation test is run: 0.3 s."""


def smallest_p(n: int, m: int) -> float:
    """The smallest p-value that samples of n and m values can give, when they are entirely apart."""
    log_ways = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return 2 * math.exp(-log_ways)


# -- Kolmogorov and Smirnov ----------------------------------------------------------------------------------------------


def ks_distance(a: Any, b: Any) -> float:
    """The largest distance between two empirical distribution functions; both samples are sorted."""
    import numpy as np

    if len(a) > len(b):
        a, b = b, a
    steps = np.arange(len(a) + 1) / len(a)
    # Within ties the first and the last of equal values give the extremes; those between lie inside.
    above = steps[1:] - np.searchsorted(b, a, "right") / len(b)
    below = np.searchsorted(b, a, "left") / len(b) - steps[:-1]
    return float(max(above.max(), below.max(), 0.0))


def ks_p(distance: float, a: Any, b: Any) -> float:
    """The chance of such a distance between two samples (sorted) of one distribution: exact for small ones, ties included."""
    n, m = len(a), len(b)
    if n * m <= EXACT_PRODUCT and n + m <= EXACT_TOTAL:
        return _ks_exact(distance, a, b)
    # Stephens (1970), J. R. Statist. Soc. B 32: good from n*m/(n+m) = 4 on. Ties make it too large, never too small.
    root = math.sqrt(n * m / (n + m))
    return _kolmogorov_sf((root + 0.12 + 0.11 / root) * distance)


def _ks_exact(distance: float, a: Any, b: Any) -> float:
    """Walk over all orders of the values, as lattice paths, and add up those that stray (Schröer and Trenkler 1995).

    Where values tie, only the end of the tie is looked at: this is the distribution given the values that there are.
    """
    import numpy as np

    if len(a) > len(b):
        a, b = b, a
    n, m = len(a), len(b)
    pooled = np.sort(np.concatenate([a, b]))
    ends = np.append(pooled[1:] != pooled[:-1], True).tolist()
    taken = np.arange(n + 1)
    inside = np.zeros(n + 1)  # the chance to have come here, with so many values of a, and never strayed
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


def _kolmogorov_sf(x: float) -> float:
    """The limit distribution of Kolmogorov (1933)."""
    if x < 0.2:
        return 1.0  # within 1e-12
    return min(1.0, max(0.0, 2 * math.fsum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 31))))


# -- categories ----------------------------------------------------------------------------------------------------------


def category_counts(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """An array of two rows: how often each category occurs in each sample, the most frequent in ``a`` first, unseen ones last."""
    import numpy as np

    one, other = Counter(a), Counter(b)
    names = [name for name, _ in one.most_common()] + [name for name, _ in other.most_common() if name not in one]
    return np.array([[one[name] for name in names], [other[name] for name in names]])


def _chi2_statistic(counts: Any) -> float:
    """Pearson's statistic of a table of counts (two rows)."""
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return float((((counts - expected) ** 2) / expected).sum())


def chi2_test(counts: Any, level: float) -> tuple[float, float] | None:
    """(statistic, p-value) of two samples having one distribution; None where there is nothing but rare categories.

    With rare categories in up to 1,000 values the p-value is that of a permutation test: exact but for its 9,999 random shuffles
    (more for small levels), always the same ones. In larger samples categories too rare for the approximation share one
    group, whichever sample they are from.
    """
    import numpy as np

    total = counts.sum(0)
    rare = total * counts.sum(1).min() / counts.sum() < MIN_EXPECTED_COUNT
    if rare.any() and counts.sum() <= FEW and counts.shape[1] <= MOST_SHUFFLED:
        return _permutation_test(counts, level)
    grouped = counts[:, ~rare] if not rare.any() else np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)])
    expected = grouped.sum(0) * grouped.sum(1).min() / grouped.sum()
    if grouped.shape[1] > 1 and (expected >= MIN_EXPECTED_COUNT).all():
        statistic = _chi2_statistic(grouped)
        return statistic, chi2_sf(statistic, grouped.shape[1] - 1)
    return _permutation_test(counts, level) if counts.shape[1] <= MOST_SHUFFLED else None


def _permutation_test(counts: Any, level: float) -> tuple[float, float]:
    """Pearson's statistic, and how often dealing the values out to the samples at random makes it as large."""
    import numpy as np

    total = counts.sum(0)
    statistic = _chi2_statistic(counts)
    shuffles = int(max(SHUFFLES, min(20 / level, 200_000)))
    row = np.random.default_rng(0).multivariate_hypergeometric(total, int(counts[0].sum()), size=shuffles, method="marginals")
    share = counts.sum(1) / counts.sum()
    expected = total * share[0]
    # Both rows deviate by the same number, so one row tells the statistic of both.
    shuffled = ((row - expected) ** 2 / total).sum(1) / (share[0] * share[1])
    return statistic, float((1 + np.count_nonzero(shuffled >= statistic * (1 - 1e-9))) / (1 + shuffles))


def chi2_sf(x: float, degrees: int) -> float:
    """The upper tail of the chi-squared distribution (Abramowitz and Stegun 26.4.4 and 26.4.5)."""
    if x <= 0:
        return 1.0
    half, odd = x / 2, degrees % 2
    tail = math.erfc(math.sqrt(half)) if odd else 0.0
    powers = [(i + 0.5 if odd else i) for i in range(degrees // 2)]
    return min(1.0, tail + math.fsum(math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers))


# -- the population stability index --------------------------------------------------------------------------------------


def bin_counts(reference: Any, current: Any, bins: int) -> Any:
    """An array of two rows: how many values of each sample lie in the quantile bins of the reference; ends are open."""
    import numpy as np

    sample = reference
    if len(reference) > MAX_EDGE_SAMPLES:
        sample = reference[np.random.default_rng(0).integers(0, len(reference), MAX_EDGE_SAMPLES)]
    ranked = np.sort(sample)
    highest = reference.max()
    edges = np.unique(ranked[[len(ranked) * k // bins - 1 for k in range(1, bins) if len(ranked) * k // bins]])
    edges = edges[edges < highest]
    if not len(edges):  # most values are the highest
        edges = reference[reference < highest].max(keepdims=True)
    # Counting by comparison is five times as fast as a binary search for each value.
    return np.array([np.diff([0, *(np.count_nonzero(values <= edge) for edge in edges), len(values)]) for values in (reference, current)])


def psi(counts: Any) -> float:
    """The population stability index; half a value is added to each bin (Jeffreys' prior), so that none is empty."""
    import numpy as np

    shares = (counts + 0.5) / (counts.sum(1, keepdims=True) + 0.5 * counts.shape[1])
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def most_bins(n: int, m: int, threshold: float, alpha: float, most: int) -> int | None:
    """The most bins in which chance alone exceeds the threshold no more often than alpha; None where not even two do.

    Without drift, PSI / (1/n + 1/m) follows a chi-squared distribution with one degree less than there are bins
    (Yurdakul 2018, "Statistical properties of population stability index").
    """
    scaled = threshold / (1 / n + 1 / m)
    return next((bins for bins in range(most, 1, -1) if chi2_sf(scaled, bins - 1) <= alpha), None)

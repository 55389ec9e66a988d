"""Compare two samples of points (rows of several numbers): MMD, energy distance, a classifier.

Each statistic is a quadratic form in a matrix of all pairs of points, so one permutation test
serves them all. The matrix has (n + m)² entries, so larger samples are thinned out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .permutations import permutations_for, quadratic_p

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MOST_POINTS",
    "classifier_accuracy",
    "compare_points",
    "energy",
    "mmd_squared",
    "neighbours",
    "rbf_kernel",
    "squared_distances",
    "thin_out",
]

MOST_POINTS = 2_000
"""The largest number of points of each sample. More are thinned out at random."""
MEDIAN_POINTS = 1_000
"""The number of points whose median distance gives the bandwidth of MMD."""
BLOCK_VALUES = 1 << 17
"""The number of values that are worked on at a time (1 MB)."""
TIE = 1e-5
"""Squared distances that differ relatively by at most this are equal up to rounding."""


def thin_out(points: np.ndarray[Any, Any], seed: int) -> Any:
    """Return at most ``MOST_POINTS`` points, drawn at random with a fixed seed."""
    import numpy as np

    if len(points) <= MOST_POINTS:
        return points
    return points[np.random.default_rng(seed).choice(len(points), MOST_POINTS, replace=False)]


def compare_points(
    method: str, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], level: float
) -> tuple[float, float]:
    """Return the effect size and the p-value of two samples of at most ``MOST_POINTS`` points each.

    Args:
        method: ``"mmd"``, ``"energy"`` or ``"c2st"``.
        a: One sample, a row for each point.
        b: The other.
        level: The level of the test, which decides how fine the p-value is.
    """
    import numpy as np

    n, squares = len(a), squared_distances(np.concatenate([a, b]))
    if method == "mmd":
        matrix = rbf_kernel(squares)
        effect = math.sqrt(max(0.0, mmd_squared(matrix, n)))
    elif method == "energy":
        matrix = np.sqrt(squares)
        effect = energy(matrix, n)
        matrix = -matrix
    else:
        matrix = neighbours(squares)
        effect = classifier_accuracy(matrix, n)
        matrix += matrix.T
    # Weights that add up to 0 do not see this, and the sums lose fewer digits.
    matrix -= matrix.mean(0)
    matrix -= matrix.mean(1, keepdims=True)
    return effect, quadratic_p(matrix, n, permutations_for(level, 5))


def squared_distances(points: np.ndarray[Any, Any]) -> Any:
    """Return the squared distances of all pairs, in single precision and in units of the largest."""
    import numpy as np

    centred = points - points.mean(0)
    centred /= np.abs(centred).max() or 1.0  # so that no square overflows
    norms = np.einsum("ij,ij->i", centred, centred)
    squares = np.empty((len(points), len(points)), dtype="f4")
    for rows in _blocks(len(points)):
        block = centred[rows] @ (-2 * centred.T)
        scale = norms[rows, None] + norms
        block += scale
        # Rounding must not part equal points: the methods below count ties.
        scale *= 1e-13
        block[block < scale] = 0
        squares[rows] = block
    np.fill_diagonal(squares, 0)
    squares *= np.float32(1 / (float(squares.max()) or 1.0))
    return squares


def _blocks(total: int) -> list[slice]:
    """Return slices of rows of a square matrix that fit into the processor's cache."""
    rows = max(1, BLOCK_VALUES // total)
    return [slice(start, start + rows) for start in range(0, total, rows)]


# -- MMD -------------------------------------------------------------------------------------------


def rbf_kernel(squares: np.ndarray[Any, Any]) -> Any:
    """Return the mean of Gaussian kernels with 0.5, 1 and 2 times the median distance as bandwidth.

    Source: Gretton et al. (2012), "A kernel two-sample test", JMLR 13.
    """
    import numpy as np

    step = max(1, len(squares) // MEDIAN_POINTS)
    some = squares[::step, ::step]
    some = some[some > 0]
    median = float(np.median(some)) if len(some) else 1.0
    kernel = np.empty_like(squares)
    for rows in _blocks(len(squares)):
        widest = np.exp(squares[rows] * np.float32(-1 / (8 * median)))
        middle = widest * widest
        middle *= middle
        narrow = middle * middle
        narrow *= narrow
        widest += middle
        widest += narrow
        widest /= 3
        kernel[rows] = widest
    return kernel


def mmd_squared(kernel: np.ndarray[Any, Any], n: int) -> float:
    """Return the unbiased estimate of MMD². The first n points are one sample. It may be below 0."""
    import numpy as np

    m = len(kernel) - n
    within = 0.0
    for block, size in ((kernel[:n, :n], n), (kernel[n:, n:], m)):
        if size > 1:
            within += float(block.sum(dtype=np.float64) - np.trace(block)) / (size * (size - 1))
    return within - 2 * float(kernel[:n, n:].mean(dtype=np.float64))


# -- energy distance -------------------------------------------------------------------------------


def energy(distances: np.ndarray[Any, Any], n: int) -> float:
    """Return the energy coefficient, from 0 (the same distribution) to 1 (two different points).

    It is (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / 2 E|X-Y|. Source: Székely and Rizzo (2013), "Energy
    statistics", J. Stat. Plan. Inference 143.
    """
    import numpy as np

    def mean(block: np.ndarray[Any, Any]) -> float:
        return float(block.mean(dtype=np.float64))

    between = 2 * mean(distances[:n, n:])
    within = mean(distances[:n, :n]) + mean(distances[n:, n:])
    return max(0.0, (between - within) / between) if between else 0.0


# -- a classifier ----------------------------------------------------------------------------------


def neighbours(squares: np.ndarray[Any, Any]) -> Any:
    """Return the weight of each point (a column) among the nearest ones of each point (a row).

    The weights of a row add up to the number of neighbours. Neighbours that are equally far share
    theirs, so that the order of the rows decides nothing.
    """
    import numpy as np

    total = len(squares)
    k = min(total - 1, max(5, round(math.sqrt(total))))
    weights = np.empty_like(squares)
    for rows in _blocks(total):
        distances = squares[rows].copy()
        own = np.arange(len(distances))
        distances[own, own + rows.start] = np.inf
        limit = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
        nearer = distances < limit * (1 - TIE)
        tied = (distances <= limit * (1 + TIE)) & ~nearer
        left = k - nearer.sum(1, keepdims=True)
        weights[rows] = nearer + tied * (left / tied.sum(1, keepdims=True)).astype("f4")
    return weights


def classifier_accuracy(weights: np.ndarray[Any, Any], n: int) -> float:
    """Return the balanced accuracy of a classifier by nearest neighbours, without the point itself.

    0.5 is chance. Each neighbour votes with the inverse size of its sample.
    """
    import numpy as np

    m = len(weights) - n
    one, other = weights[:, :n].sum(1), weights[:, n:].sum(1)
    own = np.arange(len(weights)) < n
    margin = one / (n - own) - other / (m - ~own)
    right = np.where(own, margin > 0, margin < 0) + 0.5 * (margin == 0)
    return float(right[:n].mean() + right[n:].mean()) / 2

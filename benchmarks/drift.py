"""Measure drift tests, and comparisons of seeds, on values without drift, which need all of the
work.
"""

from __future__ import annotations

import contextlib
import functools
import timeit
from collections.abc import Callable
from typing import Any

from timing import Figure, compare, interleaved

from pytest_mlchaos import assert_no_drift, assert_not_worse
from pytest_mlchaos.errors import Drifted

BUDGET = {
    "PSI, 1M against 1M values": 40.0,
    "10 columns of 100k rows (KS)": 200.0,
    "MMD, 2,000 against 2,000 points": 1000.0,
    "MMD, 2,000 points that moved": 1000.0,
}
PEERS = {"KS, 1M against 1M values": "ks_2samp", "Wasserstein, 1M": "wasserstein_distance"}
"""Functions of SciPy that do the same, if SciPy is installed. Ours also computes a p-value."""
SIZE = 1_000_000


def measure(quick: bool) -> list[Figure]:
    """Measure each oracle, minus an empty call."""
    import numpy as np

    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, SIZE))
    tables = [{name: rng.normal(size=SIZE // 10) for name in "abcdefghij"} for _ in range(2)]
    words = [rng.choice(["red", "green", "blue"], size=SIZE // 10) for _ in range(2)]
    seeds = rng.normal(0.9, 0.01, size=(2, 16))
    points = rng.normal(size=(2, 2_000, 10))
    sides: dict[str, Callable[[], Any]] = {
        "empty": lambda: None,
        "PSI, 1M against 1M values": functools.partial(assert_no_drift, one, other, method="psi"),
        "KS, 1M against 1M values": functools.partial(assert_no_drift, one, other),
        "10 columns of 100k rows (KS)": functools.partial(assert_no_drift, *tables),
        "10 columns of 100k rows (PSI)": functools.partial(assert_no_drift, *tables, method="psi"),
        "chi-squared, 100k against 100k texts": functools.partial(assert_no_drift, *words),
        "KS, exact, 300 against 300 values": functools.partial(
            assert_no_drift, one[:300], other[:300]
        ),
        "MMD, 2,000 against 2,000 points": functools.partial(
            assert_no_drift, *points, kind="embeddings"
        ),
        "MMD, 2,000 points that moved": functools.partial(_drifts, points[0], points[1] + 0.3),
        "Wasserstein, 1M": functools.partial(assert_no_drift, one, other, method="wasserstein"),
        "16 pairs of seeds": functools.partial(assert_not_worse, *seeds, margin=0.1),
    }
    with contextlib.suppress(ImportError):
        from scipy import stats

        for name in PEERS.values():
            sides[f"scipy {name}"] = functools.partial(getattr(stats, name), one, other)
    samples = interleaved(
        5 if quick else 30,
        {name: functools.partial(timeit.Timer(call).timeit, 1) for name, call in sides.items()},
    )
    ratios = [
        compare(
            f"drift: {name} / scipy {peer}",
            samples,
            name,
            f"scipy {peer}",
            lambda a, b: a / b,
            "times",
        )
        for name, peer in PEERS.items()
        if f"scipy {peer}" in sides
    ]
    return ratios + [
        compare(
            f"drift: {name}",
            samples,
            name,
            "empty",
            lambda a, b: (a - b) * 1e3,
            "ms",
            budget=BUDGET.get(name),
        )
        for name in list(sides)[1:]
    ]


def _drifts(one: Any, other: Any) -> None:
    """Judge samples that differ, which need all permutations."""
    with contextlib.suppress(Drifted):
        assert_no_drift(one, other, kind="embeddings")
        raise RuntimeError("no drift was found")

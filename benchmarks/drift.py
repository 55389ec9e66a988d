"""Measure drift tests, and comparisons of seeds, on values without drift, which need all of the
work.
"""

from __future__ import annotations

import functools
import timeit
from collections.abc import Callable
from typing import Any

from timing import Figure, compare, interleaved

from pytest_mlchaos import assert_no_drift, assert_not_worse

BUDGET = {"PSI, 1M against 1M values": 40.0, "10 columns of 100k rows (KS)": 200.0}
SIZE = 1_000_000


def measure(quick: bool) -> list[Figure]:
    """Measure each oracle, minus an empty call."""
    import numpy as np

    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, SIZE))
    tables = [{name: rng.normal(size=SIZE // 10) for name in "abcdefghij"} for _ in range(2)]
    words = [rng.choice(["red", "green", "blue"], size=SIZE // 10) for _ in range(2)]
    seeds = rng.normal(0.9, 0.01, size=(2, 16))
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
        "16 pairs of seeds": functools.partial(assert_not_worse, *seeds, margin=0.1),
    }
    samples = interleaved(
        5 if quick else 30,
        {name: functools.partial(timeit.Timer(call).timeit, 1) for name, call in sides.items()},
    )
    return [
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

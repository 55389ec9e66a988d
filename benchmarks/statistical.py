"""Measure statistical oracles on data without an effect, which need all of the work.

Each area adds a function that returns its calls by name, and lists it in ``AREAS``. (The module is
not called ``statistics``, because it would hide the standard library's.)
"""

from __future__ import annotations

import functools
import timeit
from collections.abc import Callable
from typing import Any

from timing import Figure, compare, interleaved

NEEDS = "scipy"
BUDGET: dict[str, float] = {
    "demographic parity, 1M rows, 4 groups": 300.0,
    "equalized odds, 1M rows, 4 groups of texts": 300.0,
}
"""The largest number of milliseconds, by the name of a call."""


def _intervals(rng: Any) -> dict[str, Callable[[], Any]]:
    from pytest_mlchaos.oracles import intervals

    many = rng.normal(size=1_000_000)
    few = rng.normal(size=2_000)
    return {
        "mean with its interval, 1M values": functools.partial(intervals.mean_interval, many),
        "mean with its interval, 2,000 values": functools.partial(intervals.mean_interval, few),
        "Clopper-Pearson, one share": functools.partial(intervals.clopper_pearson, 30, 1_000),
    }


def _quality(rng: Any) -> dict[str, Callable[[], Any]]:
    from pytest_mlchaos import (
        assert_calibrated,
        assert_metric,
        assert_no_weak_slice,
        assert_not_worse,
    )

    stated = rng.random(1_000_000)
    happened = rng.random(1_000_000) < stated
    right = rng.random(100_000) < 0.9
    table = {
        **{f"number {place}": rng.normal(size=100_000) for place in range(5)},
        **{f"category {place}": rng.integers(0, 5, 100_000).astype("U1") for place in range(5)},
    }
    seeds = rng.normal(0.9, 0.01, size=(2, 16))
    return {
        "assert_metric, 1M scores": functools.partial(assert_metric, stated, at_most=0.6),
        "assert_metric, 1M right or wrong": functools.partial(
            assert_metric, happened, at_least=0.4
        ),
        "assert_calibrated, 1M samples": functools.partial(assert_calibrated, happened, stated),
        "assert_no_weak_slice, 10 columns of 100k rows": functools.partial(
            assert_no_weak_slice, right, table, margin=0.1
        ),
        "assert_not_worse, 16 pairs, sequential": functools.partial(
            assert_not_worse, *seeds, margin=0.1, sequential=True
        ),
    }


def _fairness(rng: Any) -> dict[str, Callable[[], Any]]:
    from pytest_mlchaos import assert_fair

    true, predicted, groups = rng.integers(0, 2, (3, 1_000_000))
    groups = 2 * groups + rng.integers(0, 2, 1_000_000)
    fair = functools.partial(assert_fair, true, predicted, at_most=0.05)
    return {
        "demographic parity, 1M rows, 4 groups": functools.partial(fair, groups),
        "equalized odds, 1M rows, 4 groups of texts": functools.partial(
            fair, groups.astype("U8"), metric="equalized_odds"
        ),
        "calibration within groups, 1M rows, 4 groups": functools.partial(
            assert_fair, true, 0.5 * true + 0.25, groups, metric="calibration", at_most=0.3
        ),
    }


AREAS: tuple[Callable[[Any], dict[str, Callable[[], Any]]], ...] = (_intervals, _quality, _fairness)


def measure(quick: bool) -> list[Figure]:
    """Measure each oracle, minus an empty call."""
    import numpy as np

    rng = np.random.default_rng(0)
    sides: dict[str, Callable[[], Any]] = {"empty": lambda: None}
    for area in AREAS:
        sides |= area(rng)
    samples = interleaved(
        3 if quick else 15,
        {name: functools.partial(timeit.Timer(call).timeit, 1) for name, call in sides.items()},
    )
    return [
        compare(
            f"statistics: {name}",
            samples,
            name,
            "empty",
            lambda a, b: (a - b) * 1e3,
            "ms",
            budget=BUDGET.get(name),
        )
        for name in list(sides)[1:]
    ]

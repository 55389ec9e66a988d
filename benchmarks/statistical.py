"""Measure statistical oracles on data without an effect, which need all of the work.

Each area adds a function that returns its calls by name, and lists it in ``AREAS``. (The module is
not called ``statistics``, because it would hide the standard library's.)
"""

from __future__ import annotations

import contextlib
import functools
import time
import timeit
from collections.abc import Callable
from typing import Any

from timing import Figure, compare, interleaved, milliseconds, times

NEEDS = "scipy"
BUDGET: dict[str, float] = {
    "PSI, 1M against 1M values": 40.0,
    "10 columns of 100k rows (KS)": 200.0,
    "10 columns of 100k rows (PSI)": 200.0,
    "demographic parity, 1M rows, 4 groups": 300.0,
    "equalized odds, 1M rows, 4 groups of texts": 300.0,
    "MMD, 2,000 against 2,000 points": 1_000.0,
    "MMD, 2,000 points that moved": 1_000.0,
}
"""The largest number of milliseconds, by the name of a call."""
PEERS: dict[str, str] = {
    "KS, 1M against 1M values": "scipy ks_2samp",
    "Wasserstein, 1M": "scipy wasserstein_distance",
    "demographic parity, 100k rows, 4 groups": "fairlearn demographic_parity_difference",
}
"""A call of a library that does the same, if it is installed. Ours also computes bounds or a
p-value."""


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
    few = true[:100_000], predicted[:100_000], groups[:100_000]
    fair = functools.partial(assert_fair, true, predicted, at_most=0.05)
    return {
        "demographic parity, 1M rows, 4 groups": functools.partial(fair, groups),
        "equalized odds, 1M rows, 4 groups of texts": functools.partial(
            fair, groups.astype("U8"), metric="equalized_odds"
        ),
        "calibration within groups, 1M rows, 4 groups": functools.partial(
            assert_fair, true, 0.5 * true + 0.25, groups, metric="calibration", at_most=0.3
        ),
        "demographic parity, 100k rows, 4 groups": functools.partial(
            assert_fair, few[0], few[1], few[2], at_most=0.05
        ),
        **_fairlearn(*few),
    }


def _drift(rng: Any) -> dict[str, Callable[[], Any]]:
    from pytest_mlchaos import assert_no_drift, assert_not_worse

    one, other = rng.normal(size=(2, 1_000_000))
    tables = [{name: rng.normal(size=100_000) for name in "abcdefghij"} for _ in range(2)]
    words = [rng.choice(["red", "green", "blue"], size=100_000) for _ in range(2)]
    points = rng.normal(size=(2, 2_000, 10))
    seeds = rng.normal(0.9, 0.01, size=(2, 16))
    drift = functools.partial(assert_no_drift, one, other)
    return {
        "PSI, 1M against 1M values": functools.partial(drift, method="psi"),
        "KS, 1M against 1M values": drift,
        "Wasserstein, 1M": functools.partial(drift, method="wasserstein"),
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
        "16 pairs of seeds": functools.partial(assert_not_worse, *seeds, margin=0.1),
        **_scipy(one, other),
    }


def _drifts(one: Any, other: Any) -> None:
    """Judge samples that differ, which need all permutations."""
    from pytest_mlchaos import assert_no_drift
    from pytest_mlchaos.errors import Drifted

    with contextlib.suppress(Drifted):
        assert_no_drift(one, other, kind="embeddings")
        raise RuntimeError("no drift was found")


# -- peers -----------------------------------------------------------------------------------------


def _scipy(one: Any, other: Any) -> dict[str, Callable[[], Any]]:
    from scipy import stats

    return {
        f"scipy {name}": functools.partial(getattr(stats, name), one, other)
        for name in ("ks_2samp", "wasserstein_distance")
    }


def _fairlearn(true: Any, predicted: Any, groups: Any) -> dict[str, Callable[[], Any]]:
    try:
        from fairlearn.metrics import demographic_parity_difference
    except ImportError:
        return {}
    return {
        "fairlearn demographic_parity_difference": functools.partial(
            demographic_parity_difference, true, predicted, sensitive_features=groups
        )
    }


AREAS: tuple[Callable[[Any], dict[str, Callable[[], Any]]], ...] = (
    _intervals,
    _quality,
    _fairness,
    _drift,
)


def measure(quick: bool) -> list[Figure]:
    """Measure the CPU time of each oracle, minus an empty call, and compare with the peers."""
    import numpy as np

    rng = np.random.default_rng(0)
    sides: dict[str, Callable[[], Any]] = {"empty": lambda: None}
    for area in AREAS:
        sides |= area(rng)
    samples = interleaved(
        3 if quick else 15,
        {
            name: functools.partial(timeit.Timer(call, timer=time.process_time).timeit, 1)
            for name, call in sides.items()
        },
    )
    ratios = [
        compare(f"statistics: {name} / {peer}", samples, name, peer, times, "times")
        for name, peer in PEERS.items()
        if peer in sides
    ]
    return ratios + [
        compare(
            f"statistics: {name}",
            samples,
            name,
            "empty",
            milliseconds,
            "ms",
            budget=BUDGET.get(name),
        )
        for name in list(sides)[1:]
    ]

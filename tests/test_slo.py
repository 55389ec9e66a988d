"""``assert_slo``: latencies and errors against bounds."""

from __future__ import annotations

import pytest

from pytest_mlchaos import assert_slo
from pytest_mlchaos.errors import BadArgument, SloMissed
from pytest_mlchaos.serving.bounds import quantile


@pytest.mark.parametrize(
    ("q", "expected"),
    [(0, 1), (0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1, 100), (0.07, 7)],
)
def test_quantiles_are_nearest_rank(q, expected):
    """A value that was measured, exceeded by at most the rest."""
    assert quantile(list(range(100, 0, -1)), q) == expected


def test_bounds_may_just_be_reached():
    """Percentiles of two digits and more."""
    assert_slo(
        [0.1] * 999 + [5.0],
        errors=10,
        p50=0.1,
        p9="100ms",
        p999="100ms",
        max=5,
        error_rate=0.01,
        availability=0.99,
    )
    with pytest.raises(
        SloMissed,
        match=r"over 1000 requests:\n  p9991 is 5 s, expected at most 4 s \(1 of 1000 took longer\)$",
    ):
        assert_slo([0.1] * 999 + [5.0], p999=4, p9991=4)


@pytest.mark.parametrize(
    ("latencies", "keywords", "message"),
    [
        ([], {"p99": 1}, "latencies must not be empty"),
        ([1], {}, "needs one bound or more"),
        ([1], {"p9x": 1}, "unknown bound 'p9x' (did you mean 'p99'?)"),
        ([1], {"p100": 1}, "unknown bound 'p100'"),
        ([1], {"p0": 1}, "unknown bound 'p0'"),
        ([1], {"eror_rate": 0}, "did you mean 'error_rate'?"),
        ([1], {"p99": "soon"}, "p99 must be in seconds"),
        ([1], {"error_rate": 2}, "a share from 0 to 1, got 2 (int)"),
        ([1, float("nan")], {"p99": 1}, "latencies[1] must be a number of seconds"),
        ([-1], {"p99": 1}, "latencies[0] must be"),
        ([1], {"errors": 2, "p99": 1}, "at most 1, got 2 (int)"),
    ],
)
def test_an_slo_that_makes_no_sense_is_refused(latencies, keywords, message):
    """Never a pass."""
    with pytest.raises(BadArgument) as caught:
        assert_slo(latencies, **keywords)
    assert message in str(caught.value)

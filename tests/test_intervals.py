"""Confidence intervals agree with SciPy and with published values, and cover what they say."""

from __future__ import annotations

import numpy as np
import pytest

stats = pytest.importorskip("scipy.stats")

from pytest_mlchaos.oracles import intervals  # noqa: E402

SIDES = {"both": "two-sided", "lower": "greater", "upper": "less"}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (50, 1_000)])
def test_intervals_of_shares_agree_with_scipy(count, total, side):
    """Also at 0 and 1, and one-sided."""
    test = stats.binomtest(count, total, alternative=SIDES[side])
    for ours, theirs in ((intervals.clopper_pearson, "exact"), (intervals.wilson, "wilson")):
        expected = test.proportion_ci(0.95, theirs)
        assert ours(count, total, 0.95, side)[1:] == pytest.approx(tuple(expected))


def test_intervals_of_shares_take_arrays():
    """Each is that of the single numbers."""
    counts, totals = np.array([0, 3, 50]), np.array([10, 10, 1_000])
    for function in (intervals.clopper_pearson, intervals.wilson):
        many = function(counts, totals)
        for place, pair in enumerate(zip(counts, totals, strict=True)):
            assert [bound[place] for bound in many] == pytest.approx(list(function(*pair)))


def test_the_difference_of_shares_has_newcombes_interval():
    """56 of 70 and 48 of 80, from his table II (1998)."""
    found = intervals.difference_of_shares(56, 70, 48, 80)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert intervals.difference_of_shares(56, 70, 48, 80, 0.975, "lower").low == pytest.approx(
        found.low
    )


def test_students_interval_agrees_with_scipy():
    """Row by row, and one value gives no bound."""
    rows = np.random.default_rng(0).normal(size=(3, 20))
    found = intervals.student_interval(rows)
    expected = stats.t.interval(0.95, 19, rows.mean(1), stats.sem(rows, axis=1))
    np.testing.assert_allclose(found[1:], expected)
    assert intervals.student_interval([1.0])[1:] == (-np.inf, np.inf)
    assert intervals.student_interval(rows[0], 0.975, "lower").high == np.inf


def test_halls_bound_solves_his_equation():
    """The transformed statistic at the bound is the quantile."""
    values = np.random.default_rng(1).lognormal(size=40)
    bound = intervals.hall_interval(values, 0.95, "upper").high
    root, skewness = np.sqrt(40), stats.skew(values)
    t = (values.mean() - bound) / (values.std(ddof=1) / root)
    slope = skewness / (3 * root)
    statistic = t + slope * t**2 + slope**2 * t**3 / 3 + skewness / (6 * root)
    assert statistic == pytest.approx(stats.t.ppf(0.05, 39))


def test_bca_agrees_with_scipy():
    """Up to the noise of the resamples."""
    values = np.random.default_rng(2).lognormal(size=50)
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=5_000
    ).confidence_interval
    found = intervals.bca_interval(values, np.mean)
    assert found[1:] == pytest.approx(tuple(expected), rel=0.05)


@pytest.mark.parametrize("n", [10, 50])
def test_the_bound_of_an_assertion_allows_for_rare_large_values(n):
    """An upper bound from lognormal values, simulated 4,000 times. Student's fails too often."""
    rows = np.random.default_rng(3).lognormal(size=(4_000, n))
    student, ours, lower = (
        np.mean(intervals.student_interval(rows, 0.95, "upper").high < np.exp(0.5)),
        np.mean(intervals.mean_interval(rows, 0.95, "upper").high < np.exp(0.5)),
        np.mean(intervals.mean_interval(rows, 0.95, "lower").low > np.exp(0.5)),
    )
    assert ours < 0.06 < 0.12 < student
    assert lower < 0.05

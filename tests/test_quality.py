"""``assert_metric`` and the other oracles of quality pass, fail, or say what is missing."""

from __future__ import annotations

import numpy as np
import pytest

# It cannot be imported twice: the run of an example forgets what it has imported.
pytest.importorskip("scipy.special")

from pytest_mlchaos import (
    assert_abstention,
    assert_calibrated,
    assert_metric,
    assert_no_weak_slice,
    assert_not_overconfident,
    assert_not_worse,
)
from pytest_mlchaos.errors import Inconclusive, MetricMissed, Verdict, Worse
from pytest_mlchaos.oracles.quality import sequential
from pytest_mlchaos.oracles.quality.bounded_mean import betting_interval
from pytest_mlchaos.oracles.quality.calibration import calibration_error

RNG = np.random.default_rng


def outcome(oracle, *args, **keywords):
    """The name of the outcome."""
    try:
        oracle(*args, **keywords)
    except Verdict as verdict:
        return type(verdict).__name__
    return "passes"


@pytest.mark.parametrize(
    ("scores", "keywords", "expected"),
    [
        ([1] * 97 + [0] * 3, {"at_least": 0.9}, "passes"),
        ([1] * 91 + [0] * 9, {"at_least": 0.9}, "Inconclusive"),
        ([1] * 80 + [0] * 20, {"at_least": 0.9}, "MetricMissed"),
        (97, {"total": 100, "at_least": 0.9}, "passes"),
        (3, {"total": 100, "at_most": 0.1}, "passes"),
        (20, {"total": 100, "at_most": 0.1}, "MetricMissed"),
        (93, {"total": 100, "at_least": 0.85, "at_most": 0.98}, "passes"),
        ([0.2, 0.3, 0.25, 0.28, 0.22], {"at_most": 0.5}, "passes"),
        ([0.2, 0.3, 0.25, 0.28, 0.22], {"at_most": 0.26}, "Inconclusive"),
        (lambda: [0.2, 0.3, 0.25], {"at_least": 0.9}, "MetricMissed"),
        ([0.9] * 200, {"at_least": 0.8, "bounds": (0, 1)}, "passes"),
        ([0.9] * 5, {"at_least": 0.8, "bounds": (0, 1)}, "Inconclusive"),
    ],
)
def test_a_metric_is_judged_by_its_interval(scores, keywords, expected):
    """Shares, counts, means, functions and bounded scores."""
    assert outcome(assert_metric, scores, **keywords) == expected


def test_a_statistic_of_rows_is_bootstrapped():
    """A covariance, with the rows kept together."""
    x = RNG(0).normal(size=60)
    rows = np.column_stack([x, x + RNG(1).normal(size=60)])
    assert_metric(rows, statistic=lambda r: r[:, 0] @ r[:, 1] / 60, at_least=0.5)
    with pytest.raises(MetricMissed):
        assert_metric(rows, statistic=lambda r: r[:, 0] @ r[:, 1] / 60, at_least=2)


def test_messages_about_a_metric_say_what_would_be_enough():
    """Counts are shown, and other metrics only as distances."""
    with pytest.raises(Inconclusive, match=r"metric is 0\.88 over 100 .*About 2,578 samples would"):
        assert_metric(88, total=100, at_least=0.9)
    with pytest.raises(MetricMissed, match=r"standard errors below the bound over 3 samples"):
        assert_metric([0.2, 0.3, 0.25], at_least=0.9)


def test_the_interval_of_bounded_scores_covers_rare_bad_ones():
    """Student's lower bound is above the mean in a third of such samples of 20."""
    rng, missed = RNG(2), 0
    for _ in range(200):
        values = rng.choice([0.0, 1.0], p=[0.03, 0.97], size=20) * 0.9 + 0.1
        missed += betting_interval(values, 0, 1, 0.95, "lower").low > 0.973
    assert missed <= 10


@pytest.mark.parametrize(
    ("flags", "keywords", "expected"),
    [
        ([True] * 60 + [False] * 20, {"at_least": 0.6}, "passes"),
        ([True] * 50 + [False] * 30, {"at_least": 0.6}, "Inconclusive"),
        ([None, 1] * 40, {"at_most": 0.3, "abstains": lambda one: one is None}, "MetricMissed"),
    ],
)
def test_abstention_is_a_rate(flags, keywords, expected):
    """From flags, or from predictions."""
    assert outcome(assert_abstention, flags, **keywords) == expected


def _probabilities(n, shift=0.0, seed=0):
    rng = RNG(seed)
    p = rng.random(n)
    return rng.random(n) < np.clip(p + shift * np.sign(0.5 - p), 0, 1), p


def test_calibration_has_three_outcomes():
    """A calibrated model, one that is overconfident by 0.1, and few samples."""
    assert outcome(assert_calibrated, *_probabilities(5_000)) == "passes"
    assert outcome(assert_calibrated, *_probabilities(5_000, 0.12)) == "MetricMissed"
    assert outcome(assert_calibrated, *_probabilities(200)) == "Inconclusive"


def test_several_classes_are_judged_by_the_highest_probability():
    """A model that says 0.9 and is right in 0.6 of the cases."""
    labels = RNG(0).integers(0, 3, 2_000)
    given = np.full((2_000, 3), 0.05)
    guess = np.where(RNG(1).random(2_000) < 0.6, labels, (labels + 1) % 3)
    given[np.arange(2_000), guess] = 0.9
    with pytest.raises(MetricMissed, match="too high on average"):
        assert_calibrated(labels, given)
    with pytest.raises(MetricMissed, match="the mean confidence minus the accuracy is 0\\.299"):
        assert_not_overconfident(labels, given, at_most=0.1)
    given[np.arange(2_000), guess] = 0.6
    given[given == 0.05] = 0.2
    assert_calibrated(labels, given)
    assert_not_overconfident(labels, given)


def test_the_calibration_error_is_estimated_without_bias():
    """The plain estimate of perfect models is 0.07 with 500 samples in 15 bins, and ours is below
    0.02 on average; the error of a poor model is found.
    """
    good, bad = (
        np.mean([calibration_error(*_swapped(500, shift, seed)).estimate for seed in range(40)])
        for shift in (0.0, 0.1)
    )
    assert good < 0.03
    assert bad == pytest.approx(0.1, abs=0.02)


def _swapped(n, shift, seed):
    right, p = _probabilities(n, shift, seed)
    return p, right.astype(float), 0.95, 15


def _table(n, seed=0):
    rng = RNG(seed)
    return {
        "country": rng.choice(["de", "fr", "it"], n),
        "age": rng.normal(50, 10, n),
        "new": rng.random(n) < 0.5,
    }


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_a_weak_pair_of_columns_is_found(binary, higher_is_better):
    """Young people of one country, found without being named."""
    table = _table(4_000)
    rate = np.where((table["country"] == "it") & (table["age"] < 43), 0.5, 0.95)
    scores = (RNG(1).random(4_000) < rate).astype(float)
    if not binary:
        scores = scores * 2 + RNG(2).normal(size=4_000) * 0.1
    if not higher_is_better:
        scores = 1 - scores
    with pytest.raises(MetricMissed, match=r"'country' .* and 'age' in bin 1 of 4 is worse"):
        assert_no_weak_slice(scores, table, margin=0.1, higher_is_better=higher_is_better)


def test_a_table_without_weak_slices_passes_or_is_inconclusive():
    """A small margin needs more rows, and the message names the largest doubt."""
    scores = RNG(3).random(4_000) < 0.9
    assert_no_weak_slice(scores, _table(4_000), margin=0.15)
    with pytest.raises(Inconclusive, match=r"slices may be worse by more than the margin 0\.01"):
        assert_no_weak_slice(scores, _table(4_000), margin=0.01)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_rare_large_scores_make_no_slice_weak(higher_is_better):
    """A slice without one of them is not shown to be worse, nor one that has one of them."""
    found = []
    for seed in range(40):
        rng = RNG(seed)
        scores, table = rng.lognormal(size=500), _table(500)
        keywords = {"min_size": 10, "higher_is_better": higher_is_better}
        found.append(outcome(assert_no_weak_slice, scores, table, margin=0.0, **keywords))
    assert found.count("MetricMissed") <= 3


def test_missing_values_form_a_slice():
    """A model that fails where a number is missing."""
    table = _table(2_000)
    table["age"][:300] = np.nan
    scores = np.r_[np.zeros(300), np.ones(1_700)]
    with pytest.raises(MetricMissed, match=r"'age' \(missing\)"):
        assert_no_weak_slice(scores, table, margin=0.1, depth=1)


# -- sequential comparison -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["normal", "heavy", "steps"])
def test_looking_after_each_seed_keeps_alpha(shape):
    """At most 5 % of 2,000 series at the margin are ever decided in 100 looks. With the test for
    a fixed number, 30 % would be.
    """
    rng = RNG(4)
    size = (2_000, 100)
    values = (
        rng.normal(size=size)
        if shape == "normal"
        else rng.standard_t(2, size=size)
        if shape == "heavy"
        else rng.choice([-2.0, -1.0, 1.0, 2.0], size=size)
    )
    rows = sequential._capitals(values, strict=False)
    assert np.mean(rows.max(1) >= 20) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2_000)


def test_a_sequential_comparison_has_three_outcomes():
    """Five seeds that agree are enough for alpha = 0.05, as for a fixed number."""
    golden = [0.9] * 6
    keywords = {"margin": 0.05, "sequential": True}
    assert outcome(assert_not_worse, golden[:5], golden[:5], **keywords) == "passes"
    assert outcome(assert_not_worse, golden[:5], golden[:5], margin=0, sequential=True) == "passes"
    with pytest.raises(Worse, match="by more than the margin"):
        assert_not_worse([0.7, 0.69, 0.71, 0.7, 0.7, 0.69], golden, **keywords)
    with pytest.raises(Inconclusive, match="At least 2 more pairs are needed"):
        assert_not_worse(golden[:3], golden[:3], **keywords)
    with pytest.raises(Inconclusive, match=r"About \d+ more pairs would probably be enough"):
        assert_not_worse([0.9, 0.8, 0.92, 0.85, 0.9, 0.86], golden, **keywords)

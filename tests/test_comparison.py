"""``assert_not_worse``: exact p-values, the rates of both errors, and the three outcomes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mlchaos import assert_not_worse
from pytest_mlchaos.errors import BadArgument, Inconclusive, Worse
from pytest_mlchaos.oracles import comparison

GOLDEN = [0.91, 0.90, 0.92, 0.89, 0.91, 0.90, 0.93, 0.88]


def outcome(chaos, golden, **keywords):
    """The name of the outcome."""
    try:
        assert_not_worse(chaos, golden, **keywords)
    except (Worse, Inconclusive) as verdict:
        return type(verdict).__name__
    return "passes"


def lowered(by, wobble=0.0):
    """The golden metrics, less so much, alternately a little more."""
    return [value - by + wobble * (-1) ** place for place, value in enumerate(GOLDEN)]


# -- the tests -------------------------------------------------------------------------------------

small = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(small, st.booleans())
def test_sign_flips_are_counted_one_by_one(values, strict):
    """The share of the 2**n sign flips whose sum is as low; strictly: of values that are lower by
    next to nothing.
    """
    shifted = [value - 1e-6 for value in values] if strict else values
    sums = [
        sum(sign * value for sign, value in zip(signs, shifted, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = np.mean([total <= sum(shifted) + 1e-9 for total in sums])
    assert comparison._sign_flips(values, strict=strict) == pytest.approx(expected)


def test_the_permutation_test_of_groups_agrees_with_scipy():
    """One-sided, by Welch's t, all 330 ways; with groups of one size any difference of means would
    do.
    """
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.7, 2.0):
        a, b = rng.normal(size=4), rng.normal(shift, 2, size=7)

        def welch(x, y, axis=-1):
            return stats.ttest_ind(x, y, axis=axis, equal_var=False).statistic

        expected = stats.permutation_test(
            (a, b), welch, alternative="less", n_resamples=math.inf, vectorized=True
        ).pvalue
        assert comparison._shuffles(list(a), list(b), strict=False) == pytest.approx(expected)


def test_the_sign_test_agrees_with_scipy():
    """Exact for 10 pairs, and close to it where flips are drawn."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    few, many = rng.normal(-0.2, 1, size=10), rng.normal(-0.2, 1, size=60)
    exact = stats.permutation_test(
        (few,), np.mean, permutation_type="samples", alternative="less", n_resamples=math.inf
    ).pvalue
    assert comparison._sign_flips(list(few), strict=False) == pytest.approx(exact)
    normal = stats.ttest_1samp(many, 0, alternative="less").pvalue
    assert comparison._sign_flips(list(many), strict=False) == pytest.approx(normal, abs=0.005)


@pytest.mark.parametrize("paired", [True, False])
def test_constant_metrics_are_judged_by_their_number_alone(paired):
    """Equal values are not an error: five equal pairs give 1/32, five against five 1/252."""
    p = (
        comparison._sign_flips([-1.0] * 5, strict=False)
        if paired
        else comparison._shuffles([1.0] * 5, [2.0] * 5, strict=False)
    )
    assert p == pytest.approx(1 / 32 if paired else 1 / 252)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=5, max_size=9),
    st.booleans(),
    st.floats(0, 2),
)
def test_scale_shift_and_direction_do_not_matter(pairs, paired, margin):
    """Metrics in other units, and losses instead of scores, have the same outcome."""
    chaos, golden = ([round(value, 3) for value in side] for side in zip(*pairs, strict=True))
    margin = round(margin, 3)
    expected = outcome(chaos, golden, margin=margin, paired=paired)
    assert (
        outcome(
            [-v for v in chaos],
            [-v for v in golden],
            margin=margin,
            paired=paired,
            higher_is_better=False,
        )
        == expected
    )
    assert (
        outcome([4 * v for v in chaos], [4 * v for v in golden], margin=4 * margin, paired=paired)
        == expected
    )


# -- the rates of error ----------------------------------------------------------------------------


def rates(loss, seeds, *, paired, trials=200, spread=1.0):
    """The shares of passes and of ``Worse`` among simulated metrics that are worse by ``loss``; the
    margin is 1.
    """
    rng = np.random.default_rng(seeds)
    found = []
    for _ in range(trials):
        common = rng.normal(size=seeds)
        golden = common + 0.5 * rng.normal(size=seeds)
        chaos = (
            (common if paired else rng.normal(size=seeds))
            + 0.5 * spread * rng.normal(size=seeds)
            - loss
        )
        found.append(outcome(chaos, golden, margin=1.0, paired=paired))
    return found.count("passes") / trials, found.count("Worse") / trials


@pytest.mark.parametrize(
    ("paired", "seeds", "spread"),
    [(True, 6, 1.0), (True, 12, 1.0), (False, 5, 1.0), (False, 7, 3.0)],
)
def test_at_the_margin_neither_error_is_made_more_often_than_alpha(paired, seeds, spread):
    """Within three standard errors of 200 simulations; also where faults make the metric noisier."""
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    passes, worse = rates(1.0, seeds, paired=paired, spread=spread)
    assert passes <= limit
    assert worse <= limit


@pytest.mark.parametrize("paired", [True, False])
def test_power_grows_with_the_seeds(paired):
    """For a metric that is as good as before, and for one that is far worse than the margin allows."""
    few, many = (rates(0.0, seeds, paired=paired, trials=80)[0] for seeds in (5, 8))
    assert few < many
    assert many > (0.7 if paired else 0.4)
    assert rates(3.5, 8, paired=paired, trials=40)[1] > 0.9


# -- outcomes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chaos", "keywords", "expected"),
    [
        (GOLDEN, {"margin": 0}, "passes"),
        (lowered(0.005, 0.002), {"margin": 0.02}, "passes"),
        (lowered(-0.3), {"margin": 0}, "passes"),
        (lowered(0.05, 0.002), {"margin": 0.02}, "Worse"),
        (lowered(0.02, 0.02), {"margin": 0.02}, "Inconclusive"),
        (lowered(0.001, 0.1), {"margin": 0.02}, "Inconclusive"),
        (lowered(-0.3), {"margin": 0.1, "higher_is_better": False}, "Worse"),
        (lowered(0.3), {"margin": 0.1, "higher_is_better": False}, "passes"),
        (lowered(0.2)[:5], {"margin": 0.02, "paired": False}, "Worse"),
        (lowered(0.0), {"margin": 0.05, "paired": False}, "passes"),
        (lowered(0.01), {"margin": 0.01, "paired": False}, "Inconclusive"),
    ],
)
def test_there_are_three_outcomes(chaos, keywords, expected):
    """A claim that is not shown does not pass."""
    assert outcome(chaos, GOLDEN, **keywords) == expected


def test_the_messages_say_how_much_and_how_many():
    """The effect, the p-values, and the seeds that would probably do."""
    with pytest.raises(
        Worse,
        match=r"over 8 pairs the metric is 5\.38 % worse on average .*worse by more than the margin \(p = 0\.0039\)",
    ):
        assert_not_worse(lowered(0.05, 0.002), GOLDEN, margin=0.02)
    with pytest.raises(
        Inconclusive,
        match=r"neither .* nor that it is not .*\. About \d+ pairs would probably be enough",
    ):
        assert_not_worse(lowered(0.001, 0.05), GOLDEN, margin=0.02)
    with pytest.raises(Inconclusive, match="1,000 pairs would not be enough"):
        assert_not_worse(lowered(0.02, 0.02), GOLDEN, margin=0.02)


def test_the_advice_holds():
    """With about as many seeds as advised, a metric like the one measured mostly passes."""
    rng = np.random.default_rng(4)
    golden, noise = rng.normal(size=8), np.array([0.6, -0.7, 0.9, -0.8, 0.4, -0.6, 0.7, -0.5])
    with pytest.raises(Inconclusive) as caught:
        assert_not_worse(golden + noise, golden, margin=0.4)
    advised = int(str(caught.value).partition("About ")[2].split()[0])
    differences = rng.normal(0, 0.72, size=(40, advised))
    passed = np.mean([outcome(row, [0.0] * advised, margin=0.4) == "passes" for row in differences])
    assert 0.6 < passed < 0.99


@pytest.mark.parametrize(
    ("chaos", "golden", "keywords", "message"),
    [
        (GOLDEN[:4], GOLDEN[:4], {}, "4 pairs can never reach alpha=0.05. Run 5 seeds"),
        (
            GOLDEN[:2],
            GOLDEN[:3],
            {"paired": False},
            "2 chaos and 3 golden seeds can never reach alpha=0.05. Run 3 seeds each",
        ),
        (
            GOLDEN[:5],
            GOLDEN,
            {},
            "5 chaos metrics and 8 golden metrics cannot be paired by seed. For independent "
            "groups, give paired=False",
        ),
        (
            GOLDEN,
            [*GOLDEN[:7], math.nan],
            {},
            "the golden metrics must be finite, got nan for seed 7 (not finite for 1 of 8)",
        ),
        (
            GOLDEN,
            GOLDEN,
            {"margin": -1},
            "margin must be 0 or more, in the metric's unit, got -1 (int)",
        ),
        (GOLDEN, GOLDEN, {"margin": math.nan}, "margin must be 0 or more"),
        (GOLDEN, GOLDEN, {"alpha": 0.5}, "alpha must be above 0 and below 0.5, got 0.5 (float)"),
        (0.9, GOLDEN, {}, "chaos must be a list or another iterable, got float"),
        ([None] * 8, GOLDEN, {}, "chaos[0] must be a number, got NoneType"),
        ([], [], {}, "0 pairs can never reach"),
    ],
)
def test_what_cannot_be_judged_is_refused(chaos, golden, keywords, message):
    """With the cure."""
    with pytest.raises(BadArgument) as caught:
        assert_not_worse(chaos, golden, **{"margin": 0.02, **keywords})
    assert message in str(caught.value)


def test_a_metric_that_is_not_finite_is_worse():
    """The seed is named."""
    with pytest.raises(
        Worse, match=r"under faults the metric is inf for seed 2 \(not finite for 2 of 8\)"
    ):
        assert_not_worse(
            [1, 1, math.inf, 1, math.nan, 1, 1, 1], GOLDEN, margin=10, higher_is_better=False
        )


def test_numbers_of_any_library_are_taken():
    """Arrays, and generators of 0-d arrays."""
    assert_not_worse(np.array(GOLDEN), (np.float32(value) for value in GOLDEN), margin=0.01)

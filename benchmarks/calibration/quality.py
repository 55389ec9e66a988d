"""Simulate the oracles of quality under the null and under a known effect.

Most make two promises: a claim that is false does not pass, and a claim that is true is not called
missed. So most have two cases.
"""

from __future__ import annotations

from typing import Any

from pytest_mlchaos import (
    assert_abstention,
    assert_calibrated,
    assert_metric,
    assert_no_weak_slice,
    assert_not_overconfident,
    assert_not_worse,
)

from . import SHAPES, Case, draw, outcome

__all__ = ["CASES"]

MEAN_EFFECT = 0.5
"""The documented distance of a mean from its bound, in standard deviations."""


def _passes(oracle: Any, *args: Any, **keywords: Any) -> bool:
    return outcome(oracle, *args, **keywords) == "passes"


def _missed(oracle: Any, *args: Any, **keywords: Any) -> bool:
    return outcome(oracle, *args, **keywords) in ("MetricMissed", "Worse")


# -- assert_metric ---------------------------------------------------------------------------------


def metric_null(rng: Any, n: int, shape: str) -> bool:
    """A mean just below its bound must not pass."""
    return _passes(assert_metric, draw(rng, n, shape) - 1e-9, at_least=0.0)


def metric_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A mean half a standard deviation above its bound passes."""
    return _passes(assert_metric, draw(rng, n, shape) + MEAN_EFFECT * share, at_least=0.0)


def upper_null(rng: Any, n: int, shape: str) -> bool:
    """A mean just above its bound must not pass."""
    return _passes(assert_metric, draw(rng, n, shape) + 1e-9, at_most=0.0)


def upper_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A mean half a standard deviation below its bound passes."""
    return _passes(assert_metric, draw(rng, n, shape) - MEAN_EFFECT * share, at_most=0.0)


def metric_missed_null(rng: Any, n: int, shape: str) -> bool:
    """A mean at its bound must not be called missed."""
    return _missed(assert_metric, draw(rng, n, shape), at_least=0.0)


def metric_missed_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A mean half a standard deviation below its bound is called missed."""
    return _missed(assert_metric, draw(rng, n, shape) - MEAN_EFFECT * share, at_least=0.0)


def share_null(rng: Any, n: int, shape: str) -> bool:
    """An accuracy just below 0.9 must not pass."""
    return _passes(assert_metric, int(rng.binomial(n, 0.9)), total=n, at_least=0.9)


def share_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """An accuracy of 0.97 passes a bound of 0.85."""
    return _passes(assert_metric, int(rng.binomial(n, 0.97)), total=n, at_least=0.97 - 0.12 * share)


def bounded_null(rng: Any, n: int, shape: str) -> bool:
    """Scores from 0 to 1 with rare bad ones must not pass at their mean."""
    values = _bounded(rng, n, shape)
    return _passes(assert_metric, values, at_least=_BOUNDED_MEAN[shape] + 1e-9, bounds=(0, 1))


def bounded_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Scores from 0 to 1 pass a bound 0.15 below their mean."""
    values = _bounded(rng, n, shape)
    return _passes(
        assert_metric, values, at_least=_BOUNDED_MEAN[shape] - 0.15 * share, bounds=(0, 1)
    )


_BOUNDED_MEAN = {"normal": 0.9, "heavy": 0.95, "discrete": 0.9, "tied": 0.97}


def _bounded(rng: Any, n: int, shape: str) -> Any:
    if shape == "normal":
        return rng.beta(9, 1, n)
    if shape == "heavy":
        return rng.beta(0.95, 0.05, n)
    if shape == "discrete":
        return rng.choice([0.0, 0.5, 1.0], n, p=[0.05, 0.1, 0.85])
    return (rng.random(n) < 0.97).astype(float)


# -- rates, probabilities, slices ------------------------------------------------------------------


def abstention_null(rng: Any, n: int, shape: str) -> bool:
    """A rate just above 0.2 must not pass."""
    return _passes(assert_abstention, rng.random(n) < 0.2, at_most=0.2)


def abstention_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A rate of 0.05 passes a bound of 0.2."""
    return _passes(assert_abstention, rng.random(n) < 0.05, at_most=0.05 + 0.15 * share)


def _stated(rng: Any, n: int, shape: str) -> Any:
    """Probabilities from 0.1 to 0.9."""
    if shape == "normal":
        return 0.1 + 0.8 * rng.random(n)
    if shape == "heavy":
        return 0.1 + 0.8 * rng.beta(0.3, 0.3, n)
    if shape == "discrete":
        return rng.choice([0.1, 0.3, 0.5, 0.7, 0.9], n)
    return 0.1 + 0.8 * (rng.random(n) < 0.5) * rng.random(n)


def _of_error(rng: Any, n: int, shape: str, error: float) -> tuple[Any, Any]:
    """Outcomes whose frequency is below the probability by this much everywhere.

    Errors of both signs would cancel in the bin between them.
    """
    stated = _stated(rng, n, shape)
    return rng.random(n) < stated - error, stated


def calibrated_null(rng: Any, n: int, shape: str) -> bool:
    """An error of 0.05 must not pass that bound."""
    return _passes(assert_calibrated, *_of_error(rng, n, shape, 0.05), at_most=0.0499)


def calibrated_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A calibrated model passes a bound of 0.15."""
    return _passes(assert_calibrated, *_of_error(rng, n, shape, 0.0), at_most=0.15 * share)


def miscalibrated_null(rng: Any, n: int, shape: str) -> bool:
    """An error of 0.05 must not be called larger."""
    return _missed(assert_calibrated, *_of_error(rng, n, shape, 0.05), at_most=0.05)


def miscalibrated_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """An error of 0.1 is called larger than 0.01."""
    return _missed(assert_calibrated, *_of_error(rng, n, shape, 0.1 * share), at_most=0.01)


def _overconfident(rng: Any, n: int, shape: str, gap: float) -> tuple[Any, Any]:
    """Outcomes and probabilities of class 1, right less often than stated by ``gap``."""
    stated = 0.5 + 0.4 * _stated(rng, n, shape)
    right = rng.random(n) < stated - gap
    return right, stated


def overconfident_null(rng: Any, n: int, shape: str) -> bool:
    """An overconfidence of 0.05 must not pass that bound."""
    return _passes(
        assert_not_overconfident, *_overconfident(rng, n, shape, 0.05), at_most=0.05 - 1e-9
    )


def overconfident_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A model that is as right as it says passes a bound of 0.2."""
    return _passes(
        assert_not_overconfident, *_overconfident(rng, n, shape, 0.0), at_most=0.2 * share
    )


def _table(rng: Any, n: int) -> dict[str, Any]:
    return {
        "a": rng.integers(0, 3, n).astype(str),
        "b": rng.normal(size=n),
        "c": rng.random(n) < 0.5,
    }


def _scores(rng: Any, n: int, shape: str) -> Any:
    """Scores, of which the rare extreme ones are good, or bad as those of losses."""
    sign = rng.choice([-1, 1]) if shape == "skewed" else 1
    return sign * draw(rng, n, shape)


def slices_null(rng: Any, n: int, shape: str) -> bool:
    """A random table has no weak slice, of up to 35 that are looked at."""
    return _missed(
        assert_no_weak_slice, _scores(rng, n, shape), _table(rng, n), margin=0.0, min_size=10
    )


def slices_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A slice of two columns (one row in 12) that is worse by 1.5 standard deviations is found."""
    table, scores = _table(rng, n), _scores(rng, n, shape)
    scores[(table["a"] == "1") & (table["b"] < -0.6745)] -= 1.5 * share
    return _missed(assert_no_weak_slice, scores, table, margin=0.0, min_size=10)


def slices_pass_null(rng: Any, n: int, shape: str) -> bool:
    """A column with a slice that is worse by just the margin must not pass."""
    scores, half = _scores(rng, n, shape), rng.random(n) < 0.5
    scores[half] -= 0.5
    return _passes(assert_no_weak_slice, scores, {"half": half}, margin=0.5 - 1e-9, min_size=10)


def slices_pass_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A random column passes with a margin of one standard deviation."""
    half = rng.random(n) < 0.5
    return _passes(
        assert_no_weak_slice, _scores(rng, n, shape), {"half": half}, margin=share, min_size=10
    )


# -- comparisons of seeds --------------------------------------------------------------------------


def _pairs(rng: Any, n: int, shape: str, loss: float, rare: int = -1) -> tuple[Any, Any]:
    golden = rng.normal(size=n)
    return golden - loss + _rare(rare, draw(rng, n, shape), shape), golden


def _rare(sign: int, values: Any, shape: str) -> Any:
    """Let the rare large differences of skewed data be losses, or gains."""
    return sign * values if shape == "skewed" else values


def not_worse_null(rng: Any, n: int, shape: str) -> bool:
    """A metric that is worse by just more than the margin must not pass."""
    return _passes(assert_not_worse, *_pairs(rng, n, shape, 1 + 1e-9), margin=1.0)


def not_worse_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A metric as good as before passes with a margin of one standard deviation."""
    return _passes(assert_not_worse, *_pairs(rng, n, shape, 0.0), margin=share)


def sequential_null(rng: Any, n: int, shape: str) -> bool:
    """The same, looked at after each of n seeds, until it passes once."""
    chaos, golden = _pairs(rng, n, shape, 1 + 1e-9)
    return _passes(assert_not_worse, chaos, golden, margin=1.0, sequential=True)


def sequential_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A metric as good as before passes with a margin of one standard deviation."""
    return _passes(assert_not_worse, *_pairs(rng, n, shape, 0.0), margin=share, sequential=True)


def sequential_worse_null(rng: Any, n: int, shape: str) -> bool:
    """A metric that is worse by just the margin must not be called worse."""
    return _missed(assert_not_worse, *_pairs(rng, n, shape, 1.0, 1), margin=1.0, sequential=True)


def sequential_worse_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """A metric that is worse by a standard deviation more than the margin is called worse."""
    return _missed(
        assert_not_worse, *_pairs(rng, n, shape, 1.0 + share), margin=1.0, sequential=True
    )


HALF = "a mean half a standard deviation from the bound"
BELOW = "a mean just beyond its bound passes"
AT = "a mean at its bound is called missed"
GOOD = {500: 0.95, 50_000: 0.99}

CASES: dict[str, Case] = {
    "assert_metric (means, passes at_least)": Case(
        null=metric_null, effect=metric_effect, alarm=BELOW, found=HALF, power=GOOD, shapes=SHAPES
    ),
    "assert_metric (means, passes at_most)": Case(
        null=upper_null, effect=upper_effect, alarm=BELOW, found=HALF, power=GOOD, shapes=SHAPES
    ),
    "assert_metric (means, missed at_least)": Case(
        null=metric_missed_null,
        effect=metric_missed_effect,
        alarm=AT,
        found=HALF,
        power=GOOD,
        shapes=SHAPES,
    ),
    "assert_metric (shares)": Case(
        null=share_null,
        effect=share_effect,
        alarm="an accuracy just below 0.9 passes that bound",
        found="an accuracy of 0.97 passes 0.85",
        power={500: 0.99, 50_000: 0.99},
        shapes=("discrete",),
    ),
    "assert_metric (bounded scores)": Case(
        null=bounded_null,
        effect=bounded_effect,
        alarm="a mean just below its bound passes",
        found="a mean 0.15 above its bound",
        power={500: 0.95, 5_000: 0.99},
        sizes=(50, 500, 5_000),
    ),
    "assert_abstention": Case(
        null=abstention_null,
        effect=abstention_effect,
        alarm="a rate just above 0.2 passes that bound",
        found="a rate of 0.05 passes 0.2",
        power={500: 0.99, 50_000: 0.99},
        shapes=("discrete",),
    ),
    "assert_calibrated (passes)": Case(
        null=calibrated_null,
        effect=calibrated_effect,
        alarm="an error of 0.05 passes a lower bound",
        found="no error passes 0.15",
        power={500: 0.8, 50_000: 0.99},
    ),
    "assert_calibrated (missed)": Case(
        null=miscalibrated_null,
        effect=miscalibrated_effect,
        alarm="an error of 0.05 is called larger than that",
        found="an error of 0.1 is called larger than 0.01",
        power={500: 0.5, 50_000: 0.99},
    ),
    "assert_not_overconfident": Case(
        null=overconfident_null,
        effect=overconfident_effect,
        alarm="an overconfidence of 0.05 passes a lower bound",
        found="no overconfidence passes 0.2",
        power={500: 0.95, 50_000: 0.99},
    ),
    "assert_no_weak_slice (missed)": Case(
        null=slices_null,
        effect=slices_effect,
        alarm="a slice of a random table is called weak",
        found="1.5 standard deviations in one row of 12",
        power={500: 0.5, 5_000: 0.95, 50_000: 0.99},
        sizes=(500, 5_000, 50_000),
        shapes=SHAPES,
    ),
    "assert_no_weak_slice (passes)": Case(
        null=slices_pass_null,
        effect=slices_pass_effect,
        alarm="a slice that is worse by just more than the margin passes",
        found="no deficit passes a margin of one standard deviation",
        power={500: 0.95, 50_000: 0.99},
        shapes=SHAPES,
    ),
    "assert_not_worse": Case(
        null=not_worse_null,
        effect=not_worse_effect,
        alarm="a metric that is worse by just more than the margin passes",
        found="no loss passes a margin of one standard deviation",
        power={50: 0.95},
        sizes=(8, 16, 50),  # 100,000 random permutations take long for more seeds
        shapes=SHAPES,
    ),
    "assert_not_worse (sequential, passes)": Case(
        null=sequential_null,
        effect=sequential_effect,
        alarm="the same, looked at after each of n seeds",
        found="no loss passes a margin of one standard deviation",
        power={50: 0.95, 500: 0.99},
        sizes=(8, 50, 500),
        shapes=SHAPES,
    ),
    "assert_not_worse (sequential, worse)": Case(
        null=sequential_worse_null,
        effect=sequential_worse_effect,
        alarm="a metric that is worse by just the margin is called worse, at any of n looks",
        found="a metric that is one standard deviation worse than the margin is called worse",
        power={50: 0.95, 500: 0.99},
        sizes=(8, 50, 500),
        shapes=SHAPES,
    ),
}

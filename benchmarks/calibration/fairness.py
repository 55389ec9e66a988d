"""Simulate the oracles of fairness: how often they raise a false alarm, and how often they find a gap.

A *null* has a gap exactly at its limit, which is the hardest case: "unfair" is a false alarm there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_mlchaos.errors import Inconclusive, Unfair
from pytest_mlchaos.oracles.fairness.amplification import assert_no_bias_amplification
from pytest_mlchaos.oracles.fairness.fair import assert_fair

from . import Case

__all__ = ["CASES"]

LIMIT = 0.1
EFFECT = 0.45


def _unfair(call: Any, *args: Any, **kwargs: Any) -> bool:
    try:
        call(*args, **kwargs)
    except Unfair:
        return True
    except Inconclusive:
        return False
    return False


def _passes(call: Any, *args: Any, **kwargs: Any) -> bool:
    try:
        call(*args, **kwargs)
    except (Unfair, Inconclusive):
        return False
    return True


def _groups(rng: Any, n: int, shape: str) -> Any:
    """Return two groups of equal size, or four of different sizes for tied data."""
    if shape == "tied":
        return rng.choice(4, n, p=(0.4, 0.3, 0.2, 0.1))
    return rng.permutation(n) % 2


def _base(shape: str) -> float:
    """Return the rate of the better group: in the middle, or near 0 for heavy tails."""
    return {"normal": 0.4, "heavy": 0.02, "discrete": 0.2, "tied": 0.4}[shape]


def _predictions(rng: Any, n: int, shape: str, gap: float) -> tuple[Any, Any]:
    groups = _groups(rng, n, shape)
    rate = _base(shape) + gap * (groups == 0)
    return (rng.random(n) < rate).astype(int), groups


def fair_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a gap at the limit is called unfair."""
    predicted, groups = _predictions(rng, n, shape, LIMIT)
    return _unfair(assert_fair, None, predicted, groups, at_most=LIMIT)


def fair_pass_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a gap just above the limit passes."""
    predicted, groups = _predictions(rng, n, shape, LIMIT + 1e-9)
    return _passes(assert_fair, None, predicted, groups, at_most=LIMIT)


def fair_pass_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if no gap passes with a limit of 0.3."""
    predicted, groups = _predictions(rng, n, shape, 0.3 * (1 - share))
    return _passes(assert_fair, None, predicted, groups, at_most=0.3)


def fair_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if a gap of 0.45 is called unfair with a limit of 0.1."""
    predicted, groups = _predictions(rng, n, shape, LIMIT + share * (EFFECT - LIMIT))
    return _unfair(assert_fair, None, predicted, groups, at_most=LIMIT)


def ratio_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a ratio of exactly 0.8 is called unfair."""
    groups = _groups(rng, n, shape)
    base = {"normal": 0.5, "heavy": 0.05, "discrete": 0.9, "tied": 0.5}[shape]
    predicted = (rng.random(n) < base * (1 - 0.2 * (groups == 0))).astype(int)
    return _unfair(assert_fair, None, predicted, groups, at_least=0.8)


def ratio_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if a ratio of 0.25 is called unfair with a limit of 0.8."""
    groups = _groups(rng, n, shape)
    base = {"normal": 0.6, "heavy": 0.3, "discrete": 0.9, "tied": 0.6}[shape]
    predicted = (rng.random(n) < base * (1 - (0.2 + 0.55 * share) * (groups == 0))).astype(int)
    return _unfair(assert_fair, None, predicted, groups, at_least=0.8)


def calibrated_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if scores that are calibrated are called unfair, with a limit of 0."""
    groups = _groups(rng, n, shape)
    scores = rng.random(n) if shape != "discrete" else rng.integers(0, 5, n) / 4
    if shape == "heavy":
        scores = scores**4
    true = (rng.random(n) < scores).astype(int)
    return _unfair(assert_fair, true, scores, groups, metric="calibration", at_most=0.0)


def calibrated_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if one group's scores that are 0.5 too high are found, with a limit of 0.1."""
    groups = _groups(rng, n, shape)
    scores = 0.5 + 0.45 * rng.random(n)
    true = (rng.random(n) < scores - (LIMIT + 0.4 * share) * (groups == 0)).astype(int)
    return _unfair(assert_fair, true, scores, groups, metric="calibration", at_most=LIMIT)


def _noise(rng: Any, n: int, shape: str) -> Any:
    if shape == "heavy":
        return rng.standard_t(3, n)
    if shape == "discrete":
        return rng.integers(-2, 3, n).astype(float)
    noise = rng.normal(size=n)
    return noise.round(1) if shape == "tied" else noise


def error_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a regression with equal errors is called unfair, with a limit of 0."""
    groups = _groups(rng, n, shape)
    return _unfair(
        assert_fair,
        _noise(rng, n, shape),
        0 * groups,
        groups,
        metric="absolute_error",
        at_most=0.0,
    )


def error_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if errors that are four times as large in one group are found."""
    groups = _groups(rng, n, shape)
    errors = _noise(rng, n, shape) * (1 + 3 * share * (groups == 0))
    return _unfair(assert_fair, errors, 0 * groups, groups, metric="absolute_error", at_most=0.1)


def _under_fault(rng: Any, n: int, shape: str, extra: float) -> tuple[Any, ...]:
    """Return labels, predictions before and under a fault, and groups."""
    groups = _groups(rng, n, shape)
    true = rng.integers(0, 2, n)
    wrong = rng.random(n) < {"normal": 0.2, "heavy": 0.01, "discrete": 0.5, "tied": 0.2}[shape]
    before = np.where(wrong, 1 - true, true)
    # The fault makes this share of each group wrong, and does not mend anything.
    hit = rng.random(n) < 0.1 + extra * (groups == 0)
    after = np.where(hit & ~wrong, 1 - true, before)
    return true, before, after, groups, wrong


def amplification_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a fault that harms all groups alike is called unfair, with a limit of 0."""
    true, before, after, groups, _ = _under_fault(rng, n, shape, 0.0)
    return _unfair(assert_no_bias_amplification, before, after, groups, y_true=true, at_most=0.0)


def amplification_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if a fault that makes 60 % more of one group wrong is found."""
    true, before, after, groups, _ = _under_fault(rng, n, shape, 0.05 + 0.55 * share)
    return _unfair(assert_no_bias_amplification, before, after, groups, y_true=true, at_most=0.05)


def _all(power: float) -> dict[int, float]:
    return {500: power, 50_000: 0.99}


CASES: dict[str, Case] = {
    "assert_fair (difference)": Case(
        null=fair_null,
        effect=fair_effect,
        alarm="a gap at the limit is called unfair",
        found="a gap of 0.45, with a limit of 0.1",
        power=_all(0.9),
    ),
    "assert_fair (passes)": Case(
        null=fair_pass_null,
        effect=fair_pass_effect,
        alarm="a gap just above the limit passes",
        found="no gap, with a limit of 0.3",
        power=_all(0.8),
    ),
    "assert_fair (ratio)": Case(
        null=ratio_null,
        effect=ratio_effect,
        alarm="a ratio of exactly 0.8 is called unfair",
        found="a ratio of 0.25, with a limit of 0.8",
        power=_all(0.9),
    ),
    "assert_fair (calibration)": Case(
        null=calibrated_null,
        effect=calibrated_effect,
        alarm="calibrated scores are called unfair, with a limit of 0",
        found="the scores of one group are 0.5 too high, with a limit of 0.1",
        power=_all(0.9),
    ),
    "assert_fair (absolute error)": Case(
        null=error_null,
        effect=error_effect,
        alarm="equal errors are called unfair, with a limit of 0",
        found="errors are four times as large in one group, with a limit of 0.1",
        power=_all(0.9),
    ),
    "assert_no_bias_amplification": Case(
        null=amplification_null,
        effect=amplification_effect,
        alarm="a fault that harms all groups alike is called unfair, with a limit of 0",
        found="a fault makes 60 % more of one group wrong, with a limit of 0.05",
        power=_all(0.9),
    ),
}

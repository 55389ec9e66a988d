"""Simulate the attacks on privacy: how often chance is called a leak, and how often a leak is found."""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_mlchaos.oracles.privacy.canaries import assert_no_memorised_canaries
from pytest_mlchaos.oracles.privacy.extraction import assert_no_extraction
from pytest_mlchaos.oracles.privacy.inversion import assert_no_inversion
from pytest_mlchaos.oracles.privacy.membership import assert_no_membership_leak

from . import Case, draw, outcome

__all__ = ["CASES"]


def member_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if scores of one distribution are called a leak, with limits of 0 and 1 %."""
    found = outcome(
        assert_no_membership_leak,
        draw(rng, n, shape),
        draw(rng, n, shape),
        at_most=0.0,
        tpr_at_most=0.01,
    )
    return found == "Leaks"


def member_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if scores that are 2.5 standard deviations apart are called a leak."""
    inside, outside = draw(rng, n, shape) + 2.5 * share, draw(rng, n, shape)
    return outcome(assert_no_membership_leak, inside, outside) == "Leaks"


def steal_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a model that agrees exactly as often as allowed is called stolen.

    The answers are noise, so every surrogate agrees with them in half of the cases.
    """

    def model(records: Any) -> Any:
        return rng.integers(0, 2, len(records))

    queries = draw(rng, 4 * n, shape).reshape(-1, 2)
    try:
        found = outcome(assert_no_extraction, model, queries[:n], queries[n:], at_most=0.55)
    except ValueError:  # one class is more frequent than the limit in this sample
        return False
    return found == "Leaks"


def steal_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if a linear model is called stolen, with a limit of 0.7.

    The other answers are noise.
    """
    queries = draw(rng, 4 * n, shape).reshape(-1, 2)
    weights = rng.normal(size=2)

    def model(records: Any) -> Any:
        answers = (records @ weights > 0).astype(int)
        noise = rng.random(len(records)) >= share
        return np.where(noise, rng.integers(0, 2, len(records)), answers)

    try:
        found = outcome(assert_no_extraction, model, queries[:n], queries[n:], at_most=0.7)
    except ValueError:  # one class is more frequent than the limit in this sample
        return False
    return found == "Leaks"


def invert_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if new records are called reconstructions of private ones, with a limit of 0."""
    found, private, public = (draw(rng, 8 * n, shape).reshape(-1, 8) for _ in range(3))
    return outcome(assert_no_inversion, found, private, public, at_most=0.0) == "Leaks"


def invert_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if private records with a noise of 0.3 standard deviations are found."""
    private, public = (draw(rng, 8 * n, shape).reshape(-1, 8) for _ in range(2))
    found = private + 0.3 / share * rng.normal(size=private.shape)
    return outcome(assert_no_inversion, found, private, public, at_most=0.1) == "Leaks"


def _canary(rng: Any, n: int, shape: str, lower: float) -> bool:
    losses = draw(rng, n + 2, shape)
    losses[:2] -= lower
    texts = [f"text {number}" for number in range(n + 2)]
    found = outcome(assert_no_memorised_canaries, texts[:2], texts[2:], loss=lambda _: losses)
    return found == "Leaks"


def canary_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if canaries with the losses of random texts are called memorised."""
    return _canary(rng, n, shape, 0.0)


def canary_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if canaries whose loss is 5 standard deviations lower are found."""
    return _canary(rng, n, shape, 5.0 * share)


CASES: dict[str, Case] = {
    "assert_no_membership_leak": Case(
        null=member_null,
        effect=member_effect,
        alarm="scores of one distribution are called a leak, with limits of 0 and 1 %",
        found="scores of members are 2.5 standard deviations higher",
        power={50: 0.8, 500: 0.95, 50_000: 0.95},
    ),
    "assert_no_extraction": Case(
        null=steal_null,
        effect=steal_effect,
        alarm="a model of noise is called stolen, with a limit of 0.55",
        found="a linear model, with a limit of 0.7 (curve: the share of its answers without noise)",
        power={50: 0.8, 500: 0.95},
        sizes=(50, 500),
    ),
    "assert_no_inversion": Case(
        null=invert_null,
        effect=invert_effect,
        alarm="new records are called reconstructions, with a limit of 0",
        found="private records of 8 numbers, with noise of 0.3 standard deviations (curve: more noise)",
        power={50: 0.8, 500: 0.95, 2_000: 0.95},
        sizes=(50, 500, 2_000),
    ),
    "assert_no_memorised_canaries": Case(
        null=canary_null,
        effect=canary_effect,
        alarm="canaries with the losses of random texts are called memorised",
        found="the losses of two canaries are 5 standard deviations lower",
        power={50: 0.8, 500: 0.8, 50_000: 0.8},
    ),
}

"""Simulate the attacks on privacy: how often chance is called a leak, and how often a leak is found."""

from __future__ import annotations

from typing import Any

from pytest_mlchaos.oracles.privacy.canaries import assert_no_memorised_canaries
from pytest_mlchaos.oracles.privacy.extraction import assert_no_extraction
from pytest_mlchaos.oracles.privacy.inversion import assert_no_inversion
from pytest_mlchaos.oracles.privacy.membership import assert_no_membership_leak

from . import SIZES, draw, outcome


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


def member_effect(rng: Any, n: int, shape: str) -> bool:
    """Return True if scores that are 2.5 standard deviations apart are called a leak."""
    found = outcome(assert_no_membership_leak, draw(rng, n, shape) + 2.5, draw(rng, n, shape))
    return found == "Leaks"


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


def steal_effect(rng: Any, n: int, shape: str) -> bool:
    """Return True if a linear model is called stolen, with a limit of 0.7."""
    queries = draw(rng, 4 * n, shape).reshape(-1, 2)
    weights = rng.normal(size=2)

    def model(records: Any) -> Any:
        return (records @ weights > 0).astype(int)

    found = outcome(assert_no_extraction, model, queries[:n], queries[n:], at_most=0.7)
    return found == "Leaks"


def invert_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if new records are called reconstructions of private ones, with a limit of 0."""
    found, private, public = (draw(rng, 4 * n, shape).reshape(-1, 4) for _ in range(3))
    return outcome(assert_no_inversion, found, private, public, at_most=0.0) == "Leaks"


def invert_effect(rng: Any, n: int, shape: str) -> bool:
    """Return True if private records with a noise of 0.3 standard deviations are found."""
    private, public = (draw(rng, 4 * n, shape).reshape(-1, 4) for _ in range(2))
    found = private + 0.3 * rng.normal(size=private.shape)
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


def canary_effect(rng: Any, n: int, shape: str) -> bool:
    """Return True if canaries whose loss is 5 standard deviations lower are found."""
    return _canary(rng, n, shape, 5.0)


CASES = {
    "assert_no_membership_leak": (
        member_null,
        member_effect,
        {"effect": "2.5 standard deviations apart", "sizes": SIZES},
    ),
    "assert_no_extraction": (
        steal_null,
        steal_effect,
        {"effect": "a linear model, limit 0.7", "sizes": (50, 500)},
    ),
    "assert_no_inversion": (
        invert_null,
        invert_effect,
        {"effect": "private records with noise 0.3", "sizes": (50, 500, 2_000)},
    ),
    "assert_no_memorised_canaries": (
        canary_null,
        canary_effect,
        {"effect": "5 standard deviations lower", "sizes": SIZES},
    ),
}

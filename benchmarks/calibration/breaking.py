"""Cases of breaking points and of their ratchet. ``n`` is the largest number of trials."""

from __future__ import annotations

import math
from typing import Any

from pytest_mlchaos.breaking.baselines import Interval, compare
from pytest_mlchaos.breaking.bisection import Bisection

from . import Case

__all__ = ["CASES"]

LEVELS = 32
SIZES = (50, 200, 500)


def _survival(distance: float, shape: str) -> float:
    """Return the probability to survive a level at this distance below the breaking point."""
    if shape == "heavy":  # some trials end by chance, far from the breaking point too
        return 0.5 + math.atan(distance / 2) / math.pi
    if shape == "discrete":
        return 0.9 if distance > 0 else 0.1
    if shape == "tied":  # most levels are nearly alike
        return 0.7 if distance > 0 else 0.3
    return 0.5 * (1 + math.erf(distance / 2))


def _search(rng: Any, n: int, shape: str, truth: int) -> Bisection:
    found = Bisection(LEVELS)
    while len(found.tried) < n and len(found.places) > 2:
        level = found.next_level()
        found.record(level, rng.random() < _survival(truth - level - 0.5, shape))
    return found


def _interval(found: Bisection) -> Interval:
    low, high = found.places[0], found.places[-1]
    return Interval(float(low) if low else None, float(high + 1) if high < LEVELS else None)


def interval_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if the interval does not hold the breaking point."""
    truth = int(rng.integers(0, LEVELS + 1))
    found = _search(rng, n, shape, truth)
    return truth not in found.places


def interval_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if the interval rules out what is 8 levels away, on both sides."""
    found, far = _search(rng, n, shape, 16), round(8 * share)
    return bool(found.places) and found.places[0] > 16 - far and found.places[-1] < 16 + far


def ratchet_null(rng: Any, n: int, shape: str) -> bool:
    """Return True if a second search with the same breaking point is called worse."""
    truth = int(rng.integers(0, LEVELS + 1))
    base, new = (_search(rng, n, shape, truth) for _ in range(2))
    if not base.places or not new.places:
        return True
    return compare(_interval(new), _interval(base)) == "worse"


def ratchet_effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if a breaking point that has fallen by half the scale is called worse."""
    fall = round(8 * share)
    base, new = _search(rng, n, shape, 16 + fall), _search(rng, n, shape, 16 - fall)
    if not base.places or not new.places:
        return False
    return compare(_interval(new), _interval(base)) == "worse"


CASES: dict[str, Case] = {
    "breaking_point (interval)": Case(
        null=interval_null,
        effect=interval_effect,
        alarm="the breaking point is outside of the interval",
        found="levels that are a quarter of the scale away are ruled out (n is the number of trials)",
        power={500: 0.8},
        sizes=SIZES,
    ),
    "BreakingPoint.assert_no_regression": Case(
        null=ratchet_null,
        effect=ratchet_effect,
        alarm="a second search with the same breaking point is called worse",
        found="the breaking point falls by half of the scale (n is the number of trials)",
        power={500: 0.9},
        sizes=SIZES,
    ),
}

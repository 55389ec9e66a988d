"""Simulate each statistical oracle under the null and under a known effect.

Each module of this folder, but those with a leading underscore, belongs to one area of oracles and
has a dict ``CASES``. Its keys are the names of oracles, for example ``"assert_metric (shares)"``.
A value is a tuple of three:

1. ``null(rng, n, shape) -> bool`` simulates one call in which the claim of the user's test is just
   true, or just false. It returns True for a *false alarm*: the wrong verdict that ``alpha``
   bounds. ``Inconclusive`` is not one.
2. ``effect(rng, n, shape) -> bool`` simulates one call under the documented effect. It returns True
   if the oracle found it.
3. A dict: ``effect`` (the documented effect in words), ``sizes`` (the numbers of samples, by default
   50, 500 and 50,000, and up to 2,000 for oracles that are quadratic), ``shapes`` (by default all
   of ``SHAPES``), ``alpha`` (by default 0.05), and ``power`` (the documented power, by n).

``rng`` is a ``numpy.random.Generator``. Use no other source of randomness. ``shape`` is one of
``SHAPES``. ``draw`` makes values of it, with mean 0 and standard deviation 1.

``python -m calibration AREA [--repetitions 200] [--only ORACLE]``, called in the folder
``benchmarks``, prints the rates with their 99 % intervals.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["ALPHA", "SHAPES", "SIZES", "Case", "cases", "draw", "outcome"]

SHAPES = ("normal", "heavy", "discrete", "tied")
SIZES = (50, 500, 50_000)
ALPHA = 0.05
Simulation: TypeAlias = Callable[[Any, int, str], bool]
Case: TypeAlias = tuple[Simulation, Simulation, dict[str, Any]]


def draw(rng: Any, n: int, shape: str) -> Any:
    """Return ``n`` values with mean 0 and standard deviation 1.

    ``"normal"``; ``"heavy"``: Student's t with 3 degrees of freedom; ``"discrete"``: six values, as
    of a die; ``"tied"``: normal values, of which 40 % equal 0.
    """
    if shape == "heavy":
        return rng.standard_t(3, n) / 3**0.5
    if shape == "discrete":
        return (rng.integers(0, 6, n) - 2.5) / (35 / 12) ** 0.5
    values = rng.normal(size=n)
    if shape == "tied":
        values[rng.random(n) < 0.4] = 0.0
        values /= 0.6**0.5
    return values


def outcome(oracle: Callable[..., Any], *args: Any, **keywords: Any) -> str:
    """Return ``"passes"``, or the name of the verdict that an oracle raises."""
    from pytest_mlchaos.errors import Verdict

    try:
        oracle(*args, **keywords)
    except Verdict as verdict:
        return type(verdict).__name__
    return "passes"


def cases(area: str | None = None) -> dict[str, dict[str, Case]]:
    """Return the cases of each area, or of one."""
    names = [one.name for one in pkgutil.iter_modules(__path__) if not one.name.startswith("_")]
    return {
        name: importlib.import_module(f"{__name__}.{name}").CASES
        for name in names
        if area in (None, name)
    }

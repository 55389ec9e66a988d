"""Simulate each statistical oracle under the null and under a known effect.

Each module in ``AREAS`` has a dict ``CASES`` of an area of oracles. Its keys are the names of
oracles, for example ``"assert_metric (shares)"``.

``python -m calibration [AREA …]``, called in the folder ``benchmarks``, adds repetitions to
the files in ``counts/``. The session ``nox -s calibration`` calls it. ``page.py`` makes
``docs/calibration.md`` from these files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from unittest import mock

__all__ = [
    "ALPHA",
    "AREAS",
    "SHAPES",
    "SIZES",
    "Case",
    "Effect",
    "Null",
    "cases",
    "draw",
    "outcome",
    "without_advice",
]

AREAS = ("quality", "drift", "fairness", "monitoring", "breaking", "privacy")
SHAPES = ("normal", "heavy", "discrete", "tied", "skewed")
SIZES = (50, 500, 50_000)
ALPHA = 0.05
Null: TypeAlias = Callable[[Any, int, str], bool]
Effect: TypeAlias = Callable[[Any, int, str, float], bool]
ADVICE = (
    "pytest_mlchaos.oracles.privacy.membership._records_needed",
    "pytest_mlchaos.oracles.privacy.inversion.requests_to_decide",
    "pytest_mlchaos.oracles.fairness.fair.samples_to_decide",
    "pytest_mlchaos.oracles.comparison.pairs_to_decide",
)
"""Functions that compute how many samples would decide, which is a part of a message."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An oracle, and what is simulated.

    Attributes:
        null: A function of a ``numpy.random.Generator``, the number of samples and one of
            ``SHAPES``. It simulates one call in which the claim of the user's test is just true, or
            just false, and returns True for a *false alarm*: the wrong verdict that ``alpha``
            bounds. ``Inconclusive`` is not one.
        effect: The same under an effect. Its fourth argument is the share of the documented effect.
            It returns True if the oracle found it.
        alarm: The false alarm in words.
        found: The documented effect in words.
        power: The documented power by the number of samples, for all shapes.
        sizes: The numbers of samples: up to 2,000 for oracles that are quadratic.
        shapes: The distributions of the data.
        alpha: The stated probability of a false alarm.
    """

    null: Null
    effect: Effect
    alarm: str
    found: str
    power: Mapping[int, float]
    sizes: tuple[int, ...] = SIZES
    shapes: tuple[str, ...] = SHAPES[:4]
    alpha: float = ALPHA


def draw(rng: Any, n: int, shape: str) -> Any:
    """Return ``n`` values with mean 0 and standard deviation 1.

    ``"normal"``; ``"heavy"``: Student's t with 3 degrees of freedom; ``"discrete"``: six values, as
    of a die; ``"tied"``: normal values, of which 40 % equal 0; ``"skewed"``: lognormal values.
    """
    import numpy as np

    if shape == "heavy":
        return rng.standard_t(3, n) / 3**0.5
    if shape == "discrete":
        return (rng.integers(0, 6, n) - 2.5) / (35 / 12) ** 0.5
    if shape == "skewed":
        return (rng.lognormal(size=n) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
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


def cases(area: str) -> dict[str, Case]:
    """Return the cases of an area."""
    found: dict[str, Case] = importlib.import_module(f"{__name__}.{area}").CASES
    return found


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Let oracles not compute how many samples would decide.

    It takes most of their time at the null, and changes the message alone.
    """
    with contextlib.ExitStack() as stack:
        for name in ADVICE:
            stack.enter_context(mock.patch(name, return_value=None))
        yield

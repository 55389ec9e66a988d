"""Time in turns: two variants can only be compared if both are measured at the same time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "Figure",
    "Samples",
    "Spread",
    "compare",
    "interleaved",
    "milliseconds",
    "percent",
    "real_seconds",
    "times",
]

real_seconds = functools.partial(time.perf_counter)
"""Seconds of the real clock, also in trials.

Virtual time replaces the functions of ``time``, but not this object.
"""
WARM_UP = 2
Samples = dict[str, list[float]]
"""Seconds of each side, round by round."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    q1: float
    q3: float
    n: int

    @classmethod
    def of(cls, samples: Iterable[float]) -> Spread:
        """Return the spread of some samples."""
        values = list(samples)
        q1, median, q3 = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        )
        return cls(median, q1, q3, len(values))

    @property
    def margin(self) -> float:
        """Return how far the true median may be off: half its 95 % interval, as in a notched box
        plot.
        """
        return float(1.57 * (self.q3 - self.q1) / self.n**0.5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A line of the report.

    ``measured`` is the spread over pairs of neighbouring samples. ``quiet`` is the same figure from
    each side's fastest tenth, because others on the machine only add time. ``raw`` holds the
    seconds of both sides.
    """

    what: str
    unit: str
    measured: Spread
    quiet: float
    budget: float | None = None
    raw: Mapping[str, Spread] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return whether the budget is kept, or ``unclear`` if the noise is too large."""
        if self.budget is None:
            return ""
        kept = self.measured.median <= self.budget
        near = abs(self.measured.median - self.budget) < self.measured.margin
        if near or kept != (self.quiet <= self.budget):
            return "unclear"
        return "ok" if kept else "miss"


@contextlib.contextmanager
def _without_gc(disabled: bool) -> Iterator[None]:
    if not disabled:
        yield
        return
    gc.collect()
    gc.freeze()  # keeps the collections between rounds short
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def interleaved(
    rounds: int, sides: Mapping[str, Callable[[], float]], *, no_gc: bool = True
) -> Samples:
    """Return the results of each side in each round.

    Every other round runs in reverse, so that no side always comes first.
    """
    samples: Samples = {name: [] for name in sides}
    with _without_gc(no_gc):
        for number in range(WARM_UP + rounds):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                value = sides[name]()
                if number >= WARM_UP:
                    samples[name].append(value)
            gc.collect()
    return samples


def milliseconds(one: float, other: float) -> float:
    """Return the difference in milliseconds."""
    return (one - other) * 1e3


def percent(one: float, other: float) -> float:
    """Return the difference in percent."""
    return (one / other - 1) * 100


def times(one: float, other: float) -> float:
    """Return the ratio."""
    return one / other


def compare(
    what: str,
    samples: Samples,
    side: str,
    base: str,
    how: Callable[[float, float], float],
    unit: str,
    *,
    budget: float | None = None,
    note: str = "",
) -> Figure:
    """Compare one side with the other, pair by pair."""
    one, other = samples[side], samples[base]
    pairs = Spread.of(how(*pair) for pair in zip(one, other, strict=True))
    raw = {name: Spread.of(samples[name]) for name in (side, base)}
    return Figure(
        what=what,
        unit=unit,
        measured=pairs,
        quiet=how(_fast(one), _fast(other)),
        budget=budget,
        raw=raw,
        note=note,
    )


def _fast(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=10, method="inclusive")[0]

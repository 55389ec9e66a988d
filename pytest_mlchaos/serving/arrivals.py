"""Define when requests arrive: evenly, at random, in bursts, on a ramp, or as over a day.

Pure computations on seeded random numbers. Each pattern but the first is a Poisson process whose
rate changes over time: candidates arrive at the highest rate, and each is kept with the probability
of the rate at its time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator

from ..core.validation import did_you_mean, format_seconds, format_value
from ..errors import BadArgument

__all__ = ["PATTERNS", "Arrivals"]

PATTERNS = ("constant", "poisson", "burst", "ramp", "diurnal", "replay")
RANDOM = PATTERNS[1:5]
SHAPED = ("burst", "ramp", "diurnal")
"""Patterns that have a peak and a period."""
BURST_FACTOR = 10.0
"""The peak of bursts without ``peak=``, as a multiple of the mean rate."""
BURST_SECONDS = 10.0
"""The period of bursts without ``period=``."""
DAY_SECONDS = 86400.0
HALF = 2.0
"""The ratio of peak and mean of a rate that falls to 0 as a cosine, or a straight line, does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Arrivals:
    """A pattern of arrivals.

    Attributes:
        pattern: Its name.
        rate: The mean rate, in requests a second.
        peak: The highest rate. None for the pattern's own.
        period: The seconds of one burst and its pause, of the ramp, or of a day. None for the
            pattern's own.
    """

    pattern: str
    rate: float
    peak: float | None = None
    period: float | None = None

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise BadArgument(
                f"drive: pattern must be one of {', '.join(PATTERNS)}, got "
                f"{format_value(self.pattern)}{did_you_mean(str(self.pattern), PATTERNS)}"
            )
        for name in ("peak", "period"):
            if getattr(self, name) is not None and self.pattern not in SHAPED:
                raise BadArgument(
                    f"drive: {name}= needs pattern='burst', 'ramp' or 'diurnal', got "
                    f"pattern={self.pattern!r}"
                )
        if self.peak is not None:
            self._check_peak(self.peak)

    def _check_peak(self, peak: float) -> None:
        most = HALF * self.rate if self.pattern == "ramp" else math.inf
        if not self.rate < peak <= most:
            rule = f"above the mean rate of {self.rate:g}" + (
                f", and at most {most:g}, or the ramp would begin below 0" if most < peak else ""
            )
            raise BadArgument(f"drive: peak must be {rule}, got {format_value(peak)}")

    def times(self, rng: random.Random, length: float) -> Iterator[float]:
        """Yield the times of arrival without end, in seconds from the start of the load.

        Args:
            rng: The random numbers.
            length: The expected seconds of the load, for patterns that it stretches.
        """
        if self.pattern == "constant":
            return (place / self.rate for place in itertools.count())
        if self.pattern == "poisson":
            return _poisson(rng, self.rate)
        rate_at, highest = self._shape(length)
        return _thinned(rng, rate_at, highest)

    def _shape(self, length: float) -> tuple[Callable[[float], float], float]:
        """Return the rate as a function of time, and its highest value."""
        if self.pattern == "burst":
            peak = self.peak or BURST_FACTOR * self.rate
            return _bursts(self.rate, peak, self.period or BURST_SECONDS), peak
        if self.pattern == "ramp":
            peak = self.peak or HALF * self.rate
            return _ramp(self.rate, peak, self.period or length), peak
        peak = self.peak or HALF * self.rate
        return _day(self.rate, peak, self.period or min(length, DAY_SECONDS)), peak

    def __str__(self) -> str:
        peak = f", peak {self.peak:g}" if self.peak else ""
        period = f", period {format_seconds(self.period)}" if self.period else ""
        return f"{self.pattern}, {self.rate:g} requests/s{peak}{period}"


def _poisson(rng: random.Random, rate: float) -> Iterator[float]:
    time = 0.0
    while True:
        time -= math.log(1.0 - rng.random()) / rate
        yield time


def _thinned(
    rng: random.Random, rate_at: Callable[[float], float], highest: float
) -> Iterator[float]:
    for time in _poisson(rng, highest):
        if rng.random() * highest < rate_at(time):
            yield time


def _bursts(rate: float, peak: float, period: float) -> Callable[[float], float]:
    """Return a rate that is ``peak`` in the middle of each period, and 0 in the rest of it."""
    half = rate / peak / 2
    return lambda time: peak if abs(time / period % 1.0 - 0.5) <= half else 0.0


def _ramp(rate: float, peak: float, period: float) -> Callable[[float], float]:
    """Return a rate that rises to ``peak`` with a mean of ``rate``, and then stays there."""
    low = HALF * rate - peak
    return lambda time: low + (peak - low) * min(1.0, time / period)


def _day(rate: float, peak: float, period: float) -> Callable[[float], float]:
    """Return a rate that begins at its lowest, and is highest in the middle of each period.

    It is a cosine. If the peak is more than twice the mean, it is a power of one, which is narrower.
    """
    if peak <= HALF * rate:
        return lambda time: rate - (peak - rate) * math.cos(2 * math.pi * time / period)
    power = _power(rate / peak)
    return lambda time: peak * ((1 - math.cos(2 * math.pi * time / period)) / 2) ** power


def _power(share: float) -> float:
    """Return the power of ``(1 - cos) / 2`` with the mean ``share``, which is below 1/2."""

    def mean(power: float) -> float:
        return math.exp(math.lgamma(power + 0.5) - math.lgamma(power + 1)) / math.sqrt(math.pi)

    low, high = 1.0, 2.0
    while mean(high) > share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) > share else (low, middle)
    return high

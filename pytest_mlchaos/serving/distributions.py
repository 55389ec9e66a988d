"""Read durations and distributions of durations from text, for service times and think times."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Callable

from ..core.validation import did_you_mean, format_value, parse_duration
from ..errors import BadArgument

__all__ = ["Distribution", "parse_distribution"]

_CALL = re.compile(r"\s*([A-Za-z_]+)\s*\((.*)\)\s*")
Draw = Callable[[random.Random], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of durations.

    Attributes:
        text: The text that it was read from.
        mean: Its mean in seconds.
        draw: A function that draws a duration in seconds with a generator of random numbers.
    """

    text: str
    mean: float
    draw: Draw

    def __repr__(self) -> str:
        return self.text


def parse_distribution(value: object, what: str) -> Distribution:
    """Read ``"20ms"``, ``0.02``, or a distribution such as ``"exponential(20ms)"``.

    The first argument of each distribution is its mean, except in ``uniform(least, most)``:
    ``exponential(mean)``, ``lognormal(mean, sigma)`` with the standard deviation of the logarithm,
    ``gamma(mean, shape)``, ``pareto(mean, shape)`` and ``normal(mean, deviation)``, which is cut at
    0.

    Raises:
        BadArgument: It is neither a duration nor a distribution.
    """
    match = _CALL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        try:
            seconds = parse_duration(value, what)
        except BadArgument:
            raise BadArgument(
                f"{what} must be a duration such as '20ms', or a distribution such as "
                f"'exponential(20ms)', got {format_value(value)}"
            ) from None
        return Distribution(f"{value}", seconds, lambda rng: seconds)
    name, given = match[1].lower(), [part.strip() for part in match[2].split(",")]
    if name not in _MAKERS:
        raise BadArgument(
            f"{what}: unknown distribution {match[1]!r}{did_you_mean(name, _MAKERS)}. The "
            f"distributions are {', '.join(_MAKERS)}"
        )
    signature, make = _MAKERS[name]
    names = signature.split(", ")
    if len(names) != len(given) or not all(given):
        raise BadArgument(f"{what} must be {name}({signature}), got {format_value(value)}")
    parameters = [
        _number(text, f"{what}: {label}")
        if label in _PLAIN_NUMBERS
        else parse_duration(text, f"{what}: {label}")
        for label, text in zip(names, given, strict=True)
    ]
    mean, draw = make(*parameters, what)
    return Distribution(str(value), mean, draw)


_PLAIN_NUMBERS = ("sigma", "shape")


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadArgument(f"{what} must be a number of 0 or more, got {format_value(text)}")
    return number


def _exponential(mean: float, what: str) -> tuple[float, Draw]:
    return mean, lambda rng: -mean * math.log(1.0 - rng.random())


def _lognormal(mean: float, sigma: float, what: str) -> tuple[float, Draw]:
    if not mean:
        return 0.0, lambda rng: 0.0
    location = math.log(mean) - sigma * sigma / 2
    return mean, lambda rng: math.exp(rng.gauss(location, sigma))


def _uniform(least: float, most: float, what: str) -> tuple[float, Draw]:
    if least > most:
        raise BadArgument(f"{what}: most must be at least {least:g} s, got {most:g} s")
    return (least + most) / 2, lambda rng: least + (most - least) * rng.random()


def _normal(mean: float, deviation: float, what: str) -> tuple[float, Draw]:
    return mean, lambda rng: max(0.0, rng.gauss(mean, deviation))


def _gamma(mean: float, shape: float, what: str) -> tuple[float, Draw]:
    if not shape:
        raise BadArgument(f"{what}: shape must be above 0, got 0")
    return mean, lambda rng: mean and rng.gammavariate(shape, mean / shape)


def _pareto(mean: float, shape: float, what: str) -> tuple[float, Draw]:
    if shape <= 1:
        raise BadArgument(
            f"{what}: shape must be above 1, because the mean is infinite, got {shape:g}"
        )
    return mean, lambda rng: mean * (shape - 1) / shape * rng.paretovariate(shape)


_MAKERS: dict[str, tuple[str, Callable[..., tuple[float, Draw]]]] = {
    "exponential": ("mean", _exponential),
    "lognormal": ("mean, sigma", _lognormal),
    "uniform": ("least, most", _uniform),
    "normal": ("mean, deviation", _normal),
    "gamma": ("mean, shape", _gamma),
    "pareto": ("mean, shape", _pareto),
    "constant": ("duration", lambda duration, what: (duration, lambda rng: duration)),
}

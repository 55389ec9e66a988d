"""Check arguments at the public API, and make the texts of the errors."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from ..errors import BadArgument
from .privacy import data_text, option_text

__all__ = [
    "CALLABLE",
    "COUNT",
    "FLAG",
    "ITERABLE",
    "MAPPING",
    "NAME",
    "NUMBER",
    "PATH",
    "PATTERNS",
    "TEXT",
    "TOLERANCE",
    "WHOLE",
    "Finite",
    "Rule",
    "check_arguments",
    "check_fields",
    "check_share",
    "count_text",
    "did_you_mean",
    "format_number",
    "format_seconds",
    "format_value",
    "index",
    "is_real",
    "optional",
    "parse_bounds",
    "parse_duration",
    "parse_positive_duration",
    "parse_size",
    "parse_whole",
    "size_text",
    "type_matches",
]

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
P = ParamSpec("P")
R = TypeVar("R")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B\s*")
_MOST_DIGITS = 300
MAX_DURATION_SECONDS = 1e9
"""The longest duration in seconds (31 years). A longer wait overflows the system's timers."""
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]*)\s*")


def format_value(value: object) -> str:
    """Return a value and its type: ``'3' (str)``.

    Show only the kind if it is long or may be data.
    """
    return f"{option_text(value)} ({type(value).__name__})"


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'gpu_oom'?)"``, or an empty text if no name is close."""
    # Imported late: it takes 2 ms, and only errors need it.
    import difflib

    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def index(value: object) -> int | None:
    """Return a non-negative integer, also from NumPy, or None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return number if number >= 0 else None


def check_share(owner: str, name: str, value: float) -> None:
    """Raise ``BadArgument`` unless the value is above 0 and at most 1."""
    if not 0 < value <= 1:
        raise BadArgument(
            f"{owner}: {name} must be above 0 and at most 1, got {format_value(value)}"
        )


def parse_duration(value: object, what: str = "a duration") -> float:
    """Return the seconds in ``2``, ``0.5``, ``"150ms"``, ``"2s"``, ``"5m"``, ``"1h"`` or ``"2d"``."""
    seconds = _seconds(value)
    if seconds is None:
        raise BadArgument(
            f"{what} must be in seconds, or a text such as '150ms', '2s' or '5m', got "
            f"{format_value(value)}"
        )
    if seconds > MAX_DURATION_SECONDS:
        raise BadArgument(
            f"{what} must be at most {MAX_DURATION_SECONDS:.0e} seconds, got {format_value(value)}"
        )
    return seconds


def parse_positive_duration(value: object, what: str) -> float:
    """Return the seconds of a duration, as ``parse_duration`` does. Refuse 0."""
    seconds = parse_duration(value, what)
    if not seconds:
        raise BadArgument(f"{what} must be longer than 0 s, got {format_value(value)}")
    return seconds


def format_seconds(seconds: float) -> str:
    """Format a duration: ``150 ms``, ``2.5 s`` or ``10 min 5 s``."""
    if seconds < 1e-3:
        return "less than 1 ms"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _seconds(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(min(value, 2 * MAX_DURATION_SECONDS))  # an int may be too large for a float
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    unit = match and (match[2] or "s")
    return float(match[1]) * _UNITS[unit] if match and unit in _UNITS else None


def parse_whole(value: object) -> int | None:
    """Return a whole number of 0 or more, or None.

    Text must consist of ASCII digits.
    """
    if not isinstance(value, str):
        return index(value)
    digits = value.strip()
    return (
        int(digits)
        if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS
        else None
    )


def parse_size(value: object, what: str = "a size") -> int:
    """Return the bytes in ``1048576``, ``"512MiB"`` or ``"2GB"``: at least 1, and below 2**63."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size = (
        int(
            float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")
        )
        if match
        else 0
    )
    if not size:
        raise BadArgument(
            f"{what} must be in bytes, or a text such as '512MiB' or '2GB', got "
            f"{format_value(value)}"
        )
    return size


def size_text(size: float) -> str:
    """Return a size in words: ``"312.5 MiB"``, ``"96 B"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def _is_float(number: float) -> bool:
    """Return False for an int that is too large for a float."""
    try:
        float(number)
    except OverflowError:
        return False
    return True


def format_number(value: float, beside: float | None = None) -> str:
    """Return a number with three significant digits, or enough to differ from ``beside``.

    Further digits of a float depend on the kernels of the processor. The report of a schedule must
    be the same on each machine.
    """
    for digits in range(3, 17):
        text = f"{value:.{digits}g}"
        if beside is None or (float(text) > beside, float(text) < beside) == (
            value > beside,
            value < beside,
        ):
            break
    return f"{float(text):.{max(digits, 6)}g}"


def _is_literal(value: object, hint: object) -> bool:
    return any(value == choice and type(value) is type(choice) for choice in get_args(hint))


def type_matches(value: object, hint: object) -> bool:
    """Return True if a value fits a simple annotation.

    An annotation that is too complex to check fits.
    """
    if hint is Any:
        return True
    origin = get_origin(hint)
    if origin is Annotated:
        base, *rules = get_args(hint)
        return type_matches(value, base) and all(
            rule.holds(value) for rule in rules if isinstance(rule, Rule)
        )
    if origin is Literal:
        return _is_literal(value, hint)
    if origin in (Union, types.UnionType):
        return any(type_matches(value, option) for option in get_args(hint))
    if origin is not None:
        return isinstance(value, origin) if isinstance(origin, type) else True
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_float(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _describe_expected(hint: object) -> str:
    origin = get_origin(hint)
    if origin is Annotated:
        return " or ".join(
            rule.words for rule in get_args(hint) if isinstance(rule, Rule)
        ) or _describe_expected(get_args(hint)[0])
    if origin is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_describe_expected, get_args(hint))))
    if origin is not None:
        return str(getattr(origin, "__name__", origin))
    return "None" if hint is type(None) else str(getattr(hint, "__name__", hint))


def check_fields(
    owner: str, instance: object, hints: typing.Mapping[str, Any], skip: Callable[[object], bool]
) -> None:
    """Check the fields of an instance by their annotations.

    Args:
        owner: The name of the class, for the message.
        instance: The instance.
        hints: The annotations by field.
        skip: A function that returns True for values to accept without a check.

    Raises:
        BadArgument: A field does not fit its annotation.
    """
    for name, hint in hints.items():
        value = getattr(instance, name)
        if not skip(value) and not type_matches(value, hint):
            raise BadArgument(
                f"{owner}: {name} must be {_describe_expected(hint)}, got {format_value(value)}"
            )


# -- rules for the arguments of functions ----------------------------------------------------------


class Rule(NamedTuple):
    """A rule for one argument, in words and as a predicate."""

    words: str
    holds: Callable[[Any], object]


def count_text(number: int, thing: str, several: str = "") -> str:
    """Return ``1 trial`` or ``2 trials``. ``several`` is a plural that does not end in s."""
    return f"{number} {thing if number == 1 else several or f'{thing}s'}"


def parse_bounds(given: Any, what: str) -> tuple[float, float] | None:
    """Return a lowest and a highest value as two numbers, or None if none are given.

    Raises:
        BadArgument: These are not two finite numbers in this order. ``what`` begins the message.
    """
    if given is None:
        return None
    try:
        low, high = given
    except (TypeError, ValueError):
        low = high = math.nan
    if not (is_real(low) and is_real(high) and low < high):
        raise BadArgument(f"{what}, as (0, 1), got {format_value(given)}")
    return float(low), float(high)


def is_real(value: object) -> bool:
    """Return True for a finite number, also from NumPy."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _is_series(value: object) -> bool:
    """Return True for an iterable. Do not call ``iter``: a loader would start its workers."""
    if isinstance(value, (str, bytes, Mapping, type)) or getattr(value, "shape", None) == ():
        return False
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def optional(rule: Rule) -> Rule:
    """Return the rule that also allows None."""
    return Rule(rule.words, lambda value: value is None or rule.holds(value))


Finite = Annotated[float, Rule("a finite number", is_real)]
"""The annotation of a fault's parameter that may be neither NaN nor infinite."""
FLAG = Rule("True or False", lambda value: isinstance(value, bool))
WHOLE = Rule("0 or more", lambda value: index(value) is not None)
COUNT = Rule("1 or more", index)
NUMBER = Rule("a finite number", is_real)
TOLERANCE = Rule("a number of 0 or more", lambda value: is_real(value) and value >= 0)
NAME = Rule("a name", lambda value: isinstance(value, str) and value.strip())
TEXT = Rule("a text", lambda value: isinstance(value, str))
ITERABLE = Rule("a list or another iterable", _is_series)
MAPPING = Rule("a dict", lambda value: isinstance(value, Mapping))
CALLABLE = Rule("a function", callable)
PATH = Rule(
    "a path",
    lambda value: isinstance(value, (str, os.PathLike)) and not isinstance(os.fspath(value), bytes),
)
PATTERNS = Rule(
    "a pattern of file names, such as '*.log', or a list of them",
    lambda value: isinstance(value, str) or _is_series(value),
)


_DATA = (ITERABLE.holds, MAPPING.holds, CALLABLE.holds)
"""Rules for the user's data. A value that breaks one of these is shown by its kind only."""


def check_arguments(owner: str, **rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that checks arguments.

    Args:
        owner: The function's name, for the message.
        rules: The rule for each checked argument, by its name.

    Returns:
        A decorator. The decorated function raises ``BadArgument`` for the first argument that
        breaks its rule.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        places = [
            (place if one.kind is not one.KEYWORD_ONLY else sys.maxsize, name, rules[name].holds)
            for place, (name, one) in enumerate(signature.parameters.items())
            if name in rules
        ]

        def refuse(args: Any, kwargs: Any) -> None:
            # An error of the call itself comes first.
            for name, value in signature.bind(*args, **kwargs).arguments.items():
                if name in rules and not rules[name].holds(value):
                    given = data_text(value) if rules[name].holds in _DATA else format_value(value)
                    raise BadArgument(f"{owner}: {name} must be {rules[name].words}, got {given}")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            # Not by ``signature.bind``, which takes 15 µs: a visit is checked in each step.
            for place, name, holds in places:
                if place < len(args):
                    value = args[place]
                elif name in kwargs:
                    value = kwargs[name]
                else:
                    continue
                if not holds(value):
                    refuse(args, kwargs)
            return function(*args, **kwargs)

        return call

    return decorate

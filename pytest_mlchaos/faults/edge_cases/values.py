"""List the edge cases of each kind of value: extremes, the unseen, the empty, and the missing."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["LONGEST", "edges_of", "is_same"]

LONGEST = 2_000
"""The length of a very long text, which still fits into a line that reproduces a failure."""
MANY = 1_000
"""The number of items of a very long list."""
_BITS = (8, 16, 32, 53, 64)
_INTEGERS = [0, -1, 1, *(sign * 2**bits for bits in _BITS for sign in (1, -1))]
_FLOATS = [
    *(0.0, -0.0, math.nan, math.inf, -math.inf, 1.0, -1.0),
    *(5e-324, -5e-324, 1e-9, 1.7976931348623157e308, -1.7976931348623157e308, 2.0**53 + 2, 1e39),
]
_TEXTS = [
    *("", " ", "\n", "\x00", "unseen", "None", "null", "nan", "NaN", "N/A", "true", "0", "-1"),
    *("1e999", "1,5", "'; --", "<b>", "{}", "../..", "%s", "\\"),
    "\u00e9",  # one character, and the same of two
    "e\u0301",
    "\u202eabc",  # from right to left
    "\u200b",  # a space of no width
    "\ufeff",
    "\U0001f9e8",  # beyond 16 bits
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # one sign of five characters
    "\u0130",  # its small letter is two characters long
    "\u00df",
    "\u5b57",
]
_TIMES = [
    datetime.datetime(1970, 1, 1),
    datetime.datetime(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
    datetime.datetime(1677, 9, 21, 0, 12, 44),  # the first second of 64 bits of nanoseconds
    datetime.datetime(2262, 4, 11, 23, 47, 16),
    datetime.datetime(2038, 1, 19, 3, 14, 8),  # after the last second of 32 bits
    datetime.datetime(2024, 2, 29),
    datetime.datetime(2023, 3, 26, 2, 30),  # an hour that summer time leaves out
]


def edges_of(examples: Sequence[Any]) -> list[Any]:
    """Return edge cases of the kind of some examples, of which there is at least one.

    Numbers also lie just beyond the examples, and texts are like them, but not equal.
    """
    known = [one for one in examples if one is not None and not _is_nan(one)]
    first = known[0] if known else examples[0]
    if isinstance(first, enum.Enum):
        return [*type(first), None]
    if isinstance(first, bool):
        return [True, False, None]
    if isinstance(first, int):
        return [*_INTEGERS, *_beyond(known, 1), None]
    if isinstance(first, float):
        return [*_FLOATS, *_beyond(known, None), None]
    if isinstance(first, decimal.Decimal):
        return [decimal.Decimal(one) for one in ("0", "-0", "NaN", "Infinity", "1e999")]
    if isinstance(first, str):
        return [*_TEXTS, *_like(known), "a" * LONGEST, None]
    if isinstance(first, bytes):
        return [b"", b"\x00", b"\xff\xfe", b"a" * LONGEST, None]
    if isinstance(first, datetime.datetime):
        return [*(one.replace(tzinfo=first.tzinfo) for one in _TIMES), None]
    if isinstance(first, datetime.date):
        return [*(one.date() for one in _TIMES), None]
    if isinstance(first, (list, tuple)):
        return [*_lists(first), None]
    return [None]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def is_same(one: object, other: object) -> bool:
    """Return True for values that are the same to a program. The sign of 0 counts."""
    return one is other or (type(one) is type(other) and repr(one) == repr(other))


def _beyond(known: Iterable[Any], step: int | None) -> list[Any]:
    """Return the numbers just below and above all examples, and far beyond them."""
    low, high = min(known), max(known)
    if step is not None:
        return [low - step, high + step, 10 * high + 10]
    far = 10.0 * high + 10.0
    return [math.nextafter(low, -math.inf), math.nextafter(high, math.inf), far]


def _like(known: Iterable[str]) -> list[str]:
    """Return texts that look like the examples, and are not one of them."""
    seen = list(dict.fromkeys(known))[:8]
    made = [
        text
        for one in seen
        for text in (one.upper(), one.lower(), f" {one}", f"{one} ", f"{one}\x00", f"{one}\u0301")
    ]
    return [text for text in dict.fromkeys(made) if text not in seen]


def _lists(first: Any) -> list[Any]:
    """Return lists that are empty, too short, too long, or have an edge case as an item."""
    kind, items = type(first), list(first)
    if kind not in (list, tuple):
        return []
    made = [[], items[:-1], [*items, *items[-1:]]]
    if items:
        made += [(items * (MANY // len(items) + 1))[:MANY]]
        made += [[edge, *items[1:]] for edge in edges_of(items)]
    return [kind(one) for one in made if one != items]

"""Check the confidence of an oracle, and find how many samples would decide."""

from __future__ import annotations

from collections.abc import Callable

from ..core.validation import format_value, is_real
from ..errors import BadArgument

__all__ = ["check_confidence", "size_that_decides"]


def check_confidence(owner: str, confidence: object, name: str = "confidence") -> float:
    """Return a confidence between 0.5 and 1."""
    if not is_real(confidence) or not 0.5 < float(confidence) < 1:  # type: ignore[arg-type]
        raise BadArgument(
            f"{owner}: {name} must be above 0.5 and below 1, got {format_value(confidence)}"
        )
    return float(confidence)  # type: ignore[arg-type]


def size_that_decides(
    decides: Callable[[int], bool], start: int, most: int, parts: int
) -> int | None:
    """Return about the smallest number of samples that decides, or None if it is above ``most``.

    Args:
        decides: A function of the number of samples. It stays true once it is true.
        start: The first number to try. It is doubled until it decides.
        most: The largest number to try.
        parts: The result is exact to one part in so many.
    """
    high = start
    while not decides(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > max(1, high // parts):
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high

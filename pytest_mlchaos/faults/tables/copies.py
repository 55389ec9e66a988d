"""Copy long arrays with other values at some places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["pick", "with_others"]

BLOCK_VALUES = 16_384
"""The number of values that are copied at once, so that they stay in the processor's cache."""


def with_others(
    values: Any,
    where: np.ndarray[Any, Any],
    others: Any,
    dtype: Any = None,
) -> Any:
    """Return a copy of an array with other values (or one value) at these places of its first axis.

    The copy may have a different dtype. If the places ascend, it is made block by block, so that a
    block is still in the processor's cache when its values are replaced.
    """
    import numpy as np

    fresh = np.empty(values.shape, dtype=dtype or values.dtype)
    if (
        len(values) <= BLOCK_VALUES
        or not isinstance(where, np.ndarray)
        or where.dtype.kind not in "iu"
        or not _ascend(where)
    ):
        fresh[...] = values
        fresh[where] = others
        return fresh
    one_each = isinstance(others, np.ndarray) and others.ndim > 0
    starts = range(0, len(values), BLOCK_VALUES)
    cuts = [0, *np.searchsorted(where, [*starts[1:], len(values)]).tolist()]
    for start, first, last in zip(starts, cuts, cuts[1:], strict=False):
        fresh[start : start + BLOCK_VALUES] = values[start : start + BLOCK_VALUES]
        fresh[_stretch(where[first:last])] = others[first:last] if one_each else others
    return fresh


def _ascend(places: np.ndarray[Any, Any]) -> bool:
    """Return True if each place is above the one before."""
    return bool((places[1:] > places[:-1]).all())


def _stretch(places: np.ndarray[Any, Any]) -> Any:
    """Return ascending places, as a slice if they are consecutive."""
    if len(places) and places[-1] - places[0] == len(places) - 1:
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def pick(values: Any, places: np.ndarray[Any, Any]) -> Any:
    """Return the values at these places. Long stretches are not copied."""
    return values[_stretch(places) if len(places) > BLOCK_VALUES and _ascend(places) else places]

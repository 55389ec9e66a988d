"""Read and change records as columns of numbers.

Records are dicts and lists of single numbers, as feature stores and JSON provide them.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Each",
    "as_it_was",
    "columns",
    "copied_record",
    "fields_of_record",
    "is_number",
    "is_sequence",
]

MAX_INT64 = 2**63 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Each:
    """Mark in the path to a column the items of a sequence, each of which holds one number."""

    items: tuple[int, ...]

    def __str__(self) -> str:
        return "*"


def is_number(value: object) -> bool:
    """Return True for one number of Python or NumPy.

    Truth values, and integers that fit no array, do not count.
    """
    if isinstance(value, (bool, enum.Enum)) or not (
        isinstance(value, (int, float)) or _is_scalar(value)
    ):
        return False
    return not isinstance(value, int) or -MAX_INT64 <= value <= MAX_INT64


def _is_scalar(value: object) -> bool:
    return (
        getattr(value, "shape", None) == ()
        and hasattr(value, "dtype")
        and hasattr(value, "item")
        and value.dtype.kind in "iuf"
    )


def is_sequence(value: object) -> bool:
    """Return True for a list or tuple of items. A named tuple is a structure of fields instead."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def fields_of_record(value: object) -> tuple[str, ...] | None:
    """Return the names of the fields of a named tuple, a dataclass or a model, or None.

    A model is an object whose class lists its fields in ``model_fields`` or ``__attrs_attrs__``.
    """
    if isinstance(value, type):
        return None
    if isinstance(value, tuple):
        return getattr(value, "_fields", None)
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    fields = getattr(kind, "model_fields", None)
    if isinstance(fields, Mapping):
        return tuple(fields)
    found = getattr(kind, "__attrs_attrs__", None)
    return None if found is None else tuple(field.name for field in found)


def columns(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each number, or column of numbers, with its path, as a NumPy array.

    A column is a list of numbers, or the values of one key in a list of dicts. Dicts without that
    key, or with a different kind of value, do not belong to it.
    """
    import numpy as np

    if is_number(value):
        yield path, np.asarray(value)
    elif is_sequence(value) and value and all(map(is_number, value)):
        yield (*path, Each(tuple(range(len(value))))), np.asarray(value)
    elif is_sequence(value) and value and all(isinstance(item, Mapping) for item in value):
        yield from _of_rows(value, path)
    else:
        for name, child in _children(value):
            yield from columns(child, (*path, name))


def _of_rows(
    rows: np.ndarray[Any, Any], path: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    import numpy as np

    for key in dict.fromkeys(key for row in rows for key in row):
        its = tuple(place for place, row in enumerate(rows) if is_number(row.get(key)))
        if its:
            yield (*path, Each(its), key), np.asarray([rows[place][key] for place in its])
        for place, row in enumerate(rows):
            if key in row and place not in its:
                yield from columns(row[key], (*path, place, key))


def _children(value: np.ndarray[Any, Any]) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif is_sequence(value):
        yield from enumerate(value)
    else:
        yield from ((name, getattr(value, name, None)) for name in fields_of_record(value) or ())


def as_it_was(value: Any, new: object) -> Any:
    """Return an array of one number as a number with the type of ``value``.

    Return ``value`` itself if it is equal. An integer stays an integer if it can.
    """
    number = new.item() if hasattr(new, "item") else new
    whole = isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iu")
    if whole and isinstance(number, float) and not (math.isfinite(number) and number.is_integer()):
        return number
    made = type(value)(number)
    return value if repr(made) == repr(value) else made


def copied_record(value: object) -> Any:
    """Return a record that shares no container with ``value``."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # some values cannot be copied
        return copy.copy(value)

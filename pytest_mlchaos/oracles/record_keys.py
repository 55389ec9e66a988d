"""Collect the keys of records in values and files, and compare how often each is there."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ..core.validation import count_text

__all__ = ["KeyFunction", "compare_keys", "keys_in"]

KeyFunction: TypeAlias = "str | int | Callable[[Any], Any]"
MAX_DEPTH = 4
"""The depth to which containers are searched for records."""


def keys_in(value: object, key: KeyFunction) -> list[Any]:
    """Return the keys of all records in a value: a table, or records in lists and dicts."""
    return list(_keys(value, key, MAX_DEPTH))


def _keys(value: Any, key: KeyFunction, depth: int) -> Iterator[Any]:
    if isinstance(key, str) and (column := _column(value, key)) is not None:
        yield from column
    elif isinstance(value, Mapping) and not callable(key):
        for held in value.values() if depth else ():
            yield from _keys(held, key, depth - 1)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for record in value:
            found = _key_of(record, key)
            if found is not _NONE:
                yield found
            elif depth:
                yield from _keys(record, key, depth - 1)


_NONE: Any = object()


def _key_of(record: Any, key: KeyFunction) -> Any:
    """Return the key of a record, or ``_NONE`` if it has none."""
    if callable(key):
        return key(record)
    if isinstance(key, int):
        is_row = isinstance(record, Sequence) and not isinstance(record, (str, bytes))
        return record[key] if is_row and -len(record) <= key < len(record) else _NONE
    if isinstance(record, Mapping):
        found = record.get(key, _NONE)
        return _NONE if isinstance(found, (list, tuple)) or hasattr(found, "shape") else found
    if hasattr(record, "columns") or hasattr(record, "dtype"):
        return _NONE  # a table
    return getattr(record, key, _NONE)


def _column(value: Any, name: str) -> Sequence[Any] | None:
    """Return the column of a table as a list, or None."""
    if isinstance(value, Mapping):
        found = value.get(name)
        return (
            _listed(found) if isinstance(found, (list, tuple)) or hasattr(found, "shape") else None
        )
    if hasattr(value, "column_names"):
        return _listed(value.column(name)) if name in value.column_names else None
    if hasattr(value, "columns"):
        return _listed(value[name]) if name in list(value.columns) else None
    fields = getattr(getattr(value, "dtype", None), "names", None) or ()
    return _listed(value[name]) if name in fields else None


def _listed(column: Any) -> Sequence[Any]:
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(column, method):
            found: Sequence[Any] = getattr(column, method)()
            return found
    return list(column)


def compare_keys(
    found: Sequence[Any], wanted: Sequence[Any], *, may_lack: bool = False
) -> str | None:
    """Describe keys that are missing, not expected, or there more often than expected.

    Args:
        found: The keys that are there.
        wanted: The keys that are expected.
        may_lack: True to accept missing keys.
    """
    have, want = (collections.Counter(map(_hashable, keys)) for keys in (found, wanted))
    parts = [
        f"{count_text(number, 'key')} {words}"
        for number, words in (
            (0 if may_lack else len([key for key in want if not have[key]]), "missing"),
            (len([key for key in want if have[key] > want[key]]), "duplicated"),
            (
                0 if may_lack else len([key for key in want if 0 < have[key] < want[key]]),
                "less often than expected",
            ),
            (len([key for key in have if not want[key]]), "not expected"),
        )
        if number
    ]
    return f"{', '.join(parts)} (of {len(want)})" if parts else None


def _hashable(key: object) -> Any:
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key

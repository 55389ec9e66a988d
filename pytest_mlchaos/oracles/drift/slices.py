"""Find the slices of a table: the groups of rows that are judged apart."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...core.privacy import shows_values
from ...core.validation import format_value
from ...errors import BadArgument, Drifted, Inconclusive
from ..columns import ColumnValues, columns_of
from .findings import label

__all__ = ["Slices", "find_slices"]

FEWEST_ROWS = 20
"""Groups with fewer rows in either sample are judged together."""
MOST_SLICES = 1_000

Columns = Mapping[Any, ColumnValues]


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices of both samples.

    Attributes:
        names: The slices in words, by their numbers.
        before: The numbers of the rows of the reference in each slice.
        after: The same for the current values.
    """

    names: dict[int, str] = dataclasses.field(default_factory=dict)
    before: dict[int, Any] = dataclasses.field(default_factory=dict)
    after: dict[int, Any] = dataclasses.field(default_factory=dict)


def find_slices(slices: Any, before: Columns, after: Columns) -> Slices:
    """Return the slices by ``slices=``: the name of a column, a list of names, or two sequences."""
    found = Slices()
    if slices is None:
        return found
    for groups, others, what in _sources(slices, before, after):
        _add(found, groups, others, what)
    if not found.names and any(
        len(rows) >= FEWEST_ROWS
        for groups, *_ in _sources(slices, before, after)
        for rows in _rows_by_group(groups).values()
    ):
        raise Inconclusive(
            f"assert_no_drift: no group of slices= has {FEWEST_ROWS} rows in current, but some have in "
            f"the reference. Give more rows"
        )
    if not found.names:
        raise BadArgument(
            f"assert_no_drift: slices= has no group with {FEWEST_ROWS} rows in both samples"
        )
    if len(found.names) > MOST_SLICES:
        raise BadArgument(
            f"assert_no_drift: slices= makes {len(found.names)} slices, more than {MOST_SLICES}"
        )
    return found


def _sources(
    slices: Any, before: Columns, after: Columns
) -> list[tuple[ColumnValues, ColumnValues, str]]:
    if _is_pair(slices):
        found = []
        for given, columns, what in zip(slices, (before, after), ("first", "second"), strict=True):
            read = columns_of(given, f"slices, {what} part")
            rows = next(iter(columns.values())).rows
            if None not in read or read[None].rows != rows:
                raise BadArgument(
                    f"assert_no_drift: the {what} part of slices= must be one group for each of the "
                    f"{rows} rows"
                )
            found.append(read[None])
        return [(found[0], found[1], "")]
    names = slices if isinstance(slices, list) else [slices]
    sources = []
    for name in names:
        if not isinstance(name, (str, int, tuple)) or name not in before:
            raise BadArgument(
                "assert_no_drift: slices must be a column's name, a list of names, or a pair of "
                f"groups (of the reference, and of current), got {format_value(name)}"
            )
        if name not in after:
            raise Drifted(f"{label(name, before)}: is missing")
        sources.append((before[name], after[name], f" of {label(name, before)}"))
    return sources


def _is_pair(slices: Any) -> bool:
    return (
        isinstance(slices, tuple)
        and len(slices) == 2
        and not any(isinstance(one, (str, int)) for one in slices)
    )


def _add(found: Slices, groups: ColumnValues, others: ColumnValues, what: str) -> None:
    import numpy as np

    if groups.kind == "vectors":
        raise BadArgument("assert_no_drift: slices= must be groups, not vectors")
    one, other = _rows_by_group(groups), _rows_by_group(others)
    counts = Counter({name: len(rows) for name, rows in one.items()})
    small: tuple[list[Any], list[Any]] = ([], [])
    for rank, (name, size) in enumerate(counts.most_common(), start=1):
        if size >= FEWEST_ROWS and len(other.get(name, ())) >= FEWEST_ROWS:
            shown = f" ({name!r})" if shows_values() else ""
            text = f", in the reference's group number {rank} by frequency{shown}{what}"
            _put(found, text, one[name], other[name])
        else:
            small[0].append(one[name])
            small[1].append(other.get(name, np.array([], dtype=int)))
    small[1].extend(rows for name, rows in other.items() if name not in one)
    rows = [np.sort(np.concatenate(side)) if side else np.array([], dtype=int) for side in small]
    if found.names and min(map(len, rows)) >= FEWEST_ROWS:
        _put(found, f", in all small groups together{what}", rows[0], rows[1])


def _put(found: Slices, text: str, before: Any, after: Any) -> None:
    number = len(found.names)
    found.names[number], found.before[number], found.after[number] = text, before, after


def _rows_by_group(column: ColumnValues) -> dict[Any, Any]:
    import numpy as np

    rows = np.arange(column.rows) if column.present is None else np.flatnonzero(column.present)
    if not isinstance(column.values, list):
        names, places = np.unique(column.values, return_inverse=True)
        keys = names.tolist()
    else:
        numbers: dict[Any, int] = {}
        places = np.array(
            [numbers.setdefault(one, len(numbers)) for one in column.values], dtype=int
        )
        keys = list(numbers)
    order = np.argsort(places, kind="stable")
    parts = np.split(rows[order], np.cumsum(np.bincount(places, minlength=len(keys)))[:-1])
    return dict(zip(keys, parts, strict=True))

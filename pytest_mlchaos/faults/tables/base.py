"""Define how faults see the tables of any library: columns to replace, and rows to reorder."""

from __future__ import annotations

import abc
import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.privacy import key_text, label_text

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "NUMBERS",
    "Column",
    "Table",
    "UnsupportedColumn",
    "ahead",
    "all_same",
    "carrier",
    "places",
    "table_of",
]

NUMBERS = ("float", "integer")
SHOWN_COLUMNS = 12
"""The number of columns that an error names. There may be thousands."""


class UnsupportedColumn(Exception):
    """Signal that a fault cannot work on a column. The text says why."""


class Column(abc.ABC):
    """One column. Each change returns a new value for the table, and the column itself stays
    unchanged.

    ``kind`` is ``"float"``, ``"integer"``, ``"boolean"``, ``"text"``, ``"time"`` (dates and times,
    with or without a zone), ``"category"`` or ``"other"``. Places are row numbers.
    """

    name: Any
    kind: str
    dtype: str
    size: int
    only: Any = None
    """The rows that a fault may strike (bool, one per row), or None for all."""

    def closed(self) -> Any:
        """Return which values a fault must not strike (bool, one per row), or None.

        They are missing already, or in rows that ``only`` leaves out.
        """
        nulls = self.nulls()
        if self.only is None:
            return nulls
        return ~self.only if nulls is None else nulls | ~self.only

    def plain_values(self) -> list[Any]:
        """Return the values as Python objects, and None for a missing one."""
        import numpy as np

        if self.kind in ("float", "integer", "boolean"):
            found: list[Any] = np.asarray(self.numbers()).tolist()
        elif self.kind in ("text", "category"):
            found = list(self.texts(np.arange(self.size)))
        else:
            raise UnsupportedColumn(f"is of the dtype {self.dtype}, by which rows= cannot choose")
        nulls = self.nulls()
        if nulls is None:
            return found
        return [None if missing else one for one, missing in zip(found, nulls, strict=True)]

    @abc.abstractmethod
    def nulls(self) -> Any:
        """Return which values are missing (bool, one per row), or None if none is."""

    @abc.abstractmethod
    def numbers(self) -> Any:
        """Return the values as a NumPy array, times as ticks. Missing ones have arbitrary values."""

    @abc.abstractmethod
    def codes(self) -> Any:
        """Return numbers that sort as the values do (float64, NaN for a missing value)."""

    @abc.abstractmethod
    def without(self, where: np.ndarray[Any, Any]) -> Any:
        """Return the column with missing values at these places."""

    @abc.abstractmethod
    def with_numbers(self, where: np.ndarray[Any, Any], values: object) -> Any:
        """Return the column with other numbers (or ticks) at these places, in its dtype."""

    @abc.abstractmethod
    def of_type(self, dtype: object) -> Column:
        """Return a column of numbers in a different NumPy dtype, which can hold them."""

    @abc.abstractmethod
    def texts(self, where: np.ndarray[Any, Any]) -> list[str]:
        """Return the texts at these places."""

    @abc.abstractmethod
    def with_texts(self, where: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        """Return the column with other texts at these places."""

    @abc.abstractmethod
    def with_category(self, where: np.ndarray[Any, Any], value: object) -> Any:
        """Return the column with one value that it did not contain so far at these places."""

    @abc.abstractmethod
    def holds(self, value: object) -> bool:
        """Return True if the column contains a value, or has it as a category."""

    @abc.abstractmethod
    def same(self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]) -> Any:
        """Return which values at these places equal those of ``other`` at its places."""

    @abc.abstractmethod
    def replaced(
        self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]
    ) -> Any:
        """Return the column with values of ``other``, a column of the same dtype, at these places."""

    @abc.abstractmethod
    def ticks_per_second(self) -> float:
        """Return the number of ticks per second for times."""

    @abc.abstractmethod
    def in_zone(self, seconds: int) -> Any:
        """Return times on the clock of a zone that is ahead by this number of seconds.

        With a zone, they are the same moments. Without one, the wall-clock values differ.
        """

    @abc.abstractmethod
    def recoded(self, order: np.ndarray[Any, Any]) -> Any:
        """Return a category with its list of values in a different order: the same values, other
        codes.
        """

    @abc.abstractmethod
    def category_count(self) -> int:
        """Return the number of values in a category's list."""

    @abc.abstractmethod
    def as_text(self) -> Any:
        """Return the column with its values as texts."""

    @abc.abstractmethod
    def as_float(self) -> Any:
        """Return the column with its values as floating-point numbers."""


class Table(abc.ABC):
    """A table. Each change returns a new object of the library's type, which shares unchanged
    columns if possible.
    """

    value: Any
    names: list[Any]
    rows: int
    named = True
    """True if columns have names. Those of a 2-D array have numbers."""
    only: Any = None
    """The rows that a fault may strike (bool, one per row), or None for all."""
    single = False
    """True for one record, which has no other rows. Shares then count its fields."""

    @abc.abstractmethod
    def column(self, place: int) -> Column:
        """Return the column at a position."""

    @abc.abstractmethod
    def dtype(self, place: int) -> str:
        """Return the name of the dtype of the column at a position."""

    @abc.abstractmethod
    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return the table with other columns at these positions."""

    @abc.abstractmethod
    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the table with only these columns, in this order."""

    @abc.abstractmethod
    def renamed(self, place: int, name: object) -> Any:
        """Return the table with a new name for one column."""

    @abc.abstractmethod
    def numbered(self, name: object) -> Any:
        """Return the table with one more column at the start, which numbers the rows from 0."""

    @abc.abstractmethod
    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return the table with these rows, in this order."""

    @abc.abstractmethod
    def kept(self) -> Any:
        """Return the table as it is now, protected from later changes by its owner."""

    @abc.abstractmethod
    def followed_by(self, other: object) -> Any:
        """Return the table followed by the rows of a table with the same columns."""

    def open_rows(self) -> Any:
        """Return the positions of the rows that a fault may strike."""
        import numpy as np

        return np.arange(self.rows) if self.only is None else np.flatnonzero(self.only)

    def open_column(self, place: int) -> Column:
        """Return the column at a position, limited to the rows that a fault may strike."""
        column = self.column(place)
        column.only = self.only
        return column

    def schema(self) -> tuple[Any, ...]:
        """Return the names and dtypes, which tables of one kind share."""
        return (
            type(self.value).__name__,
            *((str(name), self.dtype(place)) for place, name in enumerate(self.names)),
        )

    def label(self, place: int) -> str:
        """Return a column's name as reports show it."""
        return label_text(self.names[place], place, len(self.names))

    def quoted(self, place: int) -> str:
        """Return a column's name for a sentence: in quotes, if it may be shown."""
        return key_text(self.names[place], place, len(self.names), noun="column")

    def describe(self) -> str:
        """Return ``DataFrame[5 rows x 2 columns] (age: int64, name: str)``."""
        columns = [
            f"{self.label(place)}: {self.dtype(place)}"
            for place in range(min(len(self.names), SHOWN_COLUMNS))
        ]
        more = ["..."] if len(self.names) > SHOWN_COLUMNS else []
        return f"{type(self.value).__name__}[{self.rows} rows x {len(self.names)} columns] ({', '.join(columns + more)})"


def ahead(now: datetime.timedelta | None, seconds: int) -> datetime.timezone:
    """Return the zone that is ahead of this offset from UTC by a number of seconds.

    Dtypes can only name whole minutes.
    """
    minutes = round(((now or datetime.timedelta()).total_seconds() + seconds) / 60)
    if not round(seconds / 60):
        raise UnsupportedColumn(
            f"has whole minutes between its zone and UTC, and {seconds} s are none"
        )
    if abs(minutes) >= 24 * 60:
        raise UnsupportedColumn(
            f"would be {minutes / 60:+g} h from UTC, and no zone is a day or more from it"
        )
    return datetime.timezone(datetime.timedelta(minutes=minutes))


_CARRIERS: list[Callable[[object], Table | None]] = []


def carrier(adapt: Callable[[object], Table | None]) -> Callable[[object], Table | None]:
    """Register a function that adapts one library's tables. It returns None for other values."""
    _CARRIERS.append(adapt)
    return adapt


def table_of(value: object) -> Table | None:
    """Return the adapter for a table, or None if the value is not a table."""
    return next((table for adapt in _CARRIERS if (table := adapt(value)) is not None), None)


def all_same(
    column: Column, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]
) -> bool:
    """Return True if all values equal those of ``other``. The first few usually decide."""
    first = 64
    return bool(column.same(where[:first], other, there[:first]).all()) and bool(
        column.same(where, other, there).all()
    )


def places(rng: np.random.Generator, size: int, count: int) -> Any:
    """Return ``count`` distinct numbers below ``size``, ascending, each set with equal probability.

    Numbers are drawn until enough are distinct, and then a random part is removed. This is several
    times faster than a choice without replacement, and as uniform.
    """
    import numpy as np

    if count >= size:
        return np.arange(size)
    if 2 * count > size:
        others = np.ones(size, dtype=bool)
        others[places(rng, size, size - count)] = False
        return np.flatnonzero(others)
    if 8 * count > size:
        found = _draw_many(rng, size, count)
        surplus = len(found) - count
        return (
            np.delete(found, rng.choice(len(found), surplus, replace=False)) if surplus else found
        )
    drawn, new = _draw_few_sorted(rng, size, count)
    distinct = np.flatnonzero(new)
    new[distinct[rng.choice(len(distinct), len(distinct) - count, replace=False)]] = False
    return drawn[new].astype(np.intp)


def _draws(size: int, have: int, count: int) -> int:
    """Return how many numbers to draw so that usually enough are distinct."""
    return int(-size * math.log1p(-(count - have) / size) + 2 * count**0.5) + 1


def _draw_many(rng: np.random.Generator, size: int, count: int) -> Any:
    """Return at least ``count`` distinct numbers below ``size``, and usually few more, for large
    counts.
    """
    import numpy as np

    dtype = np.uint32 if size < 2**32 else np.uint64
    found, marked = np.empty(0, dtype=np.intp), np.zeros(size, dtype=bool)
    while len(found) < count:
        marked[rng.integers(0, size, _draws(size, len(found), count), dtype=dtype)] = True
        found = np.flatnonzero(marked)
    return found


def _draw_few_sorted(rng: np.random.Generator, size: int, count: int) -> tuple[Any, Any]:
    """Return sorted numbers below ``size``, and which differ from the one before, for small counts."""
    import numpy as np

    dtype = np.uint32 if size < 2**32 else np.uint64
    drawn, new, have = np.empty(0, dtype=dtype), np.empty(0, dtype=bool), 0
    while have < count:
        more = rng.integers(0, size, _draws(size, have, count), dtype=dtype)
        drawn = np.concatenate([drawn, more]) if have else more
        drawn.sort()
        new = np.empty(len(drawn), dtype=bool)
        new[0] = True
        np.not_equal(drawn[1:], drawn[:-1], out=new[1:])
        have = int(np.count_nonzero(new))
    return drawn, new

"""Tables of any library as faults see them: columns that can be replaced one by one, rows that can be taken in another order."""

from __future__ import annotations

import abc
import datetime
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.privacy import key_text, label_text

__all__ = ["NUMBERS", "Column", "Table", "UnsupportedColumn", "ahead", "all_same", "places", "table_of"]

NUMBERS = ("float", "integer")
SHOWN_COLUMNS = 12
"""Columns that an error names; there may be thousands."""


class UnsupportedColumn(Exception):
    """A column that a fault cannot work on; the text says why."""


class Column(abc.ABC):
    """One column. Whatever changes it gives a new one, as its table takes it back: the column itself stays as it was.

    ``kind`` is ``"float"``, ``"integer"``, ``"boolean"``, ``"text"``, ``"time"`` (dates and times, with a zone or without),
    ``"category"`` or ``"other"``. Places are row numbers.
    """

    name: Any
    kind: str
    dtype: str
    size: int

    @abc.abstractmethod
    def nulls(self) -> Any:
        """Which values are missing (bool, one for each row), or None where none is."""

    @abc.abstractmethod
    def numbers(self) -> Any:
        """The values as a NumPy array, of times their count of ticks; where one is missing, whatever."""

    @abc.abstractmethod
    def codes(self) -> Any:
        """A number for each value that orders as the values do (float64, NaN where one is missing)."""

    @abc.abstractmethod
    def without(self, where: Any) -> Any:
        """The column with nothing at these places."""

    @abc.abstractmethod
    def with_numbers(self, where: Any, values: Any) -> Any:
        """The column with other numbers (or ticks) at these places; in its dtype."""

    @abc.abstractmethod
    def of_type(self, dtype: Any) -> Column:
        """A column of numbers as one of another of NumPy's dtypes, which can hold them."""

    @abc.abstractmethod
    def texts(self, where: Any) -> list[str]:
        """The texts at these places."""

    @abc.abstractmethod
    def with_texts(self, where: Any, texts: Sequence[str]) -> Any:
        """The column with other texts at these places."""

    @abc.abstractmethod
    def with_category(self, where: Any, value: Any) -> Any:
        """The column with one value, that it has not held so far, at these places."""

    @abc.abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a value, or a category, is among its own."""

    @abc.abstractmethod
    def same(self, where: Any, other: Column, there: Any) -> Any:
        """Whether the values at these places are those of ``other`` at its places (bool, one for each)."""

    @abc.abstractmethod
    def replaced(self, where: Any, other: Column, there: Any) -> Any:
        """The column with the values of ``other``, a column of the same dtype, in the places of its own."""

    @abc.abstractmethod
    def ticks_per_second(self) -> float:
        """Of times: what their numbers count."""

    @abc.abstractmethod
    def in_zone(self, seconds: int) -> Any:
        """Times on the clock of a zone so many seconds ahead of their own: with a zone, the same moments; without, another reading."""

    @abc.abstractmethod
    def recoded(self, order: Any) -> Any:
        """A category with its list of values in another order: the same values, other codes."""

    @abc.abstractmethod
    def category_count(self) -> int:
        """How many values a category's list has."""

    @abc.abstractmethod
    def as_text(self) -> Any:
        """The column with its values as texts."""

    @abc.abstractmethod
    def as_float(self) -> Any:
        """The column with its values as floating-point numbers."""


class Table(abc.ABC):
    """A table. Whatever changes it gives a new object of the library's own type; columns that are not hit are shared where that can be."""

    value: Any
    names: list[Any]
    rows: int
    named = True
    """Whether its columns have names (a 2-D array's have numbers)."""

    @abc.abstractmethod
    def column(self, place: int) -> Column:
        """The column at a position."""

    @abc.abstractmethod
    def dtype(self, place: int) -> str:
        """The dtype of the column at a position, in words."""

    @abc.abstractmethod
    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """With other columns at these positions."""

    @abc.abstractmethod
    def arranged(self, positions: Sequence[int]) -> Any:
        """These columns alone, in this order."""

    @abc.abstractmethod
    def renamed(self, place: int, name: Any) -> Any:
        """With another name for one column."""

    @abc.abstractmethod
    def numbered(self, name: Any) -> Any:
        """With one more column in front, which counts the rows from 0."""

    @abc.abstractmethod
    def taken(self, rows: Any) -> Any:
        """These rows, by number, in this order."""

    @abc.abstractmethod
    def kept(self) -> Any:
        """The value as it is now, whatever its owner does with it later."""

    @abc.abstractmethod
    def followed_by(self, other: Any) -> Any:
        """With the rows of another table of the same columns at its end."""

    def schema(self) -> tuple[Any, ...]:
        """What tables of one kind have in common."""
        return (type(self.value).__name__, *((str(name), self.dtype(place)) for place, name in enumerate(self.names)))

    def label(self, place: int) -> str:
        """A column's name as reports show it."""
        return label_text(self.names[place], place, len(self.names))

    def quoted(self, place: int) -> str:
        """A column's name as sentences show it: in quotes, if it is shown at all."""
        return key_text(self.names[place], place, len(self.names), noun="column")

    def describe(self) -> str:
        """``DataFrame[5 rows x 2 columns] (age: int64, name: str)``."""
        columns = [f"{self.label(place)}: {self.dtype(place)}" for place in range(min(len(self.names), SHOWN_COLUMNS))]
        more = ["..."] if len(self.names) > SHOWN_COLUMNS else []
        return f"{type(self.value).__name__}[{self.rows} rows x {len(self.names)} columns] ({', '.join(columns + more)})"


def ahead(now: datetime.timedelta | None, seconds: int) -> datetime.timezone:
    """The zone that is so many seconds ahead of one with this offset from UTC; whole minutes, which is what dtypes can name."""
    minutes = round(((now or datetime.timedelta()).total_seconds() + seconds) / 60)
    if not round(seconds / 60):
        raise UnsupportedColumn(f"has whole minutes between its zone and UTC, and {seconds} s are none")
    if abs(minutes) >= 24 * 60:
        raise UnsupportedColumn(f"would be {minutes / 60:+g} h from UTC, and no zone is a day or more from it")
    return datetime.timezone(datetime.timedelta(minutes=minutes))


def table_of(value: Any) -> Table | None:
    """The value as a table, or None where it is none."""
    library = type(value).__module__.partition(".")[0]
    numpy, pandas, arrow = (sys.modules.get(name) for name in ("numpy", "pandas", "pyarrow"))
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        from .pandas import PandasTable

        return PandasTable(value)
    if arrow is not None and isinstance(value, (arrow.Table, arrow.RecordBatch)):
        from .arrow import ArrowTable

        return ArrowTable(value)
    if library == "polars" and type(value).__name__ == "DataFrame":
        from .polars import PolarsTable

        return PolarsTable(value)
    if numpy is not None and isinstance(value, numpy.ndarray) and not isinstance(value, numpy.ma.MaskedArray):
        from .numpy import NumpyTable

        return NumpyTable(value) if value.ndim == (2 if value.dtype.names is None else 1) else None
    return None


def all_same(column: Column, where: Any, other: Column, there: Any) -> bool:
    """Whether all values at these places are those of ``other`` at its places; mostly the first few tell."""
    first = 64
    return bool(column.same(where[:first], other, there[:first]).all()) and bool(column.same(where, other, there).all())


def places(rng: Any, size: int, count: int) -> Any:
    """So many distinct numbers below ``size``, ascending; each set of them is as likely as any other.

    Numbers are drawn until enough are distinct; those too many are drawn in turn. That is several times faster than a choice without
    replacement, and no less even: given how many are distinct, they are any.
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
        return np.delete(found, rng.choice(len(found), surplus, replace=False)) if surplus else found
    drawn, new = _draw_few_sorted(rng, size, count)
    distinct = np.flatnonzero(new)
    new[distinct[rng.choice(len(distinct), len(distinct) - count, replace=False)]] = False
    return drawn[new].astype(np.intp)


def _draws(size: int, have: int, count: int) -> int:
    """How many numbers to draw, so that mostly at least so many are distinct."""
    return int(-size * math.log1p(-(count - have) / size) + 2 * count**0.5) + 1


def _draw_many(rng: Any, size: int, count: int) -> Any:
    """At least so many distinct numbers below ``size``, and mostly few more: for many of them."""
    import numpy as np

    dtype = np.uint32 if size < 2**32 else np.uint64
    found, marked = np.empty(0, dtype=np.intp), np.zeros(size, dtype=bool)
    while len(found) < count:
        marked[rng.integers(0, size, _draws(size, len(found), count), dtype=dtype)] = True
        found = np.flatnonzero(marked)
    return found


def _draw_few_sorted(rng: Any, size: int, count: int) -> tuple[Any, Any]:
    """Sorted numbers below ``size``, and which of them differ from the one before, at least so many: for few of them."""
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

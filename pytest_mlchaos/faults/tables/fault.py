"""Define the base class of faults of tables: their site, columns, rows, and errors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.faults import is_drawn
from ...core.privacy import may_be_hinted
from ...core.sites import Key, Visit
from ...core.storage import StoredFile
from ...core.validation import check_share, did_you_mean, format_value
from ...engine.table_files import TableFile, UnsupportedFile, open_table
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import describe
from ..data_fault import DataFault
from ..files.damaged_file import check_pattern, file_key, struck_later
from ..rows import RowFault, matching
from .base import Column, Table, UnsupportedColumn, places, table_of

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MAX_REDRAWS",
    "SHARES",
    "ColumnFault",
    "OneColumnFault",
    "Spot",
    "TableFault",
    "rows_of",
]

SHARES = {"fraction": (0.01, 0.05, 0.1, 0.25, 0.5)}
"""The values of ``fraction`` at the severities 1 to 5."""
MAX_REDRAWS = 8
"""The number of further draws if the drawn places would not change."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """A change of one column: its table and position, the random generator, and the visit."""

    table: Table
    place: int
    rng: Any
    visit: Visit


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TableFault(DataFault):
    """A fault of a table. It strikes where tables are read, or the tables that calls of ``target``
    return, or those in files.

    Args:
        file: A pattern of files (``"in/*.parquet"``), as ``path`` of ``damaged_file``. The fault
            then rewrites one of these files on disk before the subject reads it, so that readers in
            C++ find the change, too. ``at`` counts the files. CSV, JSON lines, Parquet, Arrow IPC
            and ORC can be rewritten, also with ``.gz``. CSV and JSON must be in UTF-8.
    """

    site = "data.table"
    compared = True

    file: str | None = None

    @property
    def key(self) -> Key:
        """Count the visits of the site, of the target's results, or of the files."""
        return super().key if self.file is None else file_key(self.file)

    def check(self) -> None:
        """Check the parameters."""
        check_pattern(self.name, "file", self.file)
        if self.file is not None and self.target is not None:
            raise BadArgument(f"{self.name}: file= and target= exclude each other. Give one")
        fraction = getattr(self, "fraction", None)
        if fraction is not None and not is_drawn(fraction):
            check_share(self.name, "fraction", fraction)
        column = getattr(self, "column", None)
        if column is not None and not is_drawn(column):
            wanted = (
                [column]
                if isinstance(column, (str, int))
                else list(column)
                if isinstance(column, (list, tuple))
                else [None]
            )
            if not wanted or not all(
                isinstance(name, (str, int)) and not isinstance(name, bool) for name in wanted
            ):
                raise BadArgument(
                    f"{self.name}: column must be a name or a list of names, got "
                    f"{format_value(column)}"
                )
            object.__setattr__(self, "column", tuple(wanted) if len(wanted) > 1 else wanted[0])

    def apply(self, visit: Visit) -> Any:
        """Return a changed table, or a file with one."""
        if not isinstance(visit.payload, StoredFile):
            return self._changed_table(self._table(visit.payload), visit)
        file = visit.payload
        opened = self._opened(file)
        visit.note(file=file.path)
        try:
            changed = self._changed_table(self._table(opened.value), visit)
            if changed is None:
                return None
            content = opened.encode(changed)
        except PayloadMismatch as why:
            raise PayloadMismatch(f"{why}, in the file {file.path}") from None
        if content == file.read():
            visit.skip()
            return None
        return struck_later(visit, dataclasses.replace(file, replacement=content))

    def possible(self, visit: Visit) -> bool:
        """Return False for a file that a composite fault cannot rewrite."""
        if not isinstance(visit.payload, StoredFile) or "file" not in self._searched:
            return True
        try:
            return self._struck(visit) is not None
        except PayloadMismatch:
            return False

    def _struck(self, visit: Visit) -> Table:
        """Return the table of a visit, which may be in a file."""
        stored = isinstance(visit.payload, StoredFile)
        return self._table(self._opened(visit.payload).value if stored else visit.payload)

    def _opened(self, file: StoredFile) -> TableFile:
        try:
            return open_table(file.read(), file.path)
        except OSError as error:
            raise PayloadMismatch(
                f"{self.name} cannot read the file {file.path}: {error.strerror}"
            ) from None
        except UnsupportedFile as why:
            raise PayloadMismatch(
                f"{self.name} cannot work on the file {file.path}: {why}"
            ) from None

    def _changed_table(self, table: Table, visit: Visit) -> Any:
        import numpy as np

        before = None if visit.struck_tables is None else table.kept()
        if not self._limit(table):
            visit.skip()
            return None
        try:
            changed = self.change(table, np.random.Generator(np.random.SFC64(visit.seed)), visit)
        except UnsupportedColumn as why:
            raise self.refused(table, str(why)) from None
        except NotImplementedError:  # pyarrow raises this if it lacks an operation for a type
            raise self.refused(
                table, "its library has no such operation for the dtype of one of its columns"
            ) from None
        after = None if visit.struck_tables is None else table_of(changed)
        if visit.struck_tables is not None and after is not None:
            # The owner may change the table later, so keep it as it is now.
            visit.struck_tables.append((before, after.kept()))
        return changed

    def strike(self, visit: Visit) -> Any:
        """Strike the whole table. ``_limit`` marks the rows that ``rows`` names."""
        return self.apply(visit)

    def _limit(self, table: Table) -> bool:
        """Mark the rows that the fault may strike. Return False if there are none."""
        if not isinstance(self, RowFault) or self.rows is None:
            return True
        import numpy as np

        columns = {
            name: functools.partial(self._plain_values, table, place)
            for place, name in enumerate(table.names)
        }
        table.only = np.zeros(table.rows, dtype=bool)
        table.only[matching(self, columns, table.rows)] = True
        return bool(table.only.any())

    def _plain_values(self, table: Table, place: int) -> list[Any]:
        try:
            return table.column(place).plain_values()
        except UnsupportedColumn as why:
            if callable(getattr(self, "rows", None)):
                return [None] * table.rows
            raise self.refused(table, f"the column {table.quoted(place)} {why}") from None

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the table with the fault, as an object of its library. Call ``visit.note`` for the
        journal.
        """
        raise NotImplementedError

    def refused(self, table: Table, why: str) -> PayloadMismatch:
        """Return an error that names the fault, the table's shape and its types."""
        return PayloadMismatch(f"{self.name} cannot work on {table.describe()}: {why}")

    def _table(self, payload: object) -> Table:
        table = table_of(payload)
        if table is None:
            where = "the table" if self.target is None else f"what {self.target} returns"
            raise PayloadMismatch(
                f"{self.name}: {where} is not a table but {describe(payload)}. It works on "
                f"DataFrames and Series of pandas, tables of pyarrow and polars, NumPy arrays with "
                f"fields or two axes, and records: dicts, dataclasses, and lists of these or of "
                f"single values"
            )
        if not table.rows or not table.names:
            raise self.refused(table, "it is empty")
        return table

    def wanted(self, table: Table, column: object) -> list[int]:
        """Return the positions of the named columns. Refuse a name that is missing or ambiguous."""
        return [
            self._place(table, name)
            for name in (column if isinstance(column, tuple) else (column,))
        ]

    def _place(self, table: Table, name: Any) -> int:
        found = [place for place, known in enumerate(table.names) if known == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise self.refused(
                table,
                f"{len(found)} columns are called {name!r}. Without column=, columns are chosen by "
                f"position",
            )
        raise self.refused(table, f"it has no column {name!r}{_near(name, table.names)}")


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class OneColumnFault(TableFault):
    """A fault that changes one column, if none is named.

    Args:
        column: A name, or a list of names. Without it, one that fits.
        spot: Without ``column``, the number of the column among those that fit. A number beyond the
            last one counts from the first again. A search of the visits tries each column. Without
            both, it is drawn.
    """

    searchable = ("spot",)

    column: Any = None
    spot: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if self.spot is not None and not is_drawn(self.spot) and self.spot < 0:
            raise BadArgument(
                f"{self.name}: spot must be a number of 0 or more, got {format_value(self.spot)}"
            )

    @property
    def is_pinned(self) -> bool:
        """Return True if nothing is left to be drawn: given visits need no spot."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return (self.at is not None or self.p is not None) and not any(map(is_drawn, values))

    def possible(self, visit: Visit) -> bool:
        """Return False for a file that cannot be rewritten. Measure how many columns there are."""
        possible = super().possible(visit)
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        if possible and self.column is None and not any(map(is_drawn, values)):
            with contextlib.suppress(PayloadMismatch, UnsupportedColumn):
                visit.measure(spot=len(self.fitting(self._struck(visit))))
        return possible

    def fitting(self, table: Table) -> list[int]:
        """Return the positions of the columns of which it can change one."""
        raise NotImplementedError

    def one_of(self, places: list[int], rng: np.random.Generator) -> int:
        """Return the position of the column to change."""
        if self.spot is None:
            return places[int(rng.integers(len(places)))]
        return places[self.spot % len(places)]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ColumnFault(TableFault, RowFault):
    """A fault of the values in columns.

    Args:
        column: A name, or a list of names. Without it, all columns that the fault can work on.
        fraction: The share of a column's values that is hit, at least one. Missing values do not
            count. In a single record without ``column``, the share of its fields.
    """

    fits: ClassVar[tuple[str, ...]] = ()
    """The kinds of columns that the fault works on. Empty for all kinds."""
    fits_named: ClassVar[tuple[str, ...]] = ()
    """Further kinds of columns, if they are named."""

    column: Any = None

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Change each column by itself. A named column must fit. Without names, at least one column
        must.
        """
        columns: dict[int, Any] = {}
        hits: dict[str, int] = {}
        most = self._most_columns(table)
        for place, column in self.columns(table, rng):
            if len(columns) >= most:
                break
            try:
                self._check_kind(column)
                fresh, count = self.changed(column, Spot(table, place, rng, visit))
            # pyarrow raises NotImplementedError if it lacks an operation for a type
            except (UnsupportedColumn, NotImplementedError) as error:
                if self.column is not None:
                    lacks = f"is of the dtype {column.dtype}, for which its library has no such operation"
                    why = lacks if isinstance(error, NotImplementedError) else str(error)
                    raise self.refused(table, f"the column {table.quoted(place)} {why}") from None
                continue
            columns[place], hits[table.label(place)] = fresh, count
        if not columns:
            kinds = f" of the kind {' or '.join(self.fits)}" if self.fits else ""
            raise self.refused(table, f"it has no column{kinds} that it can change")
        visit.note(columns=hits)
        return table.replaced(columns)

    def _most_columns(self, table: Table) -> int:
        """Return the number of columns to change. In a single record, a share of them is hit."""
        if not table.single or self.column is not None or not hasattr(self, "fraction"):
            return len(table.names)
        return max(1, round(float(self.scaled("fraction")) * len(table.names)))

    def columns(self, table: Table, rng: np.random.Generator) -> Iterator[tuple[int, Column]]:
        """Yield the positions and columns to try. Those of a single record are in random order."""
        wanted: list[int] = list(range(len(table.names)))
        if self.column is not None:
            wanted = self.wanted(table, self.column)
        elif table.single:
            wanted = [int(place) for place in rng.permutation(len(wanted))]
        for place in wanted:
            try:
                yield place, table.open_column(place)
            except UnsupportedColumn as why:
                if self.column is not None:
                    raise self.refused(table, f"the column {table.quoted(place)} {why}") from None

    def _check_kind(self, column: Column) -> None:
        fits = (*self.fits, *(self.fits_named if self.column is not None else ()))
        if fits and column.kind not in fits:
            raise UnsupportedColumn(
                f"is of the dtype {column.dtype}, which is not {' or '.join(fits)}"
            )

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the changed column, and the number of its changed values.

        Raise ``UnsupportedColumn`` if the column cannot be changed.
        """
        raise NotImplementedError


def _near(name: str | int, names: list[Any]) -> str:
    """Return the most similar column name, exactly or else without regard to case and type."""
    names = [known for known in names if may_be_hinted(str(name), str(known))]
    exact = did_you_mean(str(name), [known for known in names if isinstance(known, str)])
    folded = {
        str(known).casefold(): known
        for known in names
        if isinstance(name, str) or isinstance(known, str)
    }
    if exact or not folded:
        return exact
    import difflib

    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""


def rows_of(column: Column, fraction: float, rng: np.random.Generator) -> Any:
    """Return the places of this share of a column's values, drawn uniformly, at least one."""
    import numpy as np

    size, nulls = column.size, column.closed()
    if nulls is None:
        return places(rng, size, max(1, round(fraction * size)))
    present = np.flatnonzero(~nulls)
    if not len(present):
        raise UnsupportedColumn("has no such values")
    return present[places(rng, len(present), max(1, round(fraction * len(present))))]

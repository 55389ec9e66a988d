"""Adapt records of plain Python as tables: what ``json.loads`` and clients of feature stores return.

A record is a mapping, a dataclass, a model with ``model_fields`` or a named tuple. A list of records
or of rows is a table of rows, a mapping of lists is a table of columns, and one record is a table of
one row. Values that are not hit stay the same objects.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from ..batches.pytree import rebuilt
from ..batches.records import copied_record, fields_of_record, is_number, is_sequence
from .base import Column, Table, UnsupportedColumn, carrier
from .times import kind_of_times, microseconds, moved, on_clock_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RecordColumn", "RecordTable"]

Path = tuple[Any, ...]
_MAX_DEPTH = 8
_SCALARS = (str, bytes, bool, int, float, complex, type(None))


class _Absent:
    """The value of a column in a row that does not have it."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


class RecordColumn(Column):
    """The values of one field in all rows, as they are. A change returns a new list."""

    def __init__(self, name: Any, values: list[Any]) -> None:
        self.name = name
        self.values = values
        self.size = len(values)
        present = [value for value in values if not _is_missing(value)]
        self.dtype = "/".join(sorted({type(value).__name__ for value in present})) or "NoneType"
        self.kind = _kind_of(present)

    def nulls(self) -> Any:
        """Return which values are None or NaN, or belong to a row without the field."""
        import numpy as np

        found = np.fromiter(map(_is_missing, self.values), bool, self.size)
        return found if found.any() else None

    def numbers(self) -> Any:
        """Return int64 or float64. Times are microseconds."""
        import numpy as np

        if self.kind == "time":
            ticks = [0 if _is_missing(one) else microseconds(one) for one in self.values]
            return np.array(ticks, dtype=np.int64)
        if self.kind not in ("float", "integer", "boolean"):
            raise UnsupportedColumn(f"of the type {self.dtype} holds no numbers")
        kind: Any = {"float": np.float64, "integer": np.int64, "boolean": bool}[self.kind]
        return np.array([0 if _is_missing(one) else one for one in self.values], dtype=kind)

    def codes(self) -> Any:
        """Return numbers as they are, and texts by their rank."""
        import numpy as np

        if self.kind == "text":
            texts = ["" if _is_missing(one) else one for one in self.values]
            codes = np.unique(np.array(texts), return_inverse=True)[1].astype(np.float64)
        elif self.kind == "other":
            raise UnsupportedColumn(f"of the type {self.dtype} has no order")
        else:
            codes = self.numbers().astype(np.float64)
        nulls = self.nulls()
        if nulls is not None:
            codes[nulls] = np.nan
        return codes

    def _with(self, where: Sequence[int], values: Sequence[Any]) -> list[Any]:
        fresh = list(self.values)
        for place, value in zip(map(int, where), values, strict=True):
            if fresh[place] is not _ABSENT:
                fresh[place] = value
        return fresh

    def without(self, where: np.ndarray[Any, Any]) -> Any:
        """Return the column with None at these places, as JSON's null is read."""
        return self._with(where, [None] * len(where))  # type: ignore[arg-type]

    def with_numbers(self, where: np.ndarray[Any, Any], values: Any) -> Any:
        """Return the column with other numbers, each of the type of the value before."""
        others = values.tolist()
        old = [self.values[int(place)] for place in where]
        if self.kind == "time":
            changed = [
                one if _is_missing(one) else moved(one, ticks - microseconds(one))
                for one, ticks in zip(old, others, strict=True)
            ]
        else:
            changed = [_as_number_like(one, new) for one, new in zip(old, others, strict=True)]
        return self._with(where, changed)  # type: ignore[arg-type]

    def of_type(self, dtype: object) -> Column:
        """Return the column itself, because a number of Python can become any other."""
        return self

    def texts(self, where: np.ndarray[Any, Any]) -> list[str]:
        """Return the texts."""
        return [self.values[int(place)] for place in where]

    def with_texts(self, where: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        """Return the column with other texts."""
        return self._with(where, texts)  # type: ignore[arg-type]

    def with_category(self, where: np.ndarray[Any, Any], value: object) -> Any:
        """Return the column with one value at these places."""
        return self._with(where, [value] * len(where))  # type: ignore[arg-type]

    def holds(self, value: object) -> bool:
        """Return True if a value is equal."""
        return any(_is_same(one, value) for one in self.values)

    def same(self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]) -> Any:
        """Compare value by value. Missing values are equal."""
        import numpy as np

        assert isinstance(other, RecordColumn)
        pairs = zip(map(int, where), map(int, there), strict=True)
        return np.fromiter(
            (_is_same(self.values[here], other.values[place]) for here, place in pairs),
            bool,
            len(where),
        )

    def replaced(
        self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]
    ) -> Any:
        """Replace value by value. A field that the other row lacks becomes None."""
        assert isinstance(other, RecordColumn)
        given = [other.values[int(place)] for place in there]
        return self._with(where, [None if one is _ABSENT else one for one in given])  # type: ignore[arg-type]

    def ticks_per_second(self) -> float:
        """Return the ticks of times, which are microseconds, or days for dates without a time."""
        return 1e6

    def in_zone(self, seconds: int) -> Any:
        """Return times on the clock of a different zone."""
        return [
            one if _is_missing(one) else on_clock_of(one, seconds, self.dtype)
            for one in self.values
        ]

    def recoded(self, order: np.ndarray[Any, Any]) -> Any:
        """Refuse: records have no lists of categories."""
        raise UnsupportedColumn(f"of the type {self.dtype} has no list of categories")

    def category_count(self) -> int:
        """Return 0: records have no lists of categories."""
        return 0

    def as_text(self) -> Any:
        """Return the values as texts. Missing values stay missing."""
        if all(isinstance(one, str) or _is_missing(one) for one in self.values):
            raise UnsupportedColumn("holds texts already")
        return [one if _is_missing(one) else _text_of(one) for one in self.values]

    def as_float(self) -> Any:
        """Return the values as floats. Missing values stay missing."""
        return [one if _is_missing(one) else float(one) for one in self.values]


def _text_of(value: Any) -> str:
    """Return a value as text. In a file of texts, a fraction gets a decimal comma: as it is there,
    every reader would still take it for a number.
    """
    written = getattr(value, "text", None) if isinstance(value, float) else None
    return str(value) if written is None else str(written).replace(".", ",")


def _is_missing(value: Any) -> bool:
    if value is None or value is _ABSENT:
        return True
    return isinstance(value, float) and value != value


def _is_same(one: Any, other: Any) -> bool:
    if _is_missing(one) or _is_missing(other):
        return _is_missing(one) and _is_missing(other)
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001  # the values may define any comparison
        return False


def _kind_of(present: list[Any]) -> str:
    if not present:
        return "other"
    if all(isinstance(one, bool) for one in present):
        return "boolean"
    if all(map(is_number, present)):
        whole = all(isinstance(one, int) or _is_whole_scalar(one) for one in present)
        return "integer" if whole else "float"
    return kind_of_times(present) or (
        "text" if all(isinstance(one, str) for one in present) else "other"
    )


def _is_whole_scalar(value: Any) -> bool:
    return hasattr(value, "dtype") and value.dtype.kind in "iu"


def _as_number_like(old: Any, new: Any) -> Any:
    """Return a number with the type of the old one, if that can hold it."""
    if _is_missing(old) or type(old) is type(new):
        return new
    if (isinstance(old, int) or _is_whole_scalar(old)) and not float(new).is_integer():
        return new
    try:
        return type(old)(new)
    except (TypeError, ValueError, OverflowError):
        return new


def _is_record(value: object) -> bool:
    return isinstance(value, Mapping) or fields_of_record(value) is not None


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
        return
    for name in fields_of_record(value) or ():
        yield name, getattr(value, name, None)


def _paths(record: Any, above: Path = ()) -> Iterator[Path]:
    """Yield the path to each value. A record inside a record is followed."""
    for name, value in _members(record):
        if _is_record(value) and len(above) < _MAX_DEPTH and next(_members(value), None):
            yield from _paths(value, (*above, name))
        else:
            yield (*above, name)


def _value_at(row: Any, path: Path) -> Any:
    for name in path:
        if isinstance(row, Mapping):
            if name not in row:
                return _ABSENT
            row = row[name]
        elif fields_of_record(row) is not None:
            row = getattr(row, name, _ABSENT)
        elif is_sequence(row) and isinstance(name, int) and name < len(row):
            row = row[name]
        else:
            return _ABSENT
    return row


def _holds_arrays(row: Any, paths: list[Path]) -> bool:
    """Return True if a value is an array or a table of a library, so that the row is a batch."""
    return any(getattr(_value_at(row, path), "shape", None) not in (None, ()) for path in paths)


class RecordTable(Table):
    """A list of records or rows, or one record as a table of one row."""

    def __init__(self, value: Any, rows: list[Any], *, single: bool = False) -> None:
        self.value = value
        self.single = single
        self._rows = rows
        self.rows = len(rows)
        self.named = not rows or _is_record(rows[0])
        paths = (
            dict.fromkeys(path for row in rows for path in _paths(row))
            if self.named
            else [(place,) for place in range(len(rows[0]))]
        )
        self.paths: list[Path] = list(paths)
        self.names = [
            path[0] if len(path) == 1 else ".".join(map(str, path)) for path in self.paths
        ]

    def column(self, place: int) -> Column:
        """Return the values of one field."""
        return RecordColumn(
            self.names[place], [_value_at(row, self.paths[place]) for row in self._rows]
        )

    def dtype(self, place: int) -> str:
        """Return the names of the values' types."""
        return self.column(place).dtype

    def schema(self) -> tuple[Any, ...]:
        """Return the names alone, because a missing value has a different type."""
        return (type(self.value).__name__, *map(str, self.names))

    def _made(self, rows: list[Any]) -> Any:
        return rows[0] if self.single else _sequence_like(self.value, rows)

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return the table with other values. Rows without a changed value are shared."""
        fresh = []
        for number, row in enumerate(self._rows):
            changes = {}
            for place, values in columns.items():
                old = _value_at(row, self.paths[place])
                if values[number] is not old and old is not _ABSENT:
                    changes[self.paths[place]] = values[number]
            fresh.append(rebuilt(row, changes))
        return self._made(fresh)

    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the table with these fields, in this order."""
        paths = [self.paths[place] for place in positions]
        return self._made([_arranged(row, paths) for row in self._rows])

    def renamed(self, place: int, name: object) -> Any:
        """Return the table with a new name for one field."""
        path = self.paths[place]
        # The name of a nested value is its path with dots.
        last = str(name).rpartition(".")[2] if len(path) > 1 else name
        return self._made([_renamed(row, path, last) for row in self._rows])

    def numbered(self, name: object) -> Any:
        """Return the table with one more field, which numbers the rows."""
        return self._made([_numbered(row, name, place) for place, row in enumerate(self._rows)])

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return the table with these rows. A row that comes twice is copied."""
        if self.single:
            raise UnsupportedColumn("it is a single record, which has no rows")
        return _sequence_like(self.value, _taken(self._rows, rows))

    def kept(self) -> Any:
        """Return a copy."""
        return copied_record(self.value)

    def followed_by(self, other: object) -> Any:
        """Return the rows of both tables."""
        return _sequence_like(self.value, [*self._rows, *_rows_of(other)])


class _ColumnTable(Table):
    """A mapping, or another record, of lists that have one value for each row."""

    def __init__(self, value: Any, columns: dict[Any, Any]) -> None:
        self.value = value
        self._columns = columns
        self.names = list(columns)
        self.rows = len(next(iter(columns.values())))

    def column(self, place: int) -> Column:
        """Return the values of one list."""
        return RecordColumn(self.names[place], list(self._columns[self.names[place]]))

    def dtype(self, place: int) -> str:
        """Return the names of the values' types."""
        return self.column(place).dtype

    def schema(self) -> tuple[Any, ...]:
        """Return the names alone, because a missing value has a different type."""
        return (type(self.value).__name__, *map(str, self.names))

    def _list(self, place: int, values: list[Any]) -> Any:
        return _sequence_like(self._columns[self.names[place]], values)

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return the table with other lists. The rest is shared."""
        changes: dict[Path, Any] = {
            (self.names[place],): self._list(place, values) for place, values in columns.items()
        }
        return rebuilt(self.value, changes)

    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the table with these lists, in this order."""
        return _arranged(self.value, [(self.names[place],) for place in positions])

    def renamed(self, place: int, name: object) -> Any:
        """Return the table with a new name for one list."""
        return _renamed(self.value, (self.names[place],), name)

    def numbered(self, name: object) -> Any:
        """Return the table with one more list, which numbers the rows."""
        return _numbered(self.value, name, list(range(self.rows)))

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return the table with these rows."""
        changes: dict[Path, Any] = {
            (name,): self._list(place, _taken(list(self._columns[name]), rows))
            for place, name in enumerate(self.names)
        }
        return rebuilt(self.value, changes)

    def kept(self) -> Any:
        """Return a copy."""
        return copied_record(self.value)

    def followed_by(self, other: object) -> Any:
        """Return the rows of both tables."""
        theirs = dict(_members(other))
        changes: dict[Path, Any] = {
            (name,): self._list(place, [*self._columns[name], *theirs[name]])
            for place, name in enumerate(self.names)
        }
        return rebuilt(self.value, changes)


class _ListTable(Table):
    """A list of single values, as a table of one column without a name."""

    named = False

    def __init__(self, value: Any) -> None:
        self.value = value
        self.names = [0] if len(value) else []
        self.rows = len(value)

    def column(self, place: int) -> Column:
        """Return the values."""
        return RecordColumn(0, list(self.value))

    def dtype(self, place: int) -> str:
        """Return the names of the values' types."""
        return self.column(place).dtype

    def schema(self) -> tuple[Any, ...]:
        """Return the type alone."""
        return (type(self.value).__name__,)

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return a list of other values."""
        return _sequence_like(self.value, columns[0])

    def arranged(self, positions: Sequence[int]) -> Any:
        """Refuse: there is one column."""
        raise UnsupportedColumn("a list of single values has one column")

    def renamed(self, place: int, name: object) -> Any:
        """Refuse: the column has no name."""
        raise UnsupportedColumn("its column has no name")

    def numbered(self, name: object) -> Any:
        """Refuse: there is one column."""
        raise UnsupportedColumn("a list of single values has one column")

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return the list with these values."""
        return _sequence_like(self.value, _taken(list(self.value), rows))

    def kept(self) -> Any:
        """Return a copy."""
        return copied_record(self.value)

    def followed_by(self, other: Any) -> Any:
        """Return the values of both lists."""
        return _sequence_like(self.value, [*self.value, *other])


class _InnerTable(Table):
    """A table inside a record, such as the list of rows in a reply with a status."""

    def __init__(self, value: Any, path: Path, inner: Table) -> None:
        self.value = value
        self.path, self.inner = path, inner
        self.names, self.rows, self.named = inner.names, inner.rows, inner.named

    def _around(self, fresh: Any) -> Any:
        return rebuilt(self.value, {self.path: fresh})

    def column(self, place: int) -> Column:
        """Return the column of the inner table."""
        return self.inner.column(place)

    def dtype(self, place: int) -> str:
        """Return the types of the inner table."""
        return self.inner.dtype(place)

    def schema(self) -> tuple[Any, ...]:
        """Return the schema of the inner table."""
        return (type(self.value).__name__, *map(str, self.path), *self.inner.schema())

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return the record with a changed table in it."""
        return self._around(self.inner.replaced(columns))

    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the record with an arranged table in it."""
        return self._around(self.inner.arranged(positions))

    def renamed(self, place: int, name: object) -> Any:
        """Return the record with a renamed column in its table."""
        return self._around(self.inner.renamed(place, name))

    def numbered(self, name: object) -> Any:
        """Return the record with a numbered table in it."""
        return self._around(self.inner.numbered(name))

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return the record with these rows in its table."""
        return self._around(self.inner.taken(rows))

    def kept(self) -> Any:
        """Return a copy."""
        return copied_record(self.value)

    def followed_by(self, other: Any) -> Any:
        """Return the record with the rows of both tables."""
        return self._around(self.inner.followed_by(_value_at(other, self.path)))


def _sequence_like(value: Any, items: list[Any]) -> Any:
    """Return the items in a sequence of the same type."""
    if type(value) is list:
        return list(items)
    try:
        return type(value)(items)
    except TypeError:
        return items


def _taken(items: list[Any], places: Any) -> list[Any]:
    seen: set[int] = set()
    found = []
    for place in map(int, places):
        found.append(copied_record(items[place]) if place in seen else items[place])
        seen.add(place)
    return found


def _fixed(row: Any, what: str) -> UnsupportedColumn:
    return UnsupportedColumn(f"the fields of {type(row).__name__} are fixed, so none can be {what}")


def _like(row: Any, items: dict[Any, Any]) -> Any:
    """Return a mapping of the same class with these items."""
    if type(row) is dict:
        return items
    if not isinstance(row, MutableMapping):
        return type(row)(items)
    fresh = copy.copy(row)
    for name in list(fresh):
        del fresh[name]
    fresh.update(items)
    return fresh


def _arranged(row: Any, paths: list[Path]) -> Any:
    """Return the record with the values at these paths alone, in this order."""
    if is_sequence(row):
        return _sequence_like(row, [row[path[0]] for path in paths])
    if not isinstance(row, Mapping):
        names = [name for name, _ in _members(row)]
        if list(dict.fromkeys(path[0] for path in paths)) != names:
            raise _fixed(row, "removed or moved. mode='null' of missing_feature sets it to None")
        inner = {name: [path[1:] for path in paths if path[0] == name] for name in names}
        changes: dict[Path, Any] = {
            (name,): _arranged(getattr(row, name), below)
            for name, below in inner.items()
            if below != [()]
        }
        return rebuilt(row, changes)
    items = {}
    for name in dict.fromkeys(path[0] for path in paths):
        if name not in row:
            continue
        below = [path[1:] for path in paths if path[0] == name]
        nested = below != [()] and _is_record(row[name])
        items[name] = (
            _arranged(row[name], [path for path in below if path]) if nested else row[name]
        )
    return _like(row, items)


def _renamed(row: Any, path: Path, name: object) -> Any:
    if len(path) > 1:
        inner = _value_at(row, path[:1])
        if inner is _ABSENT or not _is_record(inner):
            return row
        return rebuilt(row, {path[:1]: _renamed(inner, path[1:], name)})
    if not isinstance(row, Mapping):
        raise _fixed(row, "renamed")
    if path[0] not in row:
        return row
    return _like(row, {name if key == path[0] else key: value for key, value in row.items()})


def _numbered(row: Any, name: object, number: object) -> Any:
    if isinstance(row, Mapping):
        return _like(row, {name: number, **row})
    if is_sequence(row):
        return _sequence_like(row, [number, *row])
    raise _fixed(row, "added")


def _rows_of(value: Any) -> list[Any]:
    return list(value)


def _is_plain(value: object) -> bool:
    """Return True for a single value that is not a container."""
    return isinstance(value, _SCALARS) or is_number(value) or kind_of_times([value]) == "time"


def _is_row(value: Any, width: int) -> bool:
    return is_sequence(value) and len(value) == width and all(map(_is_plain, value))


def _table_of_rows(value: Any) -> Table | None:
    """Return the table of a list of records, rows or single values, or None."""
    if not len(value):
        return RecordTable(value, [])
    if all(map(_is_record, value)):
        table = RecordTable(value, list(value))
        return None if not table.names or _holds_arrays(value[0], table.paths) else table
    first = value[0]
    if is_sequence(first) and len(first) and all(_is_row(row, len(first)) for row in value):
        return RecordTable(value, list(value))
    return _ListTable(value) if all(map(_is_plain, value)) else None


def _table_of_columns(value: Any) -> Table | None:
    """Return the table of a mapping of lists, or None."""
    columns = dict(_members(value))
    lengths = {len(held) if is_sequence(held) else -1 for held in columns.values()}
    if len(lengths) != 1 or min(lengths) < 1:
        return None
    plain = all(all(map(_is_plain, held)) for held in columns.values())
    return _ColumnTable(value, columns) if plain else None


def _inner_table(value: Any, above: Path = ()) -> _InnerTable | None:
    """Return the one list of records inside a record, or None if there is none or several."""
    found: list[tuple[Path, Table]] = []

    def search(record: Any, path: Path) -> None:
        for name, held in _members(record):
            if is_sequence(held) and len(held) and all(map(_is_record, held)):
                table = _table_of_rows(held)
                if table is not None:
                    found.append(((*path, name), table))
            elif _is_record(held) and len(path) < _MAX_DEPTH:
                search(held, (*path, name))

    search(value, above)
    return _InnerTable(value, *found[0]) if len(found) == 1 else None


@carrier
def adapt_records(value: object) -> Table | None:
    """Adapt records of plain Python. A batch of arrays, and a list of other objects, is not a table."""
    if isinstance(value, (str, bytes)):
        return None
    if isinstance(value, (list, collections.deque)):
        return _table_of_rows(value)
    if is_sequence(value):
        held: Any = value
        if held and all(map(_is_plain, held)):
            return RecordTable(value, [value], single=True)
        return _table_of_rows(held)
    if not _is_record(value):
        return None
    found = _table_of_columns(value) or _inner_table(value)
    if found is not None:
        return found
    table = RecordTable(value, [value], single=True)
    return None if _holds_arrays(value, table.paths) else table

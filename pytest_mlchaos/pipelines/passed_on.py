"""Tell values that a pipeline passes on, as a fault left them, from those that it computes wrongly.

A strike on a table keeps the table before and after it. A column of the output is *passed on* in one
of two cases. It may equal a column of the struck table, where the golden run's equals the same
column before the strike. Or it may have the same name, and each value that differs is a struck one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.privacy import key_text
from ..core.records import FileState, Output
from ..core.validation import format_value
from ..engine.table_files import UnsupportedFile, open_table
from ..errors import BadArgument
from ..oracles.state import first_difference

__all__ = ["ACCEPTED", "check_accepted", "describe_passed_on", "is_right_elsewhere", "passed_on"]

ACCEPTED = (None, "passed_on", "any")
"""The values of ``struck_values``."""
Columns = dict[Any, list[Any]]
_ABSENT = object()
_SCALARS = (str, bytes, bool, int, float, type(None))


def check_accepted(value: object) -> None:
    """Refuse a wrong ``struck_values``."""
    if value not in ACCEPTED:
        raise BadArgument(
            f"assert_same_output: struck_values must be None, 'passed_on' or 'any', got "
            f"{format_value(value)}"
        )


def describe_passed_on(names: Sequence[Any]) -> str:
    """Return a text for the names of columns."""
    shown = [key_text(name, place, len(names), noun="column") for place, name in enumerate(names)]
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")


def passed_on(
    actual: Output, golden: Output, rtol: float, atol: float, ignore: Sequence[str]
) -> list[Any]:
    """Return the names of the columns that were passed on.

    Return none if the outputs differ in anything else.
    """
    found: dict[Any, None] = {}
    try:
        for one, other in _pairs(actual, golden, ignore):
            names = _Explanation(actual.struck, rtol, atol).explain(one, other)
            if names is None:
                return []
            found.update(dict.fromkeys(names))
    except Exception:  # noqa: BLE001  # values of any class are compared here
        return []
    return list(found)


def is_right_elsewhere(
    actual: Output, golden: Output, rtol: float, atol: float, ignore: Sequence[str]
) -> bool:
    """Return True if the outputs are equal in all rows that no fault has struck.

    The struck rows may be missing, or have other values.
    """
    try:
        return all(
            _Explanation(actual.struck, rtol, atol).right_elsewhere(one, other)
            for one, other in _pairs(actual, golden, ignore)
        )
    except Exception:  # noqa: BLE001  # values of any class are compared here
        return False


def _pairs(actual: Output, golden: Output, ignore: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Yield the returned values, and the tables in each file that differs."""
    yield actual.record.kept, golden.record.kept
    for path in {**golden.after, **actual.after}:
        if any(fnmatch.fnmatchcase(path.rpartition("/")[2], pattern) for pattern in ignore):
            continue
        one, other = actual.after.get(path), golden.after.get(path)
        if one == other:
            continue
        yield _table_in(path, one, actual), _table_in(path, other, golden)


def _table_in(path: str, state: FileState | None, output: Output) -> Any:
    content = output.tables.get(path)
    if state is None or content is None:
        return _ABSENT if state is None else state
    try:
        return open_table(content, path).value
    except UnsupportedFile:
        return state


class _Explanation:
    """The struck tables of a call, and the comparison of two outputs."""

    def __init__(self, struck: Sequence[tuple[Any, Any]], rtol: float, atol: float) -> None:
        self._rtol, self._atol = rtol, atol
        self._struck = [
            (before, after)
            for pair in struck
            if (before := _columns(pair[0])) is not None
            and (after := _columns(pair[1])) is not None
        ]

    def explain(self, actual: Any, golden: Any) -> list[Any] | None:
        """Return the names of the columns that were passed on, or None for a different difference."""
        alike = self._alike(actual, golden)
        tables = _tables(actual, golden)
        # Equal rows of dicts may still be in a file with a different order of columns.
        if alike and all(list(one) == list(other) for one, other in tables):
            return []
        if tables:
            names = next(
                (
                    names
                    for one, other in tables
                    for before, after in self._struck
                    if (names := self._columns_of(one, other, before, after)) is not None
                ),
                None,
            )
            return names or [] if alike else names
        parts = _parts(actual, golden)
        if parts is None:
            return None
        found: list[Any] = []
        for pair in parts:
            names = self.explain(*pair)
            if names is None:
                return None
            found += names
        return found

    def right_elsewhere(self, actual: Any, golden: Any) -> bool:
        """Return True if the rows that no fault has struck are equal."""
        if self._alike(actual, golden):
            return True
        tables = _tables(actual, golden)
        if tables:
            return any(
                one.keys() == other.keys() and self._right_rows(one, other, before, after)
                for one, other in tables
                for before, after in self._struck
            )
        parts = _parts(actual, golden)
        return parts is not None and all(self.right_elsewhere(*pair) for pair in parts)

    def _alike(self, actual: Any, golden: Any) -> bool:
        if actual is _ABSENT or golden is _ABSENT or isinstance(actual, FileState):
            return bool(actual is golden)
        return first_difference(actual, golden, rtol=self._rtol, atol=self._atol) is None

    def _columns_of(
        self, actual: Columns, golden: Columns, before: Columns, after: Columns
    ) -> list[Any] | None:
        """Return the columns that were passed on, or None if a column is explained by nothing."""
        found = []
        for name, values in actual.items():
            expected = golden.get(name)
            if (
                expected is not None
                and _type(values) is _type(expected)
                and self._equal(values, expected)
            ):
                continue
            if not self._is_struck(name, values, expected, before, after):
                return None
            found.append(name)
        for name, values in golden.items():
            if name not in actual:
                gone = (initial for source, initial in before.items() if source not in after)
                if not any(_same(values, initial) for initial in gone):
                    return None
                found.append(name)
        if not found:
            moved = _moved(golden, actual)
            return list(actual) if moved and moved == _moved(before, after) else None
        return found

    def _is_struck(
        self,
        name: Any,
        values: list[Any],
        expected: list[Any] | None,
        before: Columns,
        after: Columns,
    ) -> bool:
        # A column without a name, or with a new one, may be any column of the struck table.
        for source, struck in after.items():
            initial = before.get(source)
            if _same(values, struck) and (
                expected is None or initial is None or _same(expected, initial)
            ):
                return True
            if source != name or initial is None or expected is None:
                continue
            if len(initial) == len(struck) and len(expected) == len(values):
                pairs = {
                    (_key(old), _key(new))
                    for old, new in zip(initial, struck, strict=True)
                    if _key(old) != _key(new)
                }
                if all(
                    _key(new) == _key(old) or (_key(old), _key(new)) in pairs
                    for old, new in zip(expected, values, strict=True)
                ):
                    return True
        return False

    def _right_rows(
        self, actual: Columns, golden: Columns, before: Columns, after: Columns
    ) -> bool:
        """Return True if all rows are equal that were not struck.

        A struck one may be missing, or be any single row. Struck rows as the fault left them may
        come anywhere: a quarantine lists them.
        """
        names = list(golden)
        hit, listed = _struck_rows(golden, before, after), _struck_rows(actual, after, before)
        rows, place, allowed = _rows(actual, names), 0, 0
        if hit != listed:
            rows = [row for number, row in enumerate(rows) if number not in listed]
        for number, row in enumerate(_rows(golden, names)):
            if number in hit:
                allowed += 1
                continue
            while place < len(rows) and not self._equal(rows[place], row):
                if not allowed:
                    return False
                # A filled row may equal its neighbour, so it is allowed later, too.
                allowed, place = allowed - 1, place + 1
            if place == len(rows):
                return False
            place += 1
        return len(rows) - place <= allowed and bool(hit or listed)

    def _equal(self, one: list[Any], other: list[Any]) -> bool:
        """Compare computed columns, with the tolerance."""
        if len(one) != len(other):
            return False
        for here, there in zip(map(_plain, one), map(_plain, other), strict=True):
            if here == there:
                continue
            numbers = all(
                isinstance(value, (int, float)) and not isinstance(value, bool)
                for value in (here, there)
            )
            if not numbers or not abs(here - there) <= self._atol + self._rtol * abs(there):
                return False
        return True


def _moved(old: Columns, new: Columns) -> list[int] | None:
    """Return the old places of columns in a new order, or None if the order is the same."""
    names = list(old)
    if old.keys() != new.keys() or names == list(new):
        return None
    return [names.index(name) for name in new]


def _tables(actual: Any, golden: Any) -> list[tuple[Columns, Columns]]:
    """Return both values as tables, in each way that is possible."""
    one, other = _columns(actual), _columns(golden)
    if isinstance(actual, list) and not actual and other is not None:
        one = {name: [] for name in other}
    if isinstance(golden, list) and not golden and one is not None:
        other = {name: [] for name in one}
    if one is None or other is None:
        return []
    found = [(one, other)]
    if isinstance(actual, Mapping) and isinstance(golden, Mapping) and len(actual) > 1:
        scalars = all(isinstance(value, _SCALARS) for value in (*actual.values(), *golden.values()))
        if scalars and list(actual) == list(golden):  # a column by the keys of its rows
            found.append(({None: list(actual.values())}, {None: list(golden.values())}))
    return found


def _rows(columns: Columns, names: Sequence[Any]) -> list[list[Any]]:
    return [list(row) for row in zip(*(columns[name] for name in names), strict=True)]


def _struck_rows(golden: Columns, before: Columns, after: Columns) -> set[int]:
    """Return the rows of the golden run that hold rows which a fault has struck.

    They are recognised by the columns that both tables have, or else by their numbers.
    """
    sizes = {len(column) for column in (*before.values(), *after.values())}
    if len(sizes) != 1:
        return set()  # the fault has changed the number of rows
    both = [name for name in before if name in after]
    hit = {
        row
        for name in both
        for row in range(*sizes)
        if _key(before[name][row]) != _key(after[name][row])
    }
    shared = [name for name in both if name in golden]
    if not shared:
        return hit if {len(column) for column in golden.values()} == sizes else set()
    rows = _rows(before, shared)
    struck = {tuple(map(_key, rows[row])) for row in hit}
    return {
        number
        for number, row in enumerate(_rows(golden, shared))
        if tuple(map(_key, row)) in struck
    }


def _parts(actual: Any, golden: Any) -> list[tuple[Any, Any]] | None:
    """Return the pairs of parts of two containers, or None if they have different parts."""
    if isinstance(actual, Mapping) and isinstance(golden, Mapping):
        if actual.keys() != golden.keys():
            return None
        return [(actual[name], golden[name]) for name in actual]
    if isinstance(actual, (list, tuple)) and isinstance(golden, (list, tuple)):
        if len(actual) != len(golden) or any(isinstance(one, _SCALARS) for one in actual):
            return None
        return list(zip(actual, golden, strict=True))
    return None


def _columns(value: Any) -> Columns | None:
    """Return the columns of a table, an array, or records. Return None for other values."""
    if isinstance(value, (list, tuple)):
        return _columns_of_list(list(value))
    if isinstance(value, Mapping):
        if value and all(isinstance(one, (list, tuple)) for one in value.values()):
            lists = {name: list(one) for name, one in value.items()}
            plain = all(isinstance(one, _SCALARS) for values in lists.values() for one in values)
            return lists if plain and len({len(one) for one in lists.values()}) == 1 else None
        # One record. Its values are columns of one row.
        if value and all(isinstance(one, _SCALARS) for one in value.values()):
            return {name: [one] for name, one in value.items()}
        return None
    if hasattr(value, "column_names") and hasattr(value, "to_pydict"):  # Arrow
        return dict(value.to_pydict())
    if hasattr(value, "columns") and hasattr(value, "shape"):  # pandas and polars
        names = list(value.columns)
        if len(set(names)) < len(names):
            return None
        return {name: list(value[name].to_list()) for name in names}
    if hasattr(value, "to_list") and hasattr(value, "name"):
        return {value.name: list(value.to_list())}
    return _columns_of_array(value)


def _columns_of_list(value: list[Any]) -> Columns | None:
    if value and all(isinstance(row, Mapping) for row in value):
        names = dict.fromkeys(name for row in value for name in row)
        return {name: [row.get(name) for row in value] for name in names}
    if value and all(isinstance(one, _SCALARS) for one in value):
        return {None: value}
    return None


def _columns_of_array(value: Any) -> Columns | None:
    if not (hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "tolist")):
        return None
    fields = getattr(value.dtype, "names", None)
    if fields:
        return {name: value[name].tolist() for name in fields}
    if len(value.shape) == 1:
        return {None: value.tolist()}
    if len(value.shape) == 2:
        rows = value.tolist()
        return {place: [row[place] for row in rows] for place in range(value.shape[1])}
    return None


def _plain(value: Any) -> Any:
    """Return a value of Python. A missing value is None."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    try:
        return None if value is None or value != value else value
    except (TypeError, ValueError):  # pandas' NA has no truth value
        return None


def _type(values: list[Any]) -> Any:
    """Return the type of the values, which a fault may change without changing them."""
    return next((type(one) for one in map(_plain, values) if one is not None), None)


def _key(value: Any) -> Any:
    value = _plain(value)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _same(one: list[Any], other: list[Any]) -> bool:
    """Compare copies, without a tolerance."""
    return len(one) == len(other) and all(
        _key(here) == _key(there) for here, there in zip(one, other, strict=True)
    )

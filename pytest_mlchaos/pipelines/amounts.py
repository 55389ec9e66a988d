"""Count the rows of values and files, and read the keys of records in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from ..core.privacy import error_text, key_text
from ..core.records import FileState
from ..errors import NotExactlyOnce
from ..oracles.record_keys import KeyFunction
from ..oracles.stored_tables import LINES, format_of, read_tables

__all__ = ["amount_text", "count_rows", "stored_keys", "value_amounts"]


def amount_text(path: str, state: FileState) -> str:
    """Return the amount in a file, as far as its state tells it."""
    return (
        f"{state.lines} lines" if path.endswith(LINES) else "empty" if not state.size else "a file"
    )


def value_amounts(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield the number of rows or items at each position of a value."""
    if isinstance(value, Mapping):
        for place, (name, item) in enumerate(value.items()):
            yield from value_amounts(item, f"{path}[{key_text(name, place, len(value))}]")
    elif (
        (hasattr(value, "shape") and hasattr(value, "dtype"))
        or hasattr(value, "columns")
        or hasattr(value, "num_rows")
    ):
        yield path, f"{_rows(value)} rows"
    elif isinstance(value, Sized) and not isinstance(value, (str, bytes)):
        items = list(value) if isinstance(value, (list, tuple)) else []
        nested = all(
            isinstance(item, Sized) and not isinstance(item, (str, bytes, Mapping))
            for item in items
        )
        rows = sum(map(_rows, items)) if nested else 0  # a batch in a list may have lost rows
        yield path, f"{len(value)} items" + (f" with {rows} rows" if rows else "")
    else:
        yield path, "nothing" if value is None else "a value"


def _rows(value: Any) -> int:
    shape = getattr(value, "shape", None)
    return (int(shape[0]) if len(shape) else 1) if shape is not None else len(value)


def count_rows(
    name: str, path: Path | None, kind: str | None = None
) -> tuple[str | None, dict[str, str] | None]:
    """Return the format of a file, and the amount in each of its tables.

    The amounts are None if they are unknown. ``kind`` is the format that it must have.
    """
    expected, kind = kind, kind or (None if path is None else format_of(path))
    if path is None or kind is None:
        return None, None
    try:
        tables = read_tables(path, kind)
    except ImportError:
        return None, None
    except Exception as error:  # noqa: BLE001  # libraries raise anything for damaged files
        if expected is None:
            return None, None
        return kind, {name: f"cannot be read ({error_text(error)})"}
    return kind, {
        f"{name}[{key_text(table.name, place, len(tables))}]" if table.name else name: (
            f"{table.rows} {table.unit}{'' if table.rows == 1 else 's'}"
        )
        for place, table in enumerate(tables)
    }


def stored_keys(name: str, path: Path | None, key: KeyFunction) -> Iterator[Any]:
    """Yield the keys of the records in a file.

    Raise ``NotExactlyOnce`` if it cannot be read.
    """
    kind = None if path is None else format_of(path)
    if path is None or kind is None or not isinstance(key, str):
        return
    try:
        tables = read_tables(path, kind)
        for table in tables:
            yield from table.column(key) or ()
    except ImportError:
        return
    except Exception as error:
        raise NotExactlyOnce(f"{name} cannot be read: {error_text(error)}") from error

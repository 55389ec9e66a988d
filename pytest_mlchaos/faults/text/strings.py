"""Find strings in batches and arguments, and replace many of them at once."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...core.privacy import path_text
from ..batches.pytree import children, is_array

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

__all__ = ["Texts", "describe_texts", "replace_texts", "texts"]

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Texts:
    """One part of a batch that holds strings, and its path.

    It is a string, a list of strings, an array, or the text columns of a table. ``put(strings)``
    returns a copy of the part, of the same type, with these strings.
    """

    path: Path
    strings: Sequence[Any]
    put: Callable[[list[Any]], Any]

    @property
    def name(self) -> str:
        """Return the path, with dots."""
        return path_text(self.path) or "text"


def texts(
    value: Any, kinds: tuple[type, ...] = (str,), path: Path = (), *, single: bool = False
) -> Iterator[Texts]:
    """Yield every part of a value that holds strings of these types, in order.

    A list of strings is one part, or one part per string if ``single`` is true.
    """
    if isinstance(value, kinds):
        yield Texts(path, [value], lambda strings: strings[0])
    elif (
        not single
        and type(value) in (list, tuple)
        and len(value) > 1
        and set(map(type, value)) <= set(kinds)
    ):
        yield Texts(path, value, type(value))
    elif is_array(value):
        yield from _of_array(value, kinds, path)
    elif _is_table(value):
        yield from _of_table(value, kinds, path)
    else:
        for name, child in children(value):
            yield from texts(child, kinds, (*path, name), single=single)


def _of_array(array: np.ndarray[Any, Any], kinds: tuple[type, ...], path: Path) -> Iterator[Texts]:
    """Yield a NumPy array of strings (also ``StringDType``), or of objects some of which are
    strings.
    """
    import numpy as np

    if array.dtype.kind not in "UOTS" or not array.size:
        return
    flat = array.ravel().tolist()
    places = [place for place, item in enumerate(flat) if isinstance(item, kinds)]

    def put(strings: list[Any]) -> Any:
        for place, string in zip(places, strings, strict=True):
            flat[place] = string
        if array.dtype.kind not in "US":
            fresh = np.empty(len(flat), array.dtype)
            fresh[:] = flat
        else:
            fresh = np.array(flat)
            if fresh.dtype.itemsize < array.dtype.itemsize:
                fresh = fresh.astype(array.dtype)
        return fresh.reshape(array.shape)

    if places:
        yield Texts(path, [flat[place] for place in places], put)


def _is_table(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.Series, pandas.DataFrame, pandas.Index))


def _of_series(series: Any, kinds: tuple[type, ...], path: Path) -> Iterator[Texts]:
    items = (
        series.tolist()
        if str(series.dtype) in ("object", "str") or str(series.dtype).startswith("string")
        else []
    )
    places = [place for place, item in enumerate(items) if isinstance(item, kinds)]

    def put(strings: list[Any]) -> Any:
        for place, string in zip(places, strings, strict=True):
            items[place] = string
        fresh = sys.modules["pandas"].Series(
            items, index=series.index, name=series.name, dtype=series.dtype
        )
        fresh.attrs = dict(series.attrs)
        return fresh

    if places:
        yield Texts(path, [items[place] for place in places], put)


def _of_table(table: DataFrame, kinds: tuple[type, ...], path: Path) -> Iterator[Texts]:
    """Yield a pandas Series, or the text columns of a DataFrame, by position: columns may share a
    name.
    """
    if table.ndim == 1:
        if not isinstance(table, sys.modules["pandas"].Index):
            yield from _of_series(table, kinds, path)
        return
    for place, name in enumerate(table.columns):
        yield from _of_series(table.iloc[:, place], kinds, (*path, _Column(place, str(name))))


class _Column(str):
    """A column's name that knows its position."""

    __slots__ = ("place",)

    def __new__(cls, place: int, name: str) -> _Column:
        made = super().__new__(cls, name)
        # Mypy does not see the slots of str subclasses
        made.place = place  # type: ignore[attr-defined]
        return made

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, _Column) else str(self) == other

    __hash__ = str.__hash__


def replace_texts(value: Any, chosen: Sequence[Texts], strings: Sequence[Any]) -> Any:
    """Return the value with the strings of the chosen parts replaced, in their order.

    Parts without a chosen string stay the same objects.
    """
    from ..batches.pytree import rebuilt

    left = iter(strings)
    fresh = {
        place.path: place.put(list(itertools.islice(left, len(place.strings)))) for place in chosen
    }
    tables: dict[Path, list[tuple[Any, Any]]] = {}
    for path in list(fresh):
        if path and isinstance(path[-1], _Column):
            tables.setdefault(path[:-1], []).append((path[-1], fresh.pop(path)))
    for path, columns in tables.items():
        table = value
        for name in path:
            table = dict(children(table))[name]
        table = table.copy(deep=False)
        for name, column in columns:
            table.isetitem(name.place, column)
        fresh[path] = table
    return rebuilt(value, fresh)


def describe_texts(value: object) -> str:
    """Return the types in a value, for example ``dict(prompt: str, n: int)``."""
    parts = [
        f"{path_text([name])}: {describe_texts(child)}" for name, child in list(children(value))[:8]
    ]
    shape = f"{list(value.shape)}" if hasattr(value, "shape") else ""
    return f"{type(value).__name__}({', '.join(parts)})" if parts else type(value).__name__ + shape

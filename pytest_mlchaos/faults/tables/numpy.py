"""Adapt NumPy arrays as tables: structured arrays, and arrays with two axes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .base import Column, Table, UnsupportedColumn, carrier
from .copies import pick, with_others

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NumpyColumn", "NumpyTable", "fit_dtype"]

_KINDS = {
    "f": "float",
    "i": "integer",
    "u": "integer",
    "b": "boolean",
    "U": "text",
    "S": "text",
    "M": "time",
}
_SECONDS = {
    "W": 604800.0,
    "D": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
}


def fit_dtype(values: Any, dtype: Any) -> Any:
    """Return numbers in the dtype of a column, rounded and clipped for integers."""
    import numpy as np

    if dtype.kind not in "iu" or values.dtype.kind not in "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    lowest, highest = (
        float(limits.min),
        float(np.nextafter(float(limits.max), 0)) if dtype.itemsize == 8 else float(limits.max),
    )
    return np.clip(np.rint(values), lowest, highest).astype(dtype)


class NumpyColumn(Column):
    """An array. A change returns a new array, in the same dtype if it can hold the values.

    A field may have an array in each row. Such a value is missing if all of its elements are.
    """

    def __init__(self, name: Any, values: np.ndarray[Any, Any]) -> None:
        self.name = name
        self.values = values
        self.size = len(values)
        self.dtype = (
            str(values.dtype) if values.ndim == 1 else f"{values.dtype}{list(values.shape[1:])}"
        )
        self.kind = _KINDS.get(values.dtype.kind, "other") if values.ndim == 1 else "other"
        if self.kind == "other" and values.dtype.kind == "O" and values.ndim == 1:
            self.kind = _kind_of_objects(values)

    def nulls(self) -> Any:
        """Return which values are NaN, NaT or None. In a dtype without these, the empty text is
        missing.
        """
        return self._nulls

    @functools.cached_property
    def _nulls(self) -> Any:
        import numpy as np

        if self.values.dtype.kind == "f":
            with np.errstate(all="ignore"):
                # faster than a check of each value
                if not self.values.size or not np.isnan(np.minimum.reduce(self.values, axis=None)):
                    return None
        if self.values.dtype.kind in "fcmM":
            found = np.isnan(self.values)  # also finds NaT
        elif self.values.dtype.kind == "O":
            found = _missing(self.values)
        elif self.values.dtype.kind in "US":
            found = self.values == self.values.dtype.type()
        else:
            return None
        if found.ndim > 1:
            found = found.all(axis=tuple(range(1, found.ndim)))
        return found if found.any() else None

    def numbers(self) -> Any:
        """Return the array itself, or int64 for times and timedeltas."""
        return self.values.view("i8") if self.values.dtype.kind in "mM" else self.values

    def codes(self) -> Any:
        """Return numbers as they are, and texts by their rank."""
        import numpy as np

        if self.kind in (*NUMBERS_AND_TIMES, "boolean") or (
            self.values.dtype.kind == "m" and self.values.ndim == 1
        ):
            codes = self.numbers().astype(np.float64)
        elif self.kind == "text":
            codes = np.unique(self.values.astype(str), return_inverse=True)[1].astype(np.float64)
        else:
            raise UnsupportedColumn(f"of the dtype {self.dtype} has no order")
        nulls = self.nulls()
        if nulls is not None:
            codes[nulls] = np.nan
        return codes

    def without(self, where: np.ndarray[Any, Any]) -> Any:
        """Return the column with missing values. Integers and truth values become float64, as in a
        file with gaps.
        """
        kind = self.values.dtype.kind
        if kind in "US":
            return with_others(self.values, where, "")  # genfromtxt gives this for a missing text
        if kind not in "iubfcMmO":
            raise UnsupportedColumn(f"of the dtype {self.dtype} has no missing value")
        nothing = None if kind == "O" else "NaT" if kind in "mM" else float("nan")
        return with_others(self.values, where, nothing, "f8" if kind in "iub" else None)

    def with_numbers(self, where: np.ndarray[Any, Any], values: Any) -> Any:
        """Return the column with other numbers in the same dtype."""
        dtype = self.values.dtype
        return with_others(
            self.values,
            where,
            values.astype(dtype) if dtype.kind == "M" else fit_dtype(values, dtype),
        )

    def of_type(self, dtype: Any) -> Column:
        """Return the column in that dtype."""
        return NumpyColumn(self.name, self.values.astype(dtype))

    def texts(self, where: np.ndarray[Any, Any]) -> list[str]:
        """Return the texts. Bytes are read as Latin-1."""
        found = self.values[where].tolist()
        return [value.decode("latin-1") if isinstance(value, bytes) else value for value in found]

    def with_texts(self, where: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        """Return the column with other texts. It is wider if a text is longer than all so far."""
        import numpy as np

        if self.values.dtype.kind == "O":
            fresh, others = self.values.copy(), np.empty(len(texts), dtype=object)
            others[:] = texts
            fresh[where] = others
            return fresh
        given = [text.encode("utf-8") for text in texts] if self.values.dtype.kind == "S" else texts
        other = np.array(given, dtype=self.values.dtype.kind)
        fresh = self.values.astype(np.promote_types(self.values.dtype, other.dtype))
        fresh[where] = other
        return fresh

    def with_category(self, where: np.ndarray[Any, Any], value: Any) -> Any:
        """Return the column with a text, or with the number itself."""
        if self.kind == "text":
            return self.with_texts(where, [value] * len(where))
        fresh = self.values.copy()
        fresh[where] = value
        return fresh

    def holds(self, value: Any) -> bool:
        """Return True if a value is equal."""
        wanted = (
            value.encode("utf-8")
            if self.values.dtype.kind == "S" and isinstance(value, str)
            else value
        )
        return bool((self.values == wanted).any())

    def same(self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]) -> Any:
        """Compare element by element. NaN equals NaN."""
        assert isinstance(other, NumpyColumn)  # columns of one table are of one kind
        ours, theirs = pick(self.values, where), pick(other.values, there)
        if ours.dtype.kind == "O":
            found = _same_objects(ours.ravel(), theirs.ravel()).reshape(ours.shape)
        else:
            found = (ours == theirs) | ((ours != ours) & (theirs != theirs))
        return found.all(axis=tuple(range(1, found.ndim)))

    def replaced(
        self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]
    ) -> Any:
        """Replace element by element."""
        assert isinstance(other, NumpyColumn)
        return with_others(self.values, where, pick(other.values, there))

    def ticks_per_second(self) -> float:
        """Return the ticks of the dtype's unit."""
        import numpy as np

        unit, count = np.datetime_data(self.values.dtype)
        if unit not in _SECONDS:
            raise UnsupportedColumn(f"of the dtype {self.dtype} does not count seconds")
        return 1 / (_SECONDS[unit] * count)

    def in_zone(self, seconds: int) -> Any:
        """Shift the wall-clock values, because ``datetime64`` has no zone."""
        ticks = round(seconds * self.ticks_per_second())
        if not ticks:
            raise UnsupportedColumn(f"of the dtype {self.dtype} is too coarse for {seconds} s")
        return self.values + ticks

    def recoded(self, order: np.ndarray[Any, Any]) -> Any:
        """Refuse: NumPy has no dtype for categories."""
        raise UnsupportedColumn(f"of the dtype {self.dtype} has no list of categories")

    def category_count(self) -> int:
        """Refuse: NumPy has no dtype for categories."""
        return 0

    def as_text(self) -> Any:
        """Return texts of the needed width. A missing value is an empty text."""
        texts, nulls = self.values.astype("U"), self.nulls()
        if nulls is not None:
            texts[nulls] = ""
        return texts

    def as_float(self) -> Any:
        """Return the values as float64."""
        return self.values.astype("f8")


NUMBERS_AND_TIMES = ("float", "integer", "time")


def _missing(objects: np.ndarray[Any, Any]) -> Any:
    """Return which objects are None, NaN, or missing to pandas."""
    import numpy as np

    pandas = sys.modules.get("pandas")
    if pandas is not None:
        return pandas.isna(objects)
    return np.fromiter(
        (value is None or value != value for value in objects.ravel()), bool, objects.size
    ).reshape(objects.shape)


def _same_objects(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> Any:
    """Return which objects are equal. Missing values are equal, and arrays are compared by
    identity.
    """
    import numpy as np

    gone, lacking = _missing(ours), _missing(theirs)
    both = gone & lacking
    try:
        return np.asarray(ours == theirs, dtype=bool) | both
    except (TypeError, ValueError):
        return (
            np.fromiter(
                (one is other for one, other in zip(ours, theirs, strict=True)), bool, len(ours)
            )
            | both
        )


def _kind_of_objects(values: np.ndarray[Any, Any]) -> str:
    """Return the kind text if all values that are not missing are texts."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        return "text" if pandas.api.types.infer_dtype(values, skipna=True) == "string" else "other"
    found = {type(value) for value in values.tolist() if value is not None and value == value}
    return "text" if found == {str} else "other"


class NumpyTable(Table):
    """An array with fields, or one with two axes, whose columns have numbers as names and share one
    dtype.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self.rows = int(value.shape[0])
        self.named = value.dtype.names is not None
        self.names = list(value.dtype.names) if self.named else list(range(value.shape[1]))

    def _values(self, place: int) -> Any:
        import numpy as np

        plain = self.value.view(np.ndarray)
        return plain[self.names[place]] if self.named else plain[:, place]

    def column(self, place: int) -> Column:
        """Return the column in contiguous memory, which is faster to read again."""
        import numpy as np

        return NumpyColumn(self.names[place], np.ascontiguousarray(self._values(place)))

    def dtype(self, place: int) -> str:
        """Return NumPy's name of the dtype."""
        return str(self.value.dtype[place] if self.named else self.value.dtype)

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return a copy with other columns.

        If a dtype differs, fields differ. With two axes, all columns get a dtype that holds both.
        """
        import numpy as np

        if not self.named:
            dtype = (
                np.result_type(self.value.dtype, *columns.values())
                if self.value.dtype.kind != "O"
                else self.value.dtype
            )
            if dtype.kind == "U" and self.value.dtype.kind != "U":
                # Else all columns would become texts.
                columns = {
                    place: columns.get(place, self.column(place).as_text())
                    for place in range(len(self.names))
                }
            fresh = self._like(self.value.astype(dtype))
            for place, values in columns.items():
                fresh[:, place] = values
            return fresh
        if all(values.dtype == self.value.dtype[place] for place, values in columns.items()):
            fresh = self._like(self.value.copy())
            for place, values in columns.items():
                fresh[self.names[place]] = values
            return fresh
        return self._built(
            [
                (name, columns.get(place, self._values(place)))
                for place, name in enumerate(self.names)
            ]
        )

    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the array with these fields or columns."""
        if not self.named:
            return self.value[:, list(positions)]
        return self._built([(self.names[place], self._values(place)) for place in positions])

    def renamed(self, place: int, name: object) -> Any:
        """Return the array with a renamed field."""
        if not self.named:
            raise UnsupportedColumn("its columns have no names")
        names = [name if here == place else old for here, old in enumerate(self.names)]
        return self._built([(new, self._values(here)) for here, new in enumerate(names)])

    def numbered(self, name: object) -> Any:
        """Return the array with one more field, or one more column of the same dtype."""
        import numpy as np

        if not self.named:
            count = np.arange(self.rows).astype(self.value.dtype)
            return self._like(np.concatenate([count[:, None], self.value], axis=1))
        return self._built(
            [
                (name, np.arange(self.rows)),
                *((old, self._values(here)) for here, old in enumerate(self.names)),
            ]
        )

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return a copy with the rows in that order."""
        return self.value[rows]

    def kept(self) -> Any:
        """Return a copy."""
        return self.value.copy()

    def followed_by(self, other: object) -> Any:
        """Return both arrays in one."""
        import numpy as np

        return self._like(np.concatenate([self.value, other]))

    def _built(self, columns: list[tuple[Any, Any]]) -> Any:
        import numpy as np

        fresh = np.empty(
            self.rows, dtype=[(name, values.dtype, values.shape[1:]) for name, values in columns]
        )
        for name, values in columns:
            fresh[name] = values
        return self._like(fresh)

    def _like(self, fresh: np.ndarray[Any, Any]) -> Any:
        """Return the array in the same class. A recarray stays one, but a memory map becomes an
        array.
        """
        import numpy as np

        kind = type(self.value)
        if kind is np.recarray and fresh.dtype.type is not np.record:
            fresh = fresh.view(np.dtype((np.record, fresh.dtype)))
        return fresh if kind is np.memmap else fresh.view(kind)


@carrier
def adapt_numpy(value: object) -> Table | None:
    """Adapt an array with two axes, or a structured one. A masked array is not a table."""
    numpy = sys.modules.get("numpy")
    if (
        numpy is None
        or not isinstance(value, numpy.ndarray)
        or isinstance(value, numpy.ma.MaskedArray)
    ):
        return None
    return NumpyTable(value) if value.ndim == (2 if value.dtype.names is None else 1) else None

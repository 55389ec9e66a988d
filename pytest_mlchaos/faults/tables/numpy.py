"""NumPy arrays as tables: structured ones, and those with two axes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .base import Column, Table, UnsupportedColumn
from .copies import pick, with_others

__all__ = ["NumpyColumn", "NumpyTable", "fit_dtype"]

_KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "boolean", "U": "text", "S": "text", "M": "time"}
_SECONDS = {"W": 604800.0, "D": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def fit_dtype(values: Any, dtype: Any) -> Any:
    """Numbers in the dtype of a column: rounded for one of integers, and within its range."""
    import numpy as np

    if dtype.kind not in "iu" or values.dtype.kind not in "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    lowest, highest = float(limits.min), float(np.nextafter(float(limits.max), 0)) if dtype.itemsize == 8 else float(limits.max)
    return np.clip(np.rint(values), lowest, highest).astype(dtype)


class NumpyColumn(Column):
    """An array; what changes it gives another one, of the same dtype if that can hold it.

    Of more than one axis is a field that has an array in each row: such a value is missing where all of it is.
    """

    def __init__(self, name: Any, values: Any) -> None:
        self.name = name
        self.values = values
        self.size = len(values)
        self.dtype = str(values.dtype) if values.ndim == 1 else f"{values.dtype}{list(values.shape[1:])}"
        self.kind = _KINDS.get(values.dtype.kind, "other") if values.ndim == 1 else "other"
        if self.kind == "other" and values.dtype.kind == "O" and values.ndim == 1:
            self.kind = _kind_of_objects(values)

    def nulls(self) -> Any:
        """NaN, NaT, None, and the empty text where a dtype knows nothing else."""
        return self._nulls

    @functools.cached_property
    def _nulls(self) -> Any:
        import numpy as np

        if self.values.dtype.kind == "f":
            with np.errstate(all="ignore"):
                if not self.values.size or not np.isnan(np.minimum.reduce(self.values, axis=None)):  # faster than to ask for each
                    return None
        if self.values.dtype.kind in "fcmM":
            found = np.isnan(self.values)  # NaT, too
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
        """The array itself; of times and spans of time, int64."""
        return self.values.view("i8") if self.values.dtype.kind in "mM" else self.values

    def codes(self) -> Any:
        """Numbers as they are, texts by their rank."""
        import numpy as np

        if self.kind in (*NUMBERS_AND_TIMES, "boolean") or (self.values.dtype.kind == "m" and self.values.ndim == 1):
            codes = self.numbers().astype(np.float64)
        elif self.kind == "text":
            codes = np.unique(self.values.astype(str), return_inverse=True)[1].astype(np.float64)
        else:
            raise UnsupportedColumn(f"of the dtype {self.dtype} has no order")
        nulls = self.nulls()
        if nulls is not None:
            codes[nulls] = np.nan
        return codes

    def without(self, where: Any) -> Any:
        """Integers and truth values become float64, as when a file with gaps is read."""
        kind = self.values.dtype.kind
        if kind in "US":
            return with_others(self.values, where, "")  # what genfromtxt gives for a missing text
        if kind not in "iubfcMmO":
            raise UnsupportedColumn(f"of the dtype {self.dtype} has no missing value")
        nothing = None if kind == "O" else "NaT" if kind in "mM" else float("nan")
        return with_others(self.values, where, nothing, "f8" if kind in "iub" else None)

    def with_numbers(self, where: Any, values: Any) -> Any:
        """In the same dtype."""
        dtype = self.values.dtype
        return with_others(self.values, where, values.astype(dtype) if dtype.kind == "M" else fit_dtype(values, dtype))

    def of_type(self, dtype: Any) -> Column:
        """As that."""
        return NumpyColumn(self.name, self.values.astype(dtype))

    def texts(self, where: Any) -> list[str]:
        """Bytes as Latin-1."""
        found = self.values[where].tolist()
        return [value.decode("latin-1") if isinstance(value, bytes) else value for value in found]

    def with_texts(self, where: Any, texts: Sequence[str]) -> Any:
        """Wider where a text is longer than all so far."""
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

    def with_category(self, where: Any, value: Any) -> Any:
        """A text, or the number itself."""
        if self.kind == "text":
            return self.with_texts(where, [value] * len(where))
        fresh = self.values.copy()
        fresh[where] = value
        return fresh

    def holds(self, value: Any) -> bool:
        """By comparison with each."""
        wanted = value.encode("utf-8") if self.values.dtype.kind == "S" and isinstance(value, str) else value
        return bool((self.values == wanted).any())

    def same(self, where: Any, other: Column, there: Any) -> Any:
        """Element by element; NaN is as NaN."""
        assert isinstance(other, NumpyColumn)  # columns of one table are of one kind
        ours, theirs = pick(self.values, where), pick(other.values, there)
        if ours.dtype.kind == "O":
            found = _same_objects(ours.ravel(), theirs.ravel()).reshape(ours.shape)
        else:
            found = (ours == theirs) | ((ours != ours) & (theirs != theirs))
        return found.all(axis=tuple(range(1, found.ndim)))

    def replaced(self, where: Any, other: Column, there: Any) -> Any:
        """Element by element."""
        assert isinstance(other, NumpyColumn)
        return with_others(self.values, where, pick(other.values, there))

    def ticks_per_second(self) -> float:
        """By the dtype's unit."""
        import numpy as np

        unit, count = np.datetime_data(self.values.dtype)
        if unit not in _SECONDS:
            raise UnsupportedColumn(f"of the dtype {self.dtype} does not count seconds")
        return 1 / (_SECONDS[unit] * count)

    def in_zone(self, seconds: int) -> Any:
        """They have no zone: the reading is another."""
        ticks = round(seconds * self.ticks_per_second())
        if not ticks:
            raise UnsupportedColumn(f"of the dtype {self.dtype} is too coarse for {seconds} s")
        return self.values + ticks

    def recoded(self, order: Any) -> Any:
        """There is no such dtype."""
        raise UnsupportedColumn(f"of the dtype {self.dtype} has no list of categories")

    def category_count(self) -> int:
        """There is no such dtype."""
        return 0

    def as_text(self) -> Any:
        """Texts of as many characters as it takes; what is missing is an empty one."""
        texts, nulls = self.values.astype("U"), self.nulls()
        if nulls is not None:
            texts[nulls] = ""
        return texts

    def as_float(self) -> Any:
        """As float64."""
        return self.values.astype("f8")


NUMBERS_AND_TIMES = ("float", "integer", "time")


def _missing(objects: Any) -> Any:
    """None, NaN, and what else pandas takes for nothing."""
    import numpy as np

    pandas = sys.modules.get("pandas")
    if pandas is not None:
        return pandas.isna(objects)
    return np.fromiter((value is None or value != value for value in objects.ravel()), bool, objects.size).reshape(objects.shape)


def _same_objects(ours: Any, theirs: Any) -> Any:
    """Missing is as missing; of what has no truth value when it is compared, such as arrays, identity."""
    import numpy as np

    gone, lacking = _missing(ours), _missing(theirs)
    both = gone & lacking
    try:
        return np.asarray(ours == theirs, dtype=bool) | both
    except (TypeError, ValueError):
        return np.fromiter((one is other for one, other in zip(ours, theirs, strict=True)), bool, len(ours)) | both


def _kind_of_objects(values: Any) -> str:
    """Text, if all that is there is text."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        return "text" if pandas.api.types.infer_dtype(values, skipna=True) == "string" else "other"
    found = {type(value) for value in values.tolist() if value is not None and value == value}
    return "text" if found == {str} else "other"


class NumpyTable(Table):
    """An array with fields; or one with two axes, whose columns have numbers for names and share one dtype."""

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
        """In one stretch of memory, which each further look at it is faster for."""
        import numpy as np

        return NumpyColumn(self.names[place], np.ascontiguousarray(self._values(place)))

    def dtype(self, place: int) -> str:
        """NumPy's own word."""
        return str(self.value.dtype[place] if self.named else self.value.dtype)

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """A copy; where a dtype is another, of other fields (or, with two axes, of a dtype that holds both)."""
        import numpy as np

        if not self.named:
            dtype = np.result_type(self.value.dtype, *columns.values()) if self.value.dtype.kind != "O" else self.value.dtype
            if dtype.kind == "U" and self.value.dtype.kind != "U":  # all come as texts then
                columns = {place: columns.get(place, self.column(place).as_text()) for place in range(len(self.names))}
            fresh = self._like(self.value.astype(dtype))
            for place, values in columns.items():
                fresh[:, place] = values
            return fresh
        if all(values.dtype == self.value.dtype[place] for place, values in columns.items()):
            fresh = self._like(self.value.copy())
            for place, values in columns.items():
                fresh[self.names[place]] = values
            return fresh
        return self._built([(name, columns.get(place, self._values(place))) for place, name in enumerate(self.names)])

    def arranged(self, positions: Sequence[int]) -> Any:
        """Other fields, or other columns."""
        if not self.named:
            return self.value[:, list(positions)]
        return self._built([(self.names[place], self._values(place)) for place in positions])

    def renamed(self, place: int, name: Any) -> Any:
        """Another name for a field."""
        if not self.named:
            raise UnsupportedColumn("its columns have no names")
        names = [name if here == place else old for here, old in enumerate(self.names)]
        return self._built([(new, self._values(here)) for here, new in enumerate(names)])

    def numbered(self, name: Any) -> Any:
        """One more field, or one more column of the same dtype."""
        import numpy as np

        if not self.named:
            count = np.arange(self.rows).astype(self.value.dtype)
            return self._like(np.concatenate([count[:, None], self.value], axis=1))
        return self._built([(name, np.arange(self.rows)), *((old, self._values(here)) for here, old in enumerate(self.names))])

    def taken(self, rows: Any) -> Any:
        """A copy in that order."""
        return self.value[rows]

    def kept(self) -> Any:
        """A copy."""
        return self.value.copy()

    def followed_by(self, other: Any) -> Any:
        """Both, one behind the other."""
        import numpy as np

        return self._like(np.concatenate([self.value, other]))

    def _built(self, columns: list[tuple[Any, Any]]) -> Any:
        import numpy as np

        fresh = np.empty(self.rows, dtype=[(name, values.dtype, values.shape[1:]) for name, values in columns])
        for name, values in columns:
            fresh[name] = values
        return self._like(fresh)

    def _like(self, fresh: Any) -> Any:
        """As the same class of array (a recarray stays one; what was mapped from a file is in memory now)."""
        import numpy as np

        kind = type(self.value)
        if kind is np.recarray and fresh.dtype.type is not np.record:
            fresh = fresh.view(np.dtype((np.record, fresh.dtype)))
        return fresh if kind is np.memmap else fresh.view(kind)

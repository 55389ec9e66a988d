"""Adapt pandas' DataFrames and Series of any dtype."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .arrow import ArrowColumn
from .base import Column, Table, UnsupportedColumn, ahead, carrier
from .numpy import NumpyColumn, fit_dtype

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["PandasTable"]

MIN_COLUMNWISE_ROWS = 1 << 16
"""From this number of rows on, rows are taken column by column."""


class _ExtensionColumn(Column):
    """A column of an extension dtype.

    These are nullable numbers, categories, times with a zone, texts as objects, and sparse values.
    """

    def __init__(self, name: Any, values: pd.Series) -> None:
        import pandas as pd

        self.name = name
        self.array = values
        self.size = len(values)
        self.dtype = str(values.dtype)
        self._sparse = isinstance(values.dtype, pd.SparseDtype)
        self.kind = self._kind()

    def _kind(self) -> str:
        import pandas as pd

        dtype = self.array.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            return "category"
        if isinstance(dtype, pd.StringDtype):
            return "text"
        if self._sparse:
            dtype = dtype.subtype
        elif isinstance(dtype, (pd.PeriodDtype, pd.IntervalDtype)):
            return "other"
        return {"f": "float", "i": "integer", "u": "integer", "b": "boolean", "M": "time"}.get(
            dtype.kind, "other"
        )

    def nulls(self) -> Any:
        """Return the missing values as pandas reports them."""
        import numpy as np

        found = np.asarray(self.array.isna())
        return found if found.any() else None

    def numbers(self) -> Any:
        """Return times as int64, and nullable numbers in their NumPy dtype."""
        import numpy as np

        if self.kind == "time":
            return self.array.asi8
        if self._sparse:
            return np.asarray(self.array)
        if self.kind not in ("float", "integer", "boolean"):
            raise UnsupportedColumn(f"of the dtype {self.dtype} holds no numbers")
        return self.array.to_numpy(dtype=self.array.dtype.numpy_dtype, na_value=0)

    def codes(self) -> Any:
        """Return numbers as they are, and texts and categories by their rank."""
        import numpy as np
        import pandas as pd

        if self.kind == "category":
            codes = self.array.codes.astype(np.float64)
        elif self.kind == "text":
            codes = pd.factorize(self.array, sort=True)[0].astype(np.float64)
        elif isinstance(self.array.dtype, pd.PeriodDtype):
            codes = self.array.asi8.astype(np.float64)
        elif self.kind == "other":
            raise UnsupportedColumn(f"of the dtype {self.dtype} has no order")
        else:
            codes = self.numbers().astype(np.float64)
        nulls = self.nulls()
        if nulls is not None:
            codes[nulls] = np.nan
        return codes

    def without(self, where: np.ndarray[Any, Any]) -> Any:
        """Return the column with pandas' own missing value."""
        import pandas as pd

        if self._sparse:
            dense = NumpyColumn(self.name, self.numbers()).without(where)
            return pd.arrays.SparseArray(
                dense, fill_value=dense.dtype.type(self.array.dtype.fill_value)
            )
        return self._set(where, pd.NA if self.kind != "time" else pd.NaT)

    def _set(self, where: np.ndarray[Any, Any], values: pd.Series) -> Any:
        fresh = self.array.copy()
        try:
            fresh[where] = values
        except (TypeError, ValueError):
            raise UnsupportedColumn(
                f"of the dtype {self.dtype} does not take such values"
            ) from None
        return fresh

    def with_numbers(self, where: np.ndarray[Any, Any], values: pd.Series) -> Any:
        """Return the column with other numbers in the same dtype."""
        import pandas as pd

        if self._sparse:
            dense = NumpyColumn(self.name, self.numbers()).with_numbers(where, values)
            return pd.arrays.SparseArray(dense, dtype=self.array.dtype)
        if self.kind == "time":
            ticks = self.array.asi8.copy()
            ticks[where] = values
            zone = getattr(self.array.dtype, "tz", None)
            plain = pd.DatetimeIndex(ticks.view(f"M8[{self.array.unit}]"))
            return (plain if zone is None else plain.tz_localize("UTC").tz_convert(zone)).array
        return self._set(where, fit_dtype(values, self.array.dtype.numpy_dtype))

    def of_type(self, dtype: Any) -> Column:
        """Return the column in the nullable dtype of the same name, or sparse."""
        import pandas as pd

        if self._sparse:
            return _ExtensionColumn(
                self.name,
                self.array.astype(pd.SparseDtype(dtype, dtype.type(self.array.dtype.fill_value))),
            )
        return _ExtensionColumn(
            self.name,
            self.array.astype(
                dtype.name.replace("i", "I", 1).replace("uI", "UI").replace("f", "F")
            ),
        )

    def texts(self, where: np.ndarray[Any, Any]) -> list[str]:
        """Return the texts as Python strings."""
        return [str(text) for text in self.array[where]]

    def with_texts(self, where: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        """Return the column with other texts in the same dtype."""
        return self._set(where, list(texts))

    def with_category(self, where: np.ndarray[Any, Any], value: Any) -> Any:
        """Return the column with one more category."""
        import numpy as np

        if self._sparse:
            return self.with_numbers(where, np.full(len(where), value))
        if self.kind != "category":
            return self._set(where, value)
        fresh = self.array.add_categories([value])
        fresh[where] = value
        return fresh

    def holds(self, value: Any) -> bool:
        """Return True if the list of categories, or a value, is equal."""
        if self.kind == "category":
            return value in self.array.categories
        equal = self.array == value
        return bool((equal.fillna(False) if hasattr(equal, "fillna") else equal).any())

    def same(self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]) -> Any:
        """Compare element by element."""
        import numpy as np

        assert isinstance(other, _ExtensionColumn)
        ours, theirs = self.array.take(where), other.array.take(there)
        missing = np.asarray(ours.isna()), np.asarray(theirs.isna())
        pairs = zip(ours, theirs, *missing, strict=True)
        return np.fromiter(
            (a and b if a or b else bool(one == two) for one, two, a, b in pairs), bool, len(ours)
        )

    def replaced(
        self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]
    ) -> Any:
        """Replace element by element."""
        assert isinstance(other, _ExtensionColumn)
        if self._sparse:
            return self.with_numbers(where, other.numbers()[there])
        return self._set(where, other.array.take(there))

    def ticks_per_second(self) -> float:
        """Return the ticks of the dtype's unit."""
        return {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[self.array.unit]

    def in_zone(self, seconds: int) -> Any:
        """Return the same moments in a different zone, by the offset of the first one."""
        present = self.array[~self.array.isna()]
        if not len(present):
            raise UnsupportedColumn("has no values")
        return self.array.tz_convert(ahead(present[0].utcoffset(), seconds))

    def recoded(self, order: np.ndarray[Any, Any]) -> Any:
        """Return the column with its list of categories in a different order."""
        return self.array.reorder_categories(self.array.categories.take(order))

    def category_count(self) -> int:
        """Return the length of the list of categories."""
        return len(self.array.categories) if self.kind == "category" else 0

    def as_text(self) -> Any:
        """Return the values as pandas writes them."""
        import numpy as np

        return _texts(np.asarray(self.array.astype("str"), dtype=object), self.nulls())

    def as_float(self) -> Any:
        """Return floats. Nullable numbers stay nullable."""
        return self.array.astype("float64" if self._sparse else "Float64")


class _PlainColumn(NumpyColumn):
    """A column of a NumPy dtype."""

    def as_text(self) -> Any:
        """Return the values as pandas' texts, which can be missing."""
        return _texts(self.values.astype("U").astype(object), self.nulls())


def _texts(texts: np.ndarray[Any, Any], nulls: np.ndarray[Any, Any]) -> Any:
    """Return texts in the dtype that pandas infers. Missing values stay missing."""
    import pandas as pd

    if nulls is not None:
        texts = texts.copy()
        texts[nulls] = None
    inferred = pd.Series(texts).infer_objects()
    return texts if inferred.dtype == object else inferred.array


class _ArrowBacked(ArrowColumn):
    """A column that Arrow holds for pandas. A change returns an array of pandas."""

    def __init__(self, name: Any, values: pd.Series) -> None:
        super().__init__(name, values.__arrow_array__())
        self.dtype = str(values.dtype)


def _held(array: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> Any:
    """Return the values in a container of pandas. Texts keep the dtype of the array."""
    import numpy as np
    import pandas as pd

    if isinstance(values, (np.ndarray, pd.api.extensions.ExtensionArray)):
        return values
    if isinstance(array.dtype, pd.StringDtype):
        return pd.array(values, dtype=array.dtype)
    return pd.arrays.ArrowExtensionArray(values)


class PandasTable(Table):
    """A DataFrame, or a Series as a table of one column. Index, attributes and class are kept."""

    def __init__(self, value: Any) -> None:
        import pandas as pd

        self.value = value
        self.rows = len(value)
        self._series = isinstance(value, pd.Series)
        self.names = [value.name] if self._series else list(value.columns)
        self.named = not self._series

    def _column(self, place: int) -> Any:
        return self.value if self._series else self.value.iloc[:, place]

    def column(self, place: int) -> Column:
        """Return the column with an adapter for its array type."""
        import numpy as np
        import pandas as pd

        series, name = self._column(place), self.names[place]
        dtype = series.dtype
        if isinstance(dtype, np.dtype):
            return _PlainColumn(name, series.to_numpy())
        if isinstance(dtype, pd.ArrowDtype) or (
            isinstance(dtype, pd.StringDtype) and dtype.storage == "pyarrow"
        ):
            return _ArrowBacked(name, series.array)
        return _ExtensionColumn(name, series.array)

    def dtype(self, place: int) -> str:
        """Return pandas' name of the dtype."""
        return str(self.value.dtype if self._series else self.value.dtypes.iloc[place])

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return the table with other columns here. The rest is shared."""
        import pandas as pd

        if self._series:
            held = _held(self.value.array, columns[0])
            fresh = self.value._constructor(
                held, index=self.value.index, name=self.value.name, dtype=held.dtype
            )
            return fresh.__finalize__(self.value)
        fresh = self.value.copy(deep=False)
        for place, values in columns.items():
            held = _held(self._column(place).array, values)
            # objects must stay objects
            series = pd.Series(held, index=fresh.index, dtype=held.dtype, copy=False)
            fresh.isetitem(place, series)  # isetitem would copy a bare array once more
        return fresh

    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the table with these columns, copied as pandas does."""
        if self._series:
            raise UnsupportedColumn("a Series has one column")
        return self.value.iloc[:, list(positions)]

    def renamed(self, place: int, name: object) -> Any:
        """Return the table with a renamed column. The values are shared."""
        import pandas as pd

        if self._series:
            return self.value.rename(name)
        if isinstance(self.value.columns, pd.MultiIndex):
            raise UnsupportedColumn("its columns have names of several levels")
        names = [name if here == place else old for here, old in enumerate(self.names)]
        return self.value.set_axis(pd.Index(names, name=self.value.columns.name), axis=1)

    def numbered(self, name: object) -> Any:
        """Return the table with one more column. The rest is shared."""
        import numpy as np

        if self._series:
            raise UnsupportedColumn("a Series has one column")
        fresh = self.value.copy(deep=False)
        fresh.insert(0, name, np.arange(self.rows))
        return fresh

    def _counted(self, value: Any) -> Any:
        """Number the rows again if the index only counts them, as a reader would. Labels move with
        their rows.
        """
        import pandas as pd

        index = self.value.index
        if isinstance(index, pd.RangeIndex) and index.equals(pd.RangeIndex(self.rows)):
            value.index = pd.RangeIndex(len(value), name=index.name)
        return value

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return a copy with the rows in that order.

        A long table is copied column by column, which needs no large block of memory.
        """
        import numpy as np
        import pandas as pd

        if self._series or len(rows) < MIN_COLUMNWISE_ROWS:
            return self._counted(self.value.take(rows))
        rows, index, columns = np.asarray(rows), self.value.index.take(rows), {}
        for place in range(len(self.names)):
            series = self._column(place)
            values = (
                series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array
            ).take(rows)
            # objects must stay objects
            columns[place] = pd.Series(values, index=index, dtype=values.dtype, copy=False)
        fresh = self.value._constructor(pd.DataFrame(columns, index=index, copy=False))
        fresh.columns = self.value.columns
        return self._counted(fresh.__finalize__(self.value))

    def kept(self) -> Any:
        """Return a copy."""
        return self.value.copy()

    def followed_by(self, other: object) -> Any:
        """Return both tables in one."""
        import pandas as pd

        return self._counted(pd.concat([self.value, other])).__finalize__(self.value)


@carrier
def adapt_pandas(value: object) -> Table | None:
    """Adapt a DataFrame or a Series."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return PandasTable(value)
    return None

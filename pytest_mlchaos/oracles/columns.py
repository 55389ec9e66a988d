"""Read the data of a drift test as columns of numbers or categories."""

from __future__ import annotations

import dataclasses
import decimal
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.privacy import key_text
from ..errors import BadArgument

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ColumnValues", "columns_of"]

_NUMBERS = (numbers.Real, decimal.Decimal)


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnValues:
    """The values of one column that are present, and the number of those that are missing.

    ``kind`` is ``"numbers"`` (``values`` is a 1-D array), ``"categories"`` (``values`` is a list)
    or ``"mixed"``.
    """

    kind: str
    values: Any
    missing: int = 0

    @property
    def rows(self) -> int:
        """Return the number of rows, including those with missing values."""
        return len(self.values) + self.missing


def columns_of(data: Any, what: str) -> dict[Any, ColumnValues]:
    """Return the columns of a table by name. The name of one-dimensional data is None.

    Raise ``BadArgument``, which names ``what``, for any other data.
    """
    if isinstance(data, Mapping):
        named = list(data.items())
    elif (names := _names(data)) is not None:
        named = [(name, data[name]) for name in names]
    else:
        array = _array(data, what)
        if array.ndim not in (1, 2):
            raise BadArgument(
                f"{what} must be a column (one dimension) or a table (two), got {array.ndim} "
                f"dimensions: {_type(data)}"
            )
        if array.ndim == 1:
            return {None: _column(data, array, what)}
        named = [(place, array[:, place]) for place in range(array.shape[1])]
    found = {}
    for place, (name, values) in enumerate(named):
        called = f"{what}[{key_text(name, place, len(named), noun='column')}]"
        array = _array(values, called)
        if array.ndim != 1:
            raise BadArgument(
                f"{called} must have one dimension, got the shape {list(array.shape)}"
            )
        found[name] = _column(values, array, called)
    if not found:
        raise BadArgument(f"{what} must have one column or more, got a table without columns")
    if len({column.rows for column in found.values()}) > 1:
        raise BadArgument(
            f"{what} must have columns of one length, got "
            f"{', '.join(str(column.rows) for column in found.values())}"
        )
    return found


def _type(value: object) -> str:
    return type(value).__name__


def _names(data: object) -> list[Any] | None:
    """Return the column names of a data frame or table of any library."""
    names = getattr(data, "column_names", None)
    if names is None:
        names = getattr(data, "columns", None)
    if names is None or callable(names) or not hasattr(data, "__getitem__"):
        return None
    found = list(names)
    if len(set(found)) < len(found):
        raise BadArgument(
            f"a {_type(data)} with {len(found) - len(set(found))} duplicate names cannot be "
            f"judged. Rename the columns"
        )
    return found


def _array(data: Any, what: str) -> Any:
    """Return a NumPy array of anything array-like: tensors, series, and lists of numbers or texts."""
    import numpy as np

    if hasattr(data, "detach"):
        data = data.detach().cpu()
        return (data.float() if "bfloat16" in str(data.dtype) else data).numpy()
    if isinstance(data, (str, bytes)) or not (
        hasattr(data, "__array__") or isinstance(data, Iterable)
    ):
        raise BadArgument(
            f"{what} must be an array, a list, a tensor or a table, got {_type(data)}"
        )
    if not hasattr(data, "__array__"):
        data = [item.item() if getattr(item, "ndim", None) == 0 else item for item in data]
    try:
        array = np.asarray(data)
        # NumPy would turn a number among texts into a text
        if isinstance(data, list) and array.dtype.kind in "USb":
            array = np.asarray(data, dtype=object)
    except ValueError:
        raise BadArgument(
            f"{what} must have rows of one length, got a {_type(data)} whose rows differ"
        ) from None
    return array


def _column(data: Any, array: np.ndarray[Any, Any], what: str) -> ColumnValues:
    missing = 0
    if callable(getattr(data, "isna", None)):  # pandas has several kinds of missing values
        missing = int(data.isna().sum())
        array = data.dropna().to_numpy()
    if str(getattr(data, "dtype", "")) == "category":
        return ColumnValues("categories", array.tolist(), missing)
    kind = array.dtype.kind
    if kind == "f":
        import numpy as np

        empty = np.isnan(array)
        lost = int(np.count_nonzero(empty))
        array = array[~empty] if lost else array
        return ColumnValues(
            "numbers", array.astype("f4") if array.dtype.itemsize == 2 else array, missing + lost
        )
    if kind in "iu":
        return ColumnValues("numbers", array, missing)
    if kind in "bUST":
        return ColumnValues("categories", array.tolist(), missing)
    if kind == "O":
        return _of_objects(array.tolist(), missing)
    raise BadArgument(
        f"{what}: values of dtype {array.dtype} cannot be judged. Convert them to numbers or "
        f"categories"
    )


def _of_objects(values: Sequence[Any], missing: int) -> ColumnValues:
    import numpy as np

    there = [value for value in values if not _is_missing(value)]
    missing += len(values) - len(there)
    count = sum(
        isinstance(value, _NUMBERS) and not isinstance(value, (bool, np.bool_)) for value in there
    )
    if count and count == len(there):
        return ColumnValues("numbers", np.array(there, dtype=float), missing)
    return ColumnValues("mixed" if count else "categories", there, missing)


def _is_missing(value: object) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA does not convert to a bool
        return True

"""Read the data of a drift test as columns of numbers, times, categories or vectors."""

from __future__ import annotations

import dataclasses
import datetime
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
    """The values of one column that are present, in the order of the rows.

    ``kind`` is ``"numbers"`` (``values`` is a 1-D array), ``"times"`` (a 1-D array of microseconds
    since 1970), ``"categories"`` (a list), ``"vectors"`` (a 2-D array) or ``"mixed"``. ``present``
    is a mask of the rows that have a value, or None if all have one.
    """

    kind: str
    values: Any
    missing: int = 0
    present: Any = None

    @property
    def rows(self) -> int:
        """Return the number of rows, including those with missing values."""
        return len(self.values) + self.missing

    def take(self, rows: Any) -> ColumnValues:
        """Return the column with only some rows.

        Args:
            rows: The numbers of these rows, as an array.
        """
        import numpy as np

        if self.present is None:
            return dataclasses.replace(self, values=_pick(self.values, rows))
        there = self.present[rows]
        places = (np.cumsum(self.present) - 1)[rows[there]]
        lost = len(rows) - int(there.sum())
        return ColumnValues(self.kind, _pick(self.values, places), lost, there if lost else None)


def _pick(values: Any, places: Any) -> Any:
    return [values[place] for place in places] if isinstance(values, list) else values[places]


def columns_of(data: Any, what: str, *, vectors: bool = False) -> dict[Any, ColumnValues]:
    """Return the columns of a table by name. The name of a single column is None.

    Raise ``BadArgument``, which names ``what``, for any other data.

    Args:
        data: A column or a table.
        what: The name of the data, for messages.
        vectors: True if data of two dimensions are one column of vectors, not a table.
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
        if array.ndim == 1 or vectors:
            return {None: _column(data, array, what)}
        named = [(place, array[:, place]) for place in range(array.shape[1])]
    found = {}
    for place, (name, values) in enumerate(named):
        called = f"{what}[{key_text(name, place, len(named), noun='column')}]"
        array = _array(values, called)
        if array.ndim not in (1, 2):
            raise BadArgument(
                f"{called} must have one dimension, or two for vectors, got the shape "
                f"{list(array.shape)}"
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
    import numpy as np

    if array.ndim == 2:
        return _of_vectors(array, what)
    there = None
    if callable(getattr(data, "isna", None)):  # pandas has several kinds of missing values
        there = ~np.asarray(data.isna(), dtype=bool)
        array = data.dropna().to_numpy()
    if str(getattr(data, "dtype", "")) == "category":
        return _made("categories", array.tolist(), there)
    kind = array.dtype.kind
    if kind in "fM":
        known = ~(np.isnan(array) if kind == "f" else np.isnat(array))
        if not known.all():
            there, array = _both(there, known), array[known]
        if kind == "M":
            return _made("times", array.astype("M8[us]").astype("i8"), there)
        return _made("numbers", array.astype("f4") if array.dtype.itemsize == 2 else array, there)
    if kind == "m":
        known = ~np.isnat(array)
        return _made("numbers", array[known].astype("m8[us]").astype("i8"), _both(there, known))
    if kind in "iu":
        return _made("numbers", array, there)
    if kind in "bUST":
        return _made("categories", array.tolist(), there)
    if kind == "O":
        return _of_objects(array.tolist(), there, what)
    raise BadArgument(
        f"{what}: values of dtype {array.dtype} cannot be judged. Convert them to numbers or "
        f"categories"
    )


def _both(there: Any, known: Any) -> Any:
    """Return the mask of the rows that are in ``there``, and whose value is ``known``."""
    if there is None:
        return known
    there = there.copy()
    there[there] = known
    return there


def _made(kind: str, values: Any, there: Any) -> ColumnValues:
    missing = 0 if there is None else len(there) - int(there.sum())
    return ColumnValues(kind, values, missing, there if missing else None)


def _of_vectors(array: np.ndarray[Any, Any], what: str) -> ColumnValues:
    import numpy as np

    if array.dtype.kind not in "fiub" or not array.shape[1]:
        raise BadArgument(
            f"{what} must be rows of numbers, got the shape {list(array.shape)} of {array.dtype}"
        )
    vectors = array.astype("f8")
    known = ~np.isnan(vectors).any(1)
    return _made("vectors", vectors[known], known)


def _of_objects(values: Sequence[Any], there: Any, what: str) -> ColumnValues:
    import numpy as np

    known = np.array([not _is_missing(value) for value in values], dtype=bool)
    found = [value for value, is_there in zip(values, known, strict=True) if is_there]
    there = _both(there, known)
    if found and all(_is_vector(value) for value in found):
        if len({len(value) for value in found}) > 1:
            raise BadArgument(f"{what} must hold vectors of one length")
        return _made_of(_of_vectors(_array(found, what), what), there)
    count = sum(
        isinstance(value, _NUMBERS) and not isinstance(value, (bool, np.bool_)) for value in found
    )
    if count and count == len(found):
        return _made("numbers", np.array(found, dtype=float), there)
    if found and all(isinstance(value, datetime.date) for value in found):
        zones = {getattr(value, "tzinfo", None) is None for value in found}
        if len(zones) == 1:
            return _made("times", np.array([_microseconds(one) for one in found]), there)
        return _made("mixed", found, there)
    return _made("mixed" if count else "categories", found, there)


def _made_of(column: ColumnValues, there: Any) -> ColumnValues:
    """Return a column of only those rows of a table that are in ``there``."""
    known = column.present
    return _made(column.kind, column.values, there if known is None else _both(there, known))


def _is_vector(value: object) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1


def _microseconds(value: datetime.date) -> int:
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    zone = None if value.tzinfo is None else datetime.UTC
    return (value - datetime.datetime(1970, 1, 1, tzinfo=zone)) // datetime.timedelta(
        microseconds=1
    )


def _is_missing(value: object) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA does not convert to a bool, nor do vectors
        return not _is_vector(value)

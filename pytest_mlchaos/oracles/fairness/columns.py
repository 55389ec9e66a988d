"""Read labels, predictions, scores and groups of any library as NumPy arrays."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.privacy import key_text, kind_text, label_text
from ...errors import BadArgument

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["Groups", "column_of", "is_positive", "numbers_of", "read_groups"]

MOST_GROUPS = 1_000
"""More groups than this are refused, because they are hardly meant."""
MOST_COUNTED = 1 << 22
"""Numbers up to this one are counted instead of sorted (32 MB)."""
MOST_INTEGERS = 1 << 16
"""Integers in a range up to this size are counted instead of sorted."""


@dataclasses.dataclass(frozen=True)
class Groups:
    """The group of each sample, as a number, and the names of the groups for messages."""

    names: list[str]
    codes: Array

    def __len__(self) -> int:
        return len(self.names)

    def members(self) -> list[Array]:
        """Return the positions of the samples of each group."""
        import numpy as np

        # NumPy sorts integers of 16 bits by counting them.
        order = np.argsort(self.codes.astype(np.uint16), kind="stable")
        return np.split(order, np.cumsum(self.counts()).astype(int)[:-1])

    def counts(self, weights: Array | None = None) -> Array:
        """Return the number of samples in each group, or the sum of their weights."""
        import numpy as np

        return np.bincount(self.codes, weights=weights, minlength=len(self.names)).astype(float)


def column_of(values: Any, owner: str, name: str, size: int | None = None) -> Array:
    """Return a 1-D array without missing values, of the given size.

    Raises:
        BadArgument: The values have a different size or more axes, are empty, mix texts and
            numbers, or some are missing.
    """
    import numpy as np

    if values is None or isinstance(values, (str, bytes, Mapping)):
        got = "None" if values is None else kind_text(values)
        raise BadArgument(f"{owner}: {name} must have one value for each sample, got {got}")
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    if not hasattr(values, "__array__"):
        values = list(values)
        if len({isinstance(value, (str, bytes)) for value in values if value is not None}) > 1:
            raise BadArgument(f"{owner}: {name} mixes texts and numbers. Give one type")
        if any(value is None for value in values) or any(map(_is_container, values)):
            values = _objects(values)
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise BadArgument(
            f"{owner}: {name} must have one value for each sample, got the shape {array.shape}"
        )
    if not len(array):
        raise BadArgument(f"{owner}: {name} is empty")
    if size is not None and len(array) != size:
        raise BadArgument(
            f"{owner}: {name} must have one value for each of the {size:,} samples, got "
            f"{len(array):,}"
        )
    missing = _missing(array)
    if missing.any():
        raise BadArgument(
            f"{owner}: {name} has {int(missing.sum()):,} missing values, the first at position "
            f"{int(missing.argmax())}. Remove these samples, or give them a value that says what "
            f"they mean"
        )
    return array


def _is_container(value: object) -> bool:
    return isinstance(value, (list, tuple, dict, set))


def _objects(values: list[Any]) -> Array:
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _missing(array: Array) -> Array:
    import numpy as np

    if array.dtype.kind in "fc":
        return np.isnan(array)
    if array.dtype.kind in "mM":
        return np.isnat(array)
    none = np.zeros(len(array), dtype=bool)
    if array.dtype.kind != "O":
        return none
    values = array.tolist()
    try:
        if not any(map(_is_missing, set(values))):
            return none
    except TypeError:  # values that cannot be hashed
        pass
    return np.fromiter(map(_is_missing, values), bool, len(values))


def _is_missing(value: Any) -> bool:
    """Return True for None, and for what differs from itself: NaN, and pandas' NA.

    A comparison with NA gives NA, not a bool.
    """
    return value is None or (not hasattr(value, "__len__") and (value == value) is not True)


def numbers_of(values: Any, owner: str, name: str, size: int | None = None) -> Array:
    """Return finite numbers as an array of float64."""
    import numpy as np

    array = column_of(values, owner, name, size)
    try:
        numbers = array.astype(float)
    except (TypeError, ValueError):
        raise BadArgument(f"{owner}: {name} must be numbers, got {kind_text(array)}") from None
    if array.dtype.kind in "US" or not np.isfinite(numbers).all():
        what = "texts" if array.dtype.kind in "US" else "infinite values"
        raise BadArgument(f"{owner}: {name} must be finite numbers, got {what}")
    return numbers


def is_positive(labels: dict[str, Array], positive: object, owner: str) -> dict[str, Array]:
    """Return which labels are the positive class, for each named array of labels.

    Args:
        labels: The arrays of labels, by the name of their argument.
        positive: The positive class. None for 1 (or True) if all labels are 0 or 1.
        owner: The name of the oracle.
    """
    import numpy as np

    if positive is None:
        for name, array in labels.items():
            if array.dtype.kind == "b" or (
                array.dtype.kind in "iuf" and bool(((array == 0) | (array == 1)).all())
            ):
                continue
            scores = array.dtype.kind == "f" and bool((array != np.floor(array)).any())
            raise BadArgument(
                f"{owner}: {name} holds scores. Give labels (scores >= 0.5), or "
                f"metric='calibration'"
                if scores
                else f"{owner}: {name} has labels other than 0 and 1. Name the positive class "
                f"with positive="
            )
        return {name: array.astype(bool) for name, array in labels.items()}
    found = {name: np.asarray(array == positive) for name, array in labels.items()}
    if not any(bool(array.any()) for array in found.values()):
        raise BadArgument(f"{owner}: no label equals the class of positive=")
    return found


def read_groups(groups: Any, owner: str, size: int) -> Groups:
    """Return the group of each sample. Several columns give their intersections.

    Raises:
        BadArgument: There are fewer than two groups or too many, or a value is missing.
    """
    columns = _columns(groups, owner)
    found = [_factorise(values, owner, name, size) for name, values in columns]
    if len(columns) == 1:
        names, codes = found[0]
    else:
        labels = [label_text(name, place, len(columns)) for place, (name, _) in enumerate(columns)]
        names, codes = _intersections(labels, found, owner)
    if len(names) < 2:
        raise BadArgument(
            f"{owner}: groups must name at least two groups, got one. There is nothing to compare"
        )
    if len(names) > MOST_GROUPS:
        raise BadArgument(
            f"{owner}: groups has {len(names):,} different values. Give at most {MOST_GROUPS:,} "
            f"groups, for example ranges of a number"
        )
    return Groups(names, codes)


def _columns(groups: Any, owner: str) -> list[tuple[Any, Any]]:
    """Return the columns by name. A single column has the name None."""
    if isinstance(groups, Mapping):
        columns = list(groups.items())
    elif hasattr(groups, "columns") and hasattr(groups, "__getitem__"):
        columns = [(name, groups[name]) for name in groups.columns]
    elif len(getattr(groups, "shape", ())) == 2:
        columns = [(place, groups[:, place]) for place in range(groups.shape[1])]
    else:
        return [(None, groups)]
    if not columns:
        raise BadArgument(f"{owner}: groups has no columns")
    return columns


def _factorise(values: Any, owner: str, column: Any, size: int) -> tuple[list[str], Array]:
    """Return the names of the distinct values, and the number of each sample's value."""
    import numpy as np

    name = "groups" if column is None else f"groups[{key_text(column, 0, 1, noun='column')}]"
    array = column_of(values, owner, name, size)
    distinct: list[Any]
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
        distinct, codes = [False, True], array
        used = np.bincount(array, minlength=2) > 0
        if not used.all():
            distinct, codes = [bool(array[0])], np.zeros(size, dtype=np.intp)
    elif array.dtype.kind in "iu" and int(array.max()) - int(array.min()) < MOST_INTEGERS:
        low = int(array.min())
        shifted = (array - low).astype(np.intp)
        used = np.bincount(shifted) > 0
        distinct = [int(value) + low for value in np.flatnonzero(used)]
        codes = shifted if used.all() else (np.cumsum(used) - 1)[shifted]
    elif array.dtype.kind in "iuf":
        unique, codes = np.unique(array, return_inverse=True)
        distinct = unique.tolist()
    elif array.dtype.kind == "U":
        first, codes = _distinct_texts(array)
        distinct = array[first].tolist()
    else:
        distinct, codes = _distinct_objects(array.tolist(), owner, name)
    noun = "group"
    names = [
        str(value) if isinstance(value, bool) else key_text(value, place, len(distinct), noun=noun)
        for place, value in enumerate(distinct[: MOST_GROUPS + 1])
    ]
    names += [""] * (len(distinct) - len(names))
    return names, codes


def _distinct_texts(array: Array) -> tuple[Array, Array]:
    """Return the place of the first of each distinct text, and the number of each text.

    A count of characters, one position after the other, beats a sort of texts.
    """
    import numpy as np

    width = array.dtype.itemsize // 4
    characters = np.ascontiguousarray(array).view(np.uint32).reshape(len(array), width)
    codes = np.zeros(len(array), dtype=np.intp)
    for place in range(width):
        column = characters[:, place].astype(np.intp)
        low = int(column.min())
        span = int(column.max()) - low + 1
        if span == 1:
            continue
        codes = codes * span + (column - low)
        used = np.bincount(codes, minlength=1) > 0 if codes.max() < MOST_COUNTED else None
        codes = (
            np.unique(codes, return_inverse=True)[1]
            if used is None
            else (np.cumsum(used) - 1)[codes]
        )
    first = np.empty(int(codes.max()) + 1, dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first, codes


def _distinct_objects(values: list[Any], owner: str, name: str) -> tuple[list[Any], Array]:
    """Return the distinct values in a stable order, and their numbers. A dict beats a sort."""
    import numpy as np

    try:
        distinct = sorted(
            dict.fromkeys(values), key=lambda value: (type(value).__name__, str(value))
        )
    except TypeError:
        raise BadArgument(
            f"{owner}: {name} must hold single values, got {kind_text(values[0])}"
        ) from None
    numbers = {value: number for number, value in enumerate(distinct)}
    return distinct, np.fromiter(map(numbers.__getitem__, values), np.intp, len(values))


def _intersections(
    labels: list[str], found: list[tuple[list[str], Array]], owner: str
) -> tuple[list[str], Array]:
    """Return the combinations of values that occur."""
    import numpy as np

    total = 1
    codes = np.zeros(len(found[0][1]), dtype=np.intp)
    for names, column in found:
        total *= len(names)
        if total > MOST_INTEGERS:
            raise BadArgument(
                f"{owner}: groups has more than {MOST_INTEGERS:,} intersections. Give fewer columns"
            )
        codes = codes * len(names) + column
    used = np.flatnonzero(np.bincount(codes, minlength=total))
    every = itertools.product(*(names for names, _ in found))
    texts = [
        ", ".join(f"{label}={value}" for label, value in zip(labels, values, strict=True))
        for values in every
    ]
    compact = np.zeros(total, dtype=np.intp)
    compact[used] = np.arange(len(used))
    return [texts[place] for place in used], compact[codes]

"""Limit a fault to some rows of a table, or to some samples of a batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.faults import is_drawn
from ..core.sites import Visit
from ..core.validation import did_you_mean, format_value
from ..errors import BadArgument, PayloadMismatch
from .data_fault import DataFault

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RowFault", "matching"]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class RowFault(DataFault):
    """A fault that can be limited to some rows of a table, or to some samples of a batch.

    Args:
        rows: The rows or samples that it may strike: a dict of columns and values, such as
            ``{"group": "b"}``, or a function of one row (a dict of its columns or fields). A value
            of the dict may also be a list of values, or a function of one value. Fields of a batch
            without names have positions: ``{1: 3}``. Shares then count these rows alone. A dict
            given as ``where`` means the same. Without it, all rows.
    """

    rows: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.where, Mapping):
            if self.rows is not None:
                raise BadArgument(f"{self.name}: where= and rows= are both given. Give one")
            object.__setattr__(self, "rows", dict(self.where))
            object.__setattr__(self, "where", None)
        if self.rows is not None and not is_drawn(self.rows):
            is_dict = isinstance(self.rows, Mapping) and bool(self.rows)
            if not is_dict and not (callable(self.rows) and not isinstance(self.rows, type)):
                raise BadArgument(
                    f"{self.name}: rows must be a dict of columns and values, or a function of one "
                    f"row, got {format_value(self.rows)}"
                )
        super().__post_init__()

    def strike(self, visit: Visit) -> Any:
        """Strike the samples that ``rows`` names, as a batch of their own, and put them back."""
        if self.rows is None:
            return self.apply(visit)
        from .batches.base import Batch

        batch = Batch(self.name, visit.payload)
        places = matching(self, _samples(batch), batch.samples())
        if not len(places):
            visit.skip()
            return None
        if len(places) == batch.samples():
            return self.apply(visit)
        whole, visit.payload = visit.payload, batch.taken(places)
        try:
            part = self.apply(visit)
        finally:
            visit.payload = whole
        visit.note(samples=len(places), of=batch.samples())
        return None if part is None else batch.with_samples(places, part)


def matching(
    fault: RowFault, columns: Mapping[Any, Callable[[], Sequence[Any]]], size: int
) -> np.ndarray[Any, Any]:
    """Return the positions of the rows that ``fault.rows`` names.

    Args:
        fault: The fault.
        columns: For each column, a function that returns its values.
        size: The number of rows.

    Raises:
        PayloadMismatch: A named column does not exist.
    """
    import numpy as np

    if callable(fault.rows):
        values = {name: read() for name, read in columns.items()}
        found = [
            bool(fault.rows({name: column[place] for name, column in values.items()}))
            for place in range(size)
        ]
        return np.flatnonzero(np.array(found, dtype=bool))
    mask = np.ones(size, dtype=bool)
    for name, wanted in fault.rows.items():
        if name not in columns:
            hint = did_you_mean(str(name), [str(known) for known in columns])
            raise PayloadMismatch(f"{fault.name}: rows= names {name!r}, which is not there{hint}")
        mask &= np.fromiter(map(_rule(wanted), columns[name]()), bool, size)
    return np.flatnonzero(mask)


def _rule(wanted: Any) -> Callable[[Any], bool]:
    """Return a function that says if a value is wanted."""
    if callable(wanted):
        return lambda value: bool(wanted(value))
    if isinstance(wanted, (list, tuple, set, frozenset)):
        return lambda value: value in wanted
    return lambda value: bool(value == wanted)


def _samples(batch: Any) -> dict[Any, Callable[[], Sequence[Any]]]:
    """Return the fields of a batch by name, by dotted path, or by position."""
    found: dict[Any, Callable[[], Sequence[Any]]] = {}
    for field in batch.fields:
        name = field.path[0] if len(field.path) == 1 else ".".join(map(str, field.path))
        found[name if field.path else 0] = functools.partial(_values, field.value)
    return found


def _values(value: Any) -> Sequence[Any]:
    from .batches.pytree import Leaf

    if not hasattr(value, "shape"):
        return list(value)
    array = Leaf((), value).numpy()
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    found: Sequence[Any] = array.tolist() if array.ndim == 1 else list(array)
    return found

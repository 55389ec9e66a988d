"""Define faults of a table's columns, which are missing or changed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value
from ...errors import BadArgument
from .base import NUMBERS, Column, Table, UnsupportedColumn
from .fault import OneColumnFault

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MissingFeature", "SchemaDrift"]
LAYER = "Tables"


@register
class MissingFeature(OneColumnFault):
    """A column of a table is missing, or has no values.

    Args:
        mode: ``"gone"``: the column does not exist. ``"null"``: it exists, and each of its values
            is missing.

    Imitates: an upstream job that failed, a feature that was renamed at its source, an export with
    a field that is not filled any more.

    Fidelity: the column is missing from each table that the fault strikes, and from no other.

    Example: ``@chaos.missing_feature(column="age", mode="null", at=0)``
    """

    member_of: ClassVar = {"bad_data": 10}
    tried_as: ClassVar = ({"file": "*"}, {}, {"mode": "null"})
    mode: Literal["gone", "null"] = "gone"

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the table without the columns, or with missing values in them."""
        chosen = self._chosen(table, rng)
        visit.note(columns=[table.label(place) for place in chosen], mode=self.mode)
        try:
            if self.mode == "null":
                return table.replaced({place: _empty_column(table, place) for place in chosen})
            if len(chosen) == len(table.names):
                raise UnsupportedColumn("no column would be left")
            return table.arranged(
                [place for place in range(len(table.names)) if place not in chosen]
            )
        except UnsupportedColumn as why:
            raise self.refused(table, str(why)) from None

    def _chosen(self, table: Table, rng: np.random.Generator) -> list[int]:
        if self.column is not None:
            return self.wanted(table, self.column)
        full = self.fitting(table)
        if not full:
            raise self.refused(table, "no column has any values")
        return [self.one_of(full, rng)]

    def fitting(self, table: Table) -> list[int]:
        """Return all columns or, for ``mode="null"``, those that have values."""
        full = list(range(len(table.names)))
        if self.mode == "gone":
            return full
        return [
            place
            for place in full
            if (nulls := table.column(place).nulls()) is None or not nulls.all()
        ]


def _empty_column(table: Table, place: int) -> Any:
    import numpy as np

    column = table.column(place)
    nulls = column.nulls()
    if nulls is not None and nulls.all():
        raise UnsupportedColumn(f"the column {table.quoted(place)} has no values")
    try:
        return column.without(np.arange(column.size))
    except UnsupportedColumn as why:
        raise UnsupportedColumn(f"the column {table.quoted(place)} {why}") from None


_FITS = {
    "retyped": (*NUMBERS, "boolean", "time"),
    "category_codes": ("category", "integer"),
    "units": NUMBERS,
    "time_zone": ("time",),
    "float_for_int": ("integer",),
}
"""For the kinds that change values, the kinds of columns that they work on."""


@register
class SchemaDrift(OneColumnFault):
    """The columns of a table have changed.

    Args:
        kind: ``"renamed"``: a column has a different name. ``"reordered"``: the columns are in a
            different order, each with its name. ``"retyped"``: numbers, truth values and times come
            as texts. Missing values stay missing (in NumPy's arrays: an empty text). In a CSV file,
            all values are texts already, so fractions get a decimal comma there. ``"added"``:
            there is one more first column, which counts the rows, as if an index was written to a
            file. ``"dropped"``: a column is gone. ``"category_codes"``: the list of values of a
            category is in a different order, so its codes have different meanings. Columns of
            integer codes must be named. ``"units"``: numbers are ``factor`` times as large.
            Integers are rounded, and use the smallest dtype, from their own on, that holds them
            all: at most 64 bits, then float64. float16 and float32 are widened if they would
            overflow. ``"time_zone"``: times are on the clock of a different zone. With a zone, they
            are the same moments, at a constant offset from UTC. Without one, the readings differ.
            ``"float_for_int"``: integers come as floating-point numbers.
        column: A name, or a list of names. Without it, one that fits. For ``"reordered"``, these
            columns change places among each other, or all of them without it.
        to: For ``"renamed"``, the new name. Without it, its own with ``_1`` at the end. For
            ``"added"``, the name. Without it, ``"Unnamed: 0"``.
        factor: For ``"units"``, the factor.
        hours: For ``"time_zone"``, the hours that the zone is ahead.

    Imitates: a new version of an upstream table, a changed export, a loader that infers types from
    other rows.

    Fidelity: the offset of a zone is constant, without daylight saving time. A reordered table of
    NumPy with two axes has no names that would show it.

    Source: Breck et al., Data Validation for Machine Learning, MLSys 2019.

    Example: ``@chaos.schema_drift(kind="units", column="distance", at=0)``
    """

    member_of: ClassVar = {"bad_data": 20}
    tried_as: ClassVar = tuple(
        {"kind": kind, **where}
        for where in ({"file": "*"}, {})
        for kind in ("retyped", "reordered", "renamed", "added")
    )
    kind: Literal[
        "renamed",
        "reordered",
        "retyped",
        "added",
        "dropped",
        "category_codes",
        "units",
        "time_zone",
        "float_for_int",
    ] = "renamed"
    to: str | None = None
    factor: float = 1000.0
    hours: float = 2.0

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if is_drawn(self.kind):
            return
        for name, default, kinds in (
            ("to", None, ("renamed", "added")),
            ("factor", 1000.0, ("units",)),
            ("hours", 2.0, ("time_zone",)),
        ):
            if getattr(self, name) != default and self.kind not in kinds:
                raise BadArgument(
                    f"schema_drift: kind={self.kind!r} takes no {name}, got "
                    f"{format_value(getattr(self, name))}"
                )
        if self.column is not None and not is_drawn(self.column):
            several = isinstance(self.column, tuple)
            if self.kind == "added" or (
                (self.kind == "reordered") != several and self.kind in ("reordered", "renamed")
            ):
                wanted = {
                    "added": "no column",
                    "reordered": "a list of columns",
                    "renamed": "one column",
                }[self.kind]
                raise BadArgument(
                    f"schema_drift: kind={self.kind!r} takes {wanted}, got "
                    f"{format_value(self.column)}"
                )
        if not is_drawn(self.factor) and (
            self.factor in (0, 1) or not abs(self.factor) < float("inf")
        ):
            raise BadArgument(
                f"schema_drift: factor must be finite and neither 0 nor 1, got "
                f"{format_value(self.factor)}"
            )
        if not is_drawn(self.hours) and (not self.hours or abs(self.hours) >= 24):
            raise BadArgument(
                f"schema_drift: hours must be an offset below 24 h, not 0, got "
                f"{format_value(self.hours)}"
            )

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the table of a different schema version."""
        visit.note(kind=self.kind)
        try:
            if self.kind == "reordered":
                return table.arranged(self._order(table, rng))
            if self.kind == "added":
                return table.numbered(self._free(table, self.to or "Unnamed: 0"))
            if self.kind in _FITS:
                return self._values(table, rng, visit)
            return self._columns(table, rng, visit)
        except UnsupportedColumn as why:
            raise self.refused(table, str(why)) from None

    def _order(self, table: Table, rng: np.random.Generator) -> list[int]:
        moving = (
            list(range(len(table.names)))
            if self.column is None
            else sorted(self.wanted(table, self.column))
        )
        if len(moving) < 2:
            raise UnsupportedColumn("one column has no other order")
        drawn = rng.permutation(len(moving))
        if (drawn[:-1] < drawn[1:]).all():
            drawn = drawn[::-1]
        order = list(range(len(table.names)))
        for place, other in zip(moving, drawn, strict=True):
            order[place] = moving[int(other)]
        return order

    def _free(self, table: Table, name: str) -> str:
        if table.named and name in table.names:
            raise UnsupportedColumn(
                f"there is a column {table.quoted(table.names.index(name))} already. Give a "
                f"different name with to="
            )
        return name

    def _columns(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the table with a renamed or dropped column."""
        chosen = (
            self.wanted(table, self.column)
            if self.column is not None
            else [self.one_of(self.fitting(table), rng)]
        )
        visit.note(columns=[table.label(place) for place in chosen])
        if self.kind == "renamed":
            if not table.named:
                raise UnsupportedColumn("its columns have no names")
            return table.renamed(
                chosen[0], self._free(table, self.to or f"{table.names[chosen[0]]}_1")
            )
        if len(chosen) == len(table.names):
            raise UnsupportedColumn("no column would be left")
        return table.arranged([place for place in range(len(table.names)) if place not in chosen])

    def _values(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the table with changed values or types, in the named columns or in one that fits."""
        order = (
            self.wanted(table, self.column)
            if self.column is not None
            else [int(place) for place in rng.permutation(len(table.names))]
            if self.spot is None
            else self._from(self.spot, self.fitting(table))
        )
        fresh: dict[int, Any] = {}
        for place in order:
            try:
                fresh[place] = self._changed(table.column(place), rng)
            except UnsupportedColumn as why:
                if self.column is not None:
                    raise UnsupportedColumn(f"the column {table.quoted(place)} {why}") from None
                continue
            if self.column is None:
                break
        if not fresh:
            raise UnsupportedColumn(f"it has no column that kind={self.kind!r} can change")
        visit.note(columns=[table.label(place) for place in fresh])
        return table.replaced(fresh)

    def _from(self, spot: int, places: list[int]) -> list[int]:
        """Return the places in their order, from one of them on."""
        start = spot % len(places) if places else 0
        return places[start:] + places[:start]

    def fitting(self, table: Table) -> list[int]:
        """Return the columns that ``kind`` fits."""
        every = list(range(len(table.names)))
        if self.kind in ("reordered", "added"):
            return []
        if self.kind not in _FITS:
            return every
        fits = self._fits()
        found = []
        for place in every:
            with contextlib.suppress(UnsupportedColumn):
                if table.column(place).kind in fits:
                    found.append(place)
        return found

    def _fits(self) -> tuple[str, ...]:
        """Return the kinds of columns that ``kind`` fits."""
        if self.kind == "category_codes" and self.column is None:
            return ("category",)
        return _FITS[self.kind]

    def _changed(self, column: Column, rng: np.random.Generator) -> Any:
        fits = self._fits()
        if column.kind not in fits:
            raise UnsupportedColumn(
                f"is of the dtype {column.dtype}, which is not {' or '.join(fits)}"
            )
        if self.kind == "retyped":
            return column.as_text()
        if self.kind == "float_for_int":
            return column.as_float()
        if self.kind == "time_zone":
            return column.in_zone(round(self.hours * 3600))
        return self._scaled(column) if self.kind == "units" else _recode(column, rng)

    def _scaled(self, column: Column) -> Any:
        import numpy as np

        nulls = column.nulls()
        where = np.arange(column.size) if nulls is None else np.flatnonzero(~nulls)
        old = column.numbers()[where]
        if not old.any():
            raise UnsupportedColumn("holds only zeros, which no factor changes")
        new, dtype = (
            _integers(old, self.factor) if column.kind == "integer" else _floats(old, self.factor)
        )
        held = column if dtype == old.dtype.newbyteorder("=") else column.of_type(dtype)
        return held.with_numbers(where, new)


def _integers(old: Any, factor: float) -> tuple[Any, Any]:
    """Return integers times a factor, in the smallest dtype that holds them.

    It is not smaller than their own. An integer factor loses no digit.
    """
    import numpy as np

    whole = float(factor).is_integer()
    new = None if whole else np.rint(old.astype(np.float64) * factor)
    ends = (
        (int(old.min()) * int(factor), int(old.max()) * int(factor))
        if new is None
        else (int(new.min()), int(new.max()))
    )
    sign = "u" if old.dtype.kind == "u" and min(ends) >= 0 else "i"
    for dtype in (np.dtype(f"{sign}{size}") for size in (1, 2, 4, 8) if size >= old.dtype.itemsize):
        limits = np.iinfo(dtype)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return (old.astype(f"{sign}8") * int(factor) if new is None else new), dtype
    return old.astype(np.float64) * factor, np.dtype(np.float64)


def _floats(old: Any, factor: float) -> tuple[Any, Any]:
    """Return numbers times a factor, in the smallest dtype that keeps them finite, at most float64."""
    import numpy as np

    finite = np.isfinite(old)
    for dtype in (np.dtype(f"f{size}") for size in (2, 4) if size >= old.dtype.itemsize):
        with np.errstate(over="ignore", invalid="ignore"):
            new = old.astype(dtype) * dtype.type(factor)
        if np.isfinite(new[finite]).all():
            return new, dtype
    dtype = max(old.dtype.newbyteorder("="), np.dtype(np.float64), key=lambda dtype: dtype.itemsize)
    return old.astype(dtype) * factor, dtype


def _recode(column: Column, rng: np.random.Generator) -> Any:
    """Return the categories in a different order. Integers get different codes instead."""
    import numpy as np

    if column.kind == "category":
        count = column.category_count()
        if count < 2:
            raise UnsupportedColumn("has fewer than two categories")
        return column.recoded(_derangement(count, rng))
    nulls = column.nulls()
    where = np.arange(column.size) if nulls is None else np.flatnonzero(~nulls)
    codes, inverse = np.unique(column.numbers()[where], return_inverse=True)
    if len(codes) < 2:
        raise UnsupportedColumn("has fewer than two codes")
    return column.with_numbers(where, codes[_derangement(len(codes), rng)][inverse])


def _derangement(count: int, rng: np.random.Generator) -> Any:
    """Return a permutation that moves each element: a cycle through all of them."""
    import numpy as np

    cycle = rng.permutation(count)
    order = np.empty(count, dtype=np.int64)
    order[cycle] = np.roll(cycle, 1)
    return order

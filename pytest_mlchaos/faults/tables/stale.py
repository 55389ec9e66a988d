"""Define values of a table that are older than the program believes."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.storage import StoredFile
from ...core.validation import format_value, index, parse_duration
from ...engine import virtual_time
from ...engine.changes import fingerprint
from ...errors import BadArgument, PayloadMismatch
from .base import NUMBERS, Column, Table, UnsupportedColumn, all_same, places, table_of
from .fault import MAX_REDRAWS, ColumnFault, Spot

if TYPE_CHECKING:
    import numpy as np

__all__ = ["StaleFeature"]
LAYER = "Tables"

STALE_SHARES = {"fraction": (0.1, 0.25, 0.5, 0.75, 1.0)}
MAX_KEYS = 10_000
"""The number of different calls whose earlier values are kept."""
MAX_AGES = 1_000
"""The number of values of one call that are kept for ``age``."""
_EPOCH_UNITS = ((1e8, 1.0), (1e11, 1e3), (1e14, 1e6), (1e17, 1e9))
"""For numbers from the first on: the ticks per second, if they count time since 1970."""


@register
class StaleFeature(ColumnFault):
    """Values of a column are from an earlier time.

    A row that has no value now gets the earlier one. If the earlier value is missing, it is missing
    now.

    Args:
        column: A name, or a list of names. Without it, all columns. With ``age``, all columns of
            dates and times. A named column may also hold numbers that count the time since 1970.
        fraction: The share of the rows that is hit, at least one. In a single record without
            ``column``, the share of its fields.
        behind: ``"rows"``: the values come from ``lag`` rows before, in the same table. The first
            ``lag`` rows stay. ``"tables"``: they come from the same row of an earlier table with
            the same columns, as far as it goes. This cannot strike the first such table. A single
            record has no rows before, so its values always come from an earlier call with the same
            arguments.
        lag: The number of rows, or of tables or records.
        age: The age of the values, such as ``"2d"``. If a call with the same arguments returned a
            table that long ago on the test's clock, its values come back. Otherwise the times in
            the table move back by the age, so that it says itself that it is old.

    Imitates: a feature store that was not refreshed, a cache that outlived its data, a join with
    yesterday's snapshot.

    Fidelity: rows are matched by position, not by key. If only the times move back, the other
    values are fresh.

    Example: ``@chaos.stale_feature(column="balance", lag=3, at=0)``
    """

    scales = STALE_SHARES
    fraction: float = 1.0
    behind: Literal["rows", "tables"] = "rows"
    lag: int = 1
    age: Any = None

    def check(self) -> None:
        """Check the parameters, and convert ``age`` to seconds."""
        super().check()
        if not is_drawn(self.lag) and not index(self.lag):
            raise BadArgument(f"stale_feature: lag must be 1 or more, got {format_value(self.lag)}")
        if self.age is None or is_drawn(self.age):
            return
        seconds = parse_duration(self.age, "stale_feature: age")
        if not seconds:
            raise BadArgument(
                f"stale_feature: age must be a duration above 0 ('2d'), got "
                f"{format_value(self.age)}"
            )
        if self.lag != 1 or self.behind != "rows":
            raise BadArgument(
                "stale_feature: age, and behind or lag, exclude each other. Give one of them"
            )
        object.__setattr__(self, "age", seconds)

    def observe(self, visit: Visit) -> None:
        """Keep the last tables of each kind, or of each call."""
        payload = visit.payload
        if isinstance(payload, StoredFile):
            try:
                payload = self._opened(payload).value
            except PayloadMismatch:
                return
        table = table_of(payload)
        if table is None or not (self.age or table.single or self.behind == "tables"):
            return
        if len(visit.memory) > MAX_KEYS:
            del visit.memory[next(iter(visit.memory))]
        most = MAX_AGES if self.age else self.lag + 1
        kept = visit.memory.setdefault(self._call(table, visit), collections.deque(maxlen=most))
        kept.append((virtual_time.wall(), table.kept()))

    def _call(self, table: Table, visit: Visit) -> tuple[Any, ...]:
        """Return what two calls must share, so that one's values may stand for the other's."""
        if not self.age and not table.single:
            return table.schema()
        return (table.schema(), _print_of(visit.attributes.get("arguments")))

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Look up the earlier table if needed, and change the columns."""
        if self.behind == "rows" and not table.single and not self.age:
            if self.lag >= table.rows:
                raise self.refused(table, f"it has too few rows for a lag of {self.lag} rows")
            return super().change(table, rng, visit)
        if not self.age and self._earlier(table, visit) is None:
            kept = visit.memory.get(self._call(table, visit), ())
            what = "calls with the same arguments" if table.single else "tables of its columns"
            raise self.refused(
                table,
                f"there were {max(0, len(kept) - 1)} {what} before it, so none {self.lag} back",
            )
        return super().change(table, rng, visit)

    def _earlier(self, table: Table, visit: Visit) -> Table | None:
        """Return the table whose values come back, or None."""
        kept = visit.memory.get(self._call(table, visit), ())
        if self.age:
            now = virtual_time.wall()
            old = [value for when, value in kept if when <= now - self.age]
            return table_of(old[-1]) if old else None
        return table_of(kept[0][1]) if len(kept) > self.lag else None

    def columns(self, table: Table, rng: np.random.Generator) -> Iterator[tuple[int, Column]]:
        """Leave out dates without a time if the times move back, because they are mostly birthdays."""
        found = list(super().columns(table, rng))
        if self.age and self.column is None:
            exact = [(place, one) for place, one in found if one.kind == "time" and _is_exact(one)]
            found = exact or found
        yield from found

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with earlier values at these places, at least one of which differs."""
        import numpy as np

        source, lag = column, self.lag
        if self.age or spot.table.single or self.behind == "tables":
            earlier = self._earlier(spot.table, spot.visit)
            if earlier is None:
                return self._moved_back(column, spot.rng)
            if spot.table.names[spot.place] not in earlier.names:
                raise UnsupportedColumn("is new")
            place = earlier.names.index(spot.table.names[spot.place])
            source, lag = earlier.column(place), 0
        # the rows that have an earlier one, even if one of the values is missing
        candidates = np.arange(lag, min(column.size, source.size + lag))
        if column.only is not None:
            candidates = candidates[column.only[candidates]]
        rows = len(candidates)
        if not rows:
            raise UnsupportedColumn("has no earlier values in these rows")
        count = max(1, round(self.scaled("fraction") * rows)) if not spot.table.single else rows
        for _ in range(MAX_REDRAWS):
            where = candidates[places(spot.rng, rows, count)]
            if not all_same(column, where, source, where - lag):
                return column.replaced(where, source, where - lag), len(where)
            if count >= rows:
                break
        raise UnsupportedColumn("had the same values before")

    def _moved_back(self, column: Column, rng: np.random.Generator) -> tuple[Any, int]:
        """Return the column with times that are older by the age."""
        import numpy as np

        nulls = column.closed()
        present = np.arange(column.size) if nulls is None else np.flatnonzero(~nulls)
        if not len(present):
            raise UnsupportedColumn("has no such values")
        ticks = round(self.age * self._ticks_per_second(column, present))
        if not ticks:
            raise UnsupportedColumn(f"of the dtype {column.dtype} is too coarse for this age")
        count = max(1, round(self.scaled("fraction") * len(present)))
        where = present[places(rng, len(present), count)]
        values = column.numbers()[where]
        return column.with_numbers(where, values - values.dtype.type(ticks)), len(where)

    def _ticks_per_second(self, column: Column, present: Any) -> float:
        if column.kind == "time":
            return column.ticks_per_second()
        if self.column is None or column.kind not in NUMBERS:
            raise UnsupportedColumn("holds no dates or times, and no earlier value is known")
        least = float(column.numbers()[present].min())
        units = [ticks for start, ticks in _EPOCH_UNITS if start <= least]
        if not units:
            raise UnsupportedColumn("holds numbers that do not count the time since 1970")
        return units[-1]


def _is_exact(column: Column) -> bool:
    """Return True unless all times are midnight, as dates are."""
    values, day = column.numbers(), round(86400 * column.ticks_per_second())
    return bool(day > 1 and (values % day).any())


def _print_of(arguments: Any) -> Any:
    """Return what tells the arguments of two calls apart."""
    if arguments is None:
        return None
    args, kwargs = arguments
    named = [*enumerate(args), *sorted(kwargs.items())]
    # An object of unknown content, such as a client, is told by its identity.
    return tuple((name, fingerprint(value) or id(value)) for name, value in named)

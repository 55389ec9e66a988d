"""Define faults of a table's rows, and values that are older than their rows."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value, index
from ...errors import BadArgument
from .base import Column, Table, UnsupportedColumn, all_same, places, table_of
from .fault import MAX_REDRAWS, SHARES, ColumnFault, Spot, TableFault

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DuplicateRows", "LateRows", "OutOfOrderRows", "StaleFeature"]
LAYER = "Tables"


STALE_SHARES = {"fraction": (0.1, 0.25, 0.5, 0.75, 1.0)}


@register
class DuplicateRows(TableFault):
    """Rows of a table are there twice.

    A pandas index that only counts the rows goes on counting. Other labels come twice, too.

    Args:
        fraction: The share of the rows that comes once more, at the end of the table, at least one.

    Imitates: at-least-once delivery, a job that was started again and appended what was there, a
    join with a key that is not unique.

    Fidelity: exact copies. Real duplicates often differ in a load time or an id.

    Example: ``@chaos.duplicate_rows(fraction=0.05, at=0)``
    """

    scales = SHARES
    fraction: float = 0.1

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return all rows, and some of them again."""
        import numpy as np

        again = places(rng, table.rows, max(1, round(self.scaled("fraction") * table.rows)))
        visit.note(rows=len(again), of=table.rows)
        return table.taken(np.concatenate([np.arange(table.rows), again]))


@register
class OutOfOrderRows(TableFault):
    """Rows of a table are not in their order.

    Args:
        fraction: The share of the rows that change places, at least two. Each of them moves.

    Imitates: events that several partitions deliver, a parallel reader, a query without ORDER BY.

    Fidelity: a row may end up anywhere. In a stream it is mostly near its place.

    Example: ``@chaos.out_of_order_rows(fraction=0.2, at=0)``
    """

    scales = SHARES
    fraction: float = 0.1

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the same rows in a different order."""
        import numpy as np

        if table.rows < 2:
            raise self.refused(table, "it has fewer than two rows")
        hit = places(rng, table.rows, max(2, round(self.scaled("fraction") * table.rows)))
        order = np.arange(table.rows)
        order[hit] = np.roll(hit, int(rng.integers(1, len(hit))))
        visit.note(rows=len(hit), of=table.rows)
        return table.taken(order)


@register
class LateRows(TableFault):
    """Rows are missing from a table, and come with a later one.

    They come at the end of the next table of the same columns that the fault strikes. Rows that are
    late at the last strike never come. So ``at=0`` loses rows for good. ``at=[0, 1]`` brings the
    rows of the first table with the second, which loses some itself. ``at=chaos.EVERY`` is a steady
    stream of late rows.

    Args:
        fraction: The share of the rows that is late, at least one.

    Imitates: mobile clients that were offline, a partition that lags behind, events beyond the
    watermark.

    Fidelity: lateness is counted in tables, not in time.

    Example: ``@chaos.late_rows(fraction=0.1, at=[0, 1])``
    """

    scales = SHARES
    fraction: float = 0.1

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Return the table without the late rows, and with those of the table before."""
        import numpy as np

        if table.rows < 2:
            raise self.refused(table, "it has fewer than two rows")
        late = places(
            rng,
            table.rows,
            min(table.rows - 1, max(1, round(self.scaled("fraction") * table.rows))),
        )
        in_time = np.ones(table.rows, dtype=bool)
        in_time[late] = False
        schema = table.schema()
        earlier = visit.memory.get(schema)
        visit.memory[schema] = table.taken(late)
        fresh = table.taken(np.flatnonzero(in_time))
        rest = table_of(fresh)
        assert rest is not None  # a table of the same kind as the one before
        visit.note(rows=len(late), of=table.rows, caught_up=0 if earlier is None else len(earlier))
        return fresh if earlier is None else rest.followed_by(earlier)


@register
class StaleFeature(ColumnFault):
    """Values of a column are from an earlier time.

    A row that has no value now gets the earlier one. If the earlier value is missing, it is missing
    now.

    Args:
        column: A name, or a list of names. Without it, all columns.
        fraction: The share of the rows that is hit, at least one.
        behind: ``"rows"``: the values come from ``lag`` rows before, in the same table. The first
            ``lag`` rows stay. ``"tables"``: they come from the same row of an earlier table with
            the same columns, as far as it goes. This cannot strike the first such table.
        lag: The number of rows or tables.

    Imitates: a feature store that was not refreshed, a cache that outlived its data, a join with
    yesterday's snapshot.

    Fidelity: rows are matched by position, not by key.

    Example: ``@chaos.stale_feature(column="balance", lag=3, at=0)``
    """

    scales = STALE_SHARES
    fraction: float = 1.0
    behind: Literal["rows", "tables"] = "rows"
    lag: int = 1

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.lag) and not index(self.lag):
            raise BadArgument(f"stale_feature: lag must be 1 or more, got {format_value(self.lag)}")

    def observe(self, visit: Visit) -> None:
        """Keep the last tables of each kind."""
        table = table_of(visit.payload) if self.behind == "tables" else None
        if table is not None:
            visit.memory.setdefault(table.schema(), collections.deque(maxlen=self.lag + 1)).append(
                table.kept()
            )

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Look up the earlier table if needed, and change the columns."""
        if self.behind == "rows":
            if self.lag >= table.rows:
                raise self.refused(table, f"it has too few rows for a lag of {self.lag} rows")
            return super().change(table, rng, visit)
        kept = visit.memory.get(table.schema(), ())
        if len(kept) <= self.lag:
            raise self.refused(
                table,
                f"there were {max(0, len(kept) - 1)} tables of its columns before it, so none "
                f"{self.lag} back",
            )
        return super().change(table, rng, visit)

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with earlier values at these places, at least one of which differs."""
        source, lag = column, self.lag
        if self.behind == "tables":
            earlier = table_of(spot.visit.memory[spot.table.schema()][0])
            assert earlier is not None  # a copy of a table
            source, lag = earlier.column(spot.place), 0
        # the rows that have an earlier one, even if one of the values is missing
        rows = min(column.size, source.size + lag) - lag
        count = max(1, round(self.scaled("fraction") * rows))
        for _ in range(MAX_REDRAWS):
            where = places(spot.rng, rows, count) + lag
            if not all_same(column, where, source, where - lag):
                return column.replaced(where, source, where - lag), len(where)
            if count >= rows:
                break
        raise UnsupportedColumn("had the same values before")

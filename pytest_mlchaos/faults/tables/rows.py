"""Define faults of a table's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.faults import register
from ...core.sites import Visit
from ..rows import RowFault
from .base import Table, places, table_of
from .fault import SHARES, TableFault

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DuplicateRows", "LateRows", "OutOfOrderRows"]
LAYER = "Tables"


@register
class DuplicateRows(TableFault, RowFault):
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

        rows = table.open_rows()
        again = rows[places(rng, len(rows), max(1, round(self.scaled("fraction") * len(rows))))]
        visit.note(rows=len(again), of=table.rows)
        return table.taken(np.concatenate([np.arange(table.rows), again]))


@register
class OutOfOrderRows(TableFault, RowFault):
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

        rows = table.open_rows()
        if len(rows) < 2:
            raise self.refused(table, "it has fewer than two rows")
        hit = rows[places(rng, len(rows), max(2, round(self.scaled("fraction") * len(rows))))]
        order = np.arange(table.rows)
        order[hit] = np.roll(hit, int(rng.integers(1, len(hit))))
        visit.note(rows=len(hit), of=table.rows)
        return table.taken(order)


@register
class LateRows(TableFault, RowFault):
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
        rows = table.open_rows()
        count = min(table.rows - 1, max(1, round(self.scaled("fraction") * len(rows))))
        late = rows[places(rng, len(rows), count)]
        in_time = np.ones(table.rows, dtype=bool)
        in_time[late] = False
        schema = table.schema()
        earlier = visit.memory.get(schema)
        visit.memory[schema] = table.taken(late)
        fresh = table.taken(np.flatnonzero(in_time))
        rest = table_of(fresh)
        assert rest is not None  # a table of the same kind as the one before
        back = None if earlier is None else table_of(earlier)
        visit.note(rows=len(late), of=table.rows, caught_up=0 if back is None else back.rows)
        return fresh if earlier is None else rest.followed_by(earlier)

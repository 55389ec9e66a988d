"""Define faults of feature stores and other stores of rows: down, or with half an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ..core.faults import is_drawn, register
from ..core.sites import Visit
from ..core.validation import check_share, parse_positive_duration
from ..engine.controller import current_clock
from ..errors import BadArgument, PayloadMismatch
from .batches.pytree import describe
from .calls import CallFailure, RaiseAfterwards, make_error
from .data_fault import DataFault
from .tables.base import Table, UnsupportedColumn, table_of

__all__ = ["FeatureStoreDown", "HalfAnswer", "PartialMaterialization"]
LAYER = "Calls and services"
SHARES_KEPT: Mapping[str, tuple[float, float, float, float, float]] = {
    "keep": (0.9, 0.75, 0.5, 0.25, 0.1)
}


@register
class FeatureStoreDown(CallFailure):
    """A feature store is down for some time: each call of ``target`` fails. Then it works again.

    The outage begins at the call that ``at`` counts. It ends by the trial's clock, so back-offs and
    time-outs decide if a program survives it. With several numbers in ``at``, or with ``p``, only
    these calls fail.

    Args:
        target: The function, as for ``call_failure``.
        error: The exception, as for ``call_failure``.
        when: ``"before"`` or ``"after"``, as for ``call_failure``.
        duration: Seconds, or ``"30s"``, ``"10m"``, ``"1h"``.

    Imitates: a feature store, a database or a cache that restarts, fails over, or is unreachable.

    Fidelity: the function's own code does not run (or, with ``when="after"``, runs to its end).
    Time passes only if the program waits. A process that starts during the outage does not see it.

    Example: @chaos.feature_store_down(target="json:loads", duration="10m", at=0)
    """

    member_of: ClassVar[Mapping[str, int]] = {"bad_data": 16}
    error: Any = "ConnectionError"
    duration: Any = "10m"

    def check(self) -> None:
        """Convert ``duration`` to seconds."""
        super().check()
        if not is_drawn(self.duration):
            seconds = parse_positive_duration(self.duration, f"{self.name}: duration")
            object.__setattr__(self, "duration", seconds)

    @property
    def is_consecutive(self) -> bool:
        """Return True if the calls from one on may fail, until the outage is over."""
        return isinstance(self.at, tuple) and len(self.at) == 1

    def apply(self, visit: Visit) -> None:
        """Fail, unless the outage is over."""
        if self.is_consecutive:
            until = visit.memory.get("until")
            if until is None and visit.index == self.at[0]:
                until = visit.memory["until"] = current_clock().now() + self.duration
            # A process that starts again has no memory of the outage.
            if until is None or current_clock().now() >= until:
                visit.skip()
                return
        super().apply(visit)


@register
class HalfAnswer(DataFault):
    """A call returns the first share of its rows, and no error.

    A generator ends early. ``at`` then counts its items, and the one of the strike is the first
    that is missing.

    Args:
        target: A function that returns rows: a table of any library, a list, a dict of lists, or a
            reply with a list of records in it.
        keep: The share of the rows that arrives. At least one row is missing.

    Imitates: a page of a paginated reply taken for the whole, a time-out of one shard whose rows
    are left out, a connection that closes between two rows.

    Fidelity: the rows are the first ones, in their order. A count of rows elsewhere in the reply
    keeps its value.

    Example: ``@chaos.half_answer(target="json:loads", keep=0.5, at=0)``
    """

    site = "data.table"
    random = False
    scales = SHARES_KEPT
    keep: float = 0.5

    def check(self) -> None:
        """Check the parameters."""
        _check_keep(self.name, self.keep)

    def apply(self, visit: Visit) -> Any:
        """Return fewer rows, or end the stream."""
        if visit.source is not None:
            visit.stream.end()
            visit.note(ended=True)
            return visit.stream.pull()
        table = table_of(visit.payload)
        where = "the table" if self.target is None else f"what {self.target} returns"
        if table is None:
            raise PayloadMismatch(
                f"{self.name}: {where} must be a table or a list of rows, got "
                f"{describe(visit.payload)}"
            )
        return _first_rows(self.name, table, self.scaled("keep"), visit)


@register
class PartialMaterialization(CallFailure):
    """A call that writes rows gets the first share of them. Then it fails, or ends as usual.

    The first argument that is a table or a list of rows is cut.

    Args:
        target: A function that takes rows, as for ``call_failure``.
        keep: The share of the rows that is written. At least one row is missing.
        then: ``"raises"``: the call fails after it has written them. ``"ends"``: it returns as if
            all were written. A search tries both.
        error: The exception, as for ``call_failure``.

    Imitates: a materialization into an online store that is interrupted, a bulk insert that stops at
    a bad row, a batch write that returns before all is written.

    Fidelity: the rows are the first ones. A writer that works row by row, in parallel or in a
    transaction may leave others, or none.

    Example: @chaos.partial_materialization(target="json:dumps", at=0)
    """

    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"then": ("raises", "ends")}
    member_of: ClassVar[Mapping[str, int]] = {"bad_day": 46}
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({"then": "raises"},)
    keep: float = 0.5
    then: Literal["raises", "ends"] = "raises"
    error: Any = "ConnectionError"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        _check_keep(self.name, self.keep)
        if self.when != "before":
            raise BadArgument(
                f"{self.name}: when must not be given, got {self.when!r}. then= says how it ends"
            )

    def apply(self, visit: Visit) -> Any:
        """Return other arguments, and fail after the call if wanted."""
        args, kwargs = visit.payload
        named = [*enumerate(args), *kwargs.items()]
        found = next(
            (
                (name, table)
                for name, value in named
                if (table := table_of(value)) is not None and not table.single and table.rows > 1
            ),
            None,
        )
        if found is None:
            raise PayloadMismatch(
                f"{self.name}: an argument of {self.target} must hold two rows or more, got "
                f"{', '.join(describe(value) for _, value in named) or 'no arguments'}"
            )
        name, table = found
        fresh = _first_rows(self.name, table, self.keep, visit)
        if self.then == "raises":
            error = make_error(self.error, self.target, self.name)
            visit.keep_open(RaiseAfterwards(visit, error))
        if isinstance(name, int):
            return (*args[:name], fresh, *args[name + 1 :]), kwargs
        return args, {**kwargs, name: fresh}


def _check_keep(owner: str, keep: Any) -> None:
    if not is_drawn(keep) and keep != 0:
        check_share(owner, "keep", keep)


def _first_rows(owner: str, table: Table, keep: float, visit: Visit) -> Any:
    """Return the first share of the rows, at least one fewer than there are."""
    import numpy as np

    if table.single or not table.rows:
        raise PayloadMismatch(
            f"{owner} cannot work on {table.describe()}: it has no rows that could be missing"
        )
    left = min(table.rows - 1, round(keep * table.rows))
    visit.note(rows=left, of=table.rows)
    try:
        return table.taken(np.arange(left))
    except UnsupportedColumn as why:
        raise PayloadMismatch(f"{owner} cannot work on {table.describe()}: {why}") from None

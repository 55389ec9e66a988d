"""Keep the rank of a process in a job that the subject, or a launcher, has started by itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..core.sites import Key
from .counters import ProcessCounts, ScheduledFault, VisitCounter
from .forks import Forks

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["OwnRank", "become_rank"]


class OwnRank:
    """The rank of this process, if ``mlchaos.world`` did not start it.

    Attributes:
        number: The rank, or None.
        is_allowed: False in a rank of a world. Its children never become ranks.
        is_inherited: True in a child that has not become a rank by itself. It may be a helper of
            its parent, which is one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.is_allowed = True
        self.is_inherited = False

    def is_awaited_by(self, scheduled: ScheduledFault) -> bool:
        """Return True for a fault that strikes only in ranks, if there may be some."""
        return self.is_allowed and not scheduled.fault.applies_to({})

    def strikes_in_children(self, scheduled: ScheduledFault) -> bool:
        """Return False for a continuous fault, and one that ends the trial's own process.

        One that strikes only in ranks may end a child, which becomes this rank.
        """
        ends_own = scheduled.fault.ends_process and not self.is_awaited_by(scheduled)
        return not ends_own and not scheduled.fault.continuous

    def scheduled_at(self, key: Key, controller: Controller) -> list[ScheduledFault]:
        """Return the faults that may strike at a key in this process."""
        return [
            scheduled
            for scheduled in controller.scheduled
            if scheduled.fault.key == key
            and scheduled.fault.concerns(controller.attributes)
            and not (self.is_inherited and scheduled.fault.ends_process)
        ]

    def go_on(self, key: Key, counter: VisitCounter, forks: Forks | None) -> None:
        """Count with the processes of this rank, from its last visit."""
        if forks is not None and counter.scheduled and forks.is_counted(key):
            counter.count_with(functools.partial(forks.advance, key))
            for scheduled in counter.scheduled:
                scheduled.go_on_from(forks.passed(key), forks.struck(scheduled.index))

    def begin(self, forks: Forks, elsewhere: Mapping[int, ProcessCounts]) -> None:
        """Let each rank go on from the counts of an earlier attempt."""
        for rank, counts in elsewhere.items() if self.is_allowed else ():
            forks.rank = rank
            forks.begin(counts.passed, counts.struck)
        forks.rank = self.number

    def hear(self, forks: Forks, elsewhere: dict[int, ProcessCounts]) -> None:
        """Read the counts of the other ranks."""
        for rank, (visits, strikes) in forks.ranks().items() if self.is_allowed else ():
            if rank != self.number:
                elsewhere[rank] = ProcessCounts(visits, strikes)


def become_rank(controller: Controller, rank: int, world_size: int) -> None:
    """Let this process go on as a rank.

    It counts its own visits from now on, and goes on from those of an earlier attempt.
    """
    own, forks = controller.own_rank, controller.forks
    if not own.is_allowed or (own.number == rank and not own.is_inherited):
        return
    own.number, own.is_inherited = rank, False
    controller.attributes = {**controller.attributes, "rank": rank, "world_size": world_size}
    if forks is not None:
        forks.rank = rank
    controller.recount()

"""Count the visits of a key, and hold the faults that are scheduled there."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from ..core.faults import EVERY, Fault, following
from ..core.sites import Key
from ..errors import BadArgument, MlchaosError

__all__ = ["NO_VISIT", "ProcessCounts", "ScheduledFault", "VisitCounter", "most_passed"]

NO_VISIT = 2**30 - 1
"""The number that stands for "no visit". The interpreter compares such an int fast.

If there really is a visit with this number, it takes the slow path, which decides anew.
"""
LOOK_AHEAD_VISITS = 10_000
"""The number of visits for which a probability is evaluated in one go."""


class ScheduledFault:
    """A scheduled fault, with its strikes so far."""

    def __init__(self, fault: Fault, index: int, seed: int) -> None:
        self.fault = fault
        self.index = index
        self.total = 0
        # The rank (None outside of a world) and the visit of each.
        self.strikes: list[tuple[int | None, int]] = []
        self.eligible: list[int] = []
        # Those of them in the test's own code, outside of any subject.
        self.outside: set[int] = set()
        self.measures: dict[str, int] = {}
        self.remark = ""
        # The reason why it could not strike: its visits had nothing to strike, or no world fits it.
        self.mismatch: MlchaosError | None = None
        self._fits_a_world = False
        self.observes = type(fault).observe is not Fault.observe
        self._seed = seed
        self.begin_again()

    @functools.cached_property
    def text(self) -> str:
        """Return the text of the fault. It is cached, because each strike contains it."""
        return repr(self.fault)

    def open_visits(self, *, in_subjects: bool) -> tuple[int, ...]:
        """Return the visits that a search may choose.

        With ``in_subjects``, visits in the test's own code are left out, because set-up code is
        not tested.
        """
        return tuple(
            visit for visit in self.eligible if not in_subjects or visit not in self.outside
        )

    def meet_world(self, ranks: int) -> None:
        """Note a world of the test. If no world fits the fault, that is why it does not strike."""
        try:
            self.fault.check_world(ranks)
        except BadArgument as error:
            if not self._fits_a_world:
                self.mismatch = error.with_traceback(None)
        else:
            if not self._fits_a_world:
                self._fits_a_world, self.mismatch = True, None

    def begin_again(self) -> None:
        """Count visits from 0 again."""
        self.struck = 0
        self.memory: dict[Any, Any] = {}
        self._resolved: set[int] = set()
        self._next = self._following(0)

    def go_on_from(self, visit: int, struck: int) -> None:
        """Continue from the counts of a different process.

        ``visit`` is next, after ``struck`` strikes.
        """
        self.struck = struck
        self._next = self._following(visit)

    def is_due(self, visit: int) -> bool:
        """Return True if the fault strikes at this visit."""
        fault = self.fault
        return (fault.times is None or self.struck < fault.times) and fault.strikes_at(
            visit, self._seed, self.index
        )

    @property
    def next_due(self) -> int:
        """Return a visit before which the fault is not due.

        Mostly this is the next visit that it strikes.
        """
        if self.observes and self.fault.keeps_observing and self.memory:
            return 0
        if self._next == NO_VISIT or (
            self.fault.times is not None and self.struck >= self.fault.times
        ):
            return NO_VISIT
        return 0 if self.observes else self._next

    def resolve(self, visit: int) -> None:
        """Note that a visit was checked.

        Threads may arrive out of order, so a visit that is late stays due.
        """
        if visit == self._next or (
            visit > self._next and self.fault.strikes_at(visit, self._seed, self.index)
        ):
            self._resolved.add(visit)
        while self._next in self._resolved:
            self._resolved.discard(self._next)
            self._next = self._following(self._next + 1)

    def _following(self, start: int) -> int:
        fault = self.fault
        if fault.at is EVERY:
            return start
        if fault.p is not None:
            ahead = range(start, start + LOOK_AHEAD_VISITS)
            return next(
                (visit for visit in ahead if fault.strikes_at(visit, self._seed, self.index)),
                start + LOOK_AHEAD_VISITS,
            )
        if fault.is_consecutive:
            return int(max(start, fault.at[0]))
        visit = following(fault.at, start) if isinstance(fault.at, (tuple, range)) else None
        return NO_VISIT if visit is None else visit


class VisitCounter:
    """The counter of the visits of a site, or of a target that is counted separately."""

    __slots__ = ("advance", "count", "failed", "next_due", "passed", "scheduled")

    def __init__(self) -> None:
        # One C call is atomic, so threads never share a number.
        self.advance = self.count = itertools.count(1).__next__
        self.passed = self.failed = 0
        self.next_due = NO_VISIT
        self.scheduled: list[ScheduledFault] = []

    def go_on_from(self, visit: int) -> None:
        """Give this number to the next visit."""
        self.advance = self.count = itertools.count(visit + 1).__next__
        self.passed = visit

    def count_with(self, count: Callable[[], int]) -> None:
        """Take the numbers of the visits from ``count``.

        Wrappers around the counting stay.
        """
        if self.advance is self.count:
            self.advance = count
        self.count = count

    def counting(self) -> Callable[[], int]:
        """Return the function for a wrapper around the counting to call.

        It follows ``count_with``.
        """
        return (lambda: self.count()) if self.advance is self.count else self.advance


@dataclasses.dataclass
class ProcessCounts:
    """The progress of a different process of the same trial.

    Attributes:
        passed: The number of visits by key, including those that failed.
        struck: The number of strikes by the index of the fault.
        failed: The number of failed visits by key.
    """

    passed: dict[Key, int] = dataclasses.field(default_factory=dict)
    struck: dict[int, int] = dataclasses.field(default_factory=dict)
    failed: dict[Key, int] = dataclasses.field(default_factory=dict)


def most_passed(*counts: Mapping[Key, int]) -> dict[Key, int]:
    """Return the highest number of visits for each key with visits."""
    most = {key: max(count.get(key, 0) for count in counts) for count in counts for key in count}
    return {key: number for key, number in most.items() if number}

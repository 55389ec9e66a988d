"""What is counted: the visits of one key, and the faults that are scheduled there."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from ..core.faults import EVERY, Fault, following
from ..core.sites import Key
from ..errors import PayloadMismatch

__all__ = ["NO_VISIT", "ProcessCounts", "ScheduledFault", "VisitCounter", "most_passed"]

NO_VISIT = 2**30 - 1
"""No visit: an int that the interpreter compares fast (a visit of that number would take the slow path, which decides anew)."""
LOOK_AHEAD_VISITS = 10_000
"""How far a probability is looked up in one go."""


class ScheduledFault:
    """A scheduled fault and what it has done so far."""

    def __init__(self, fault: Fault, index: int, seed: int) -> None:
        self.fault = fault
        self.index = index
        self.total = 0
        self.strikes: list[tuple[int | None, int]] = []  # the rank (None outside of a world) and the visit of each
        self.eligible: list[int] = []
        self.measures: dict[str, int] = {}
        self.remark = ""
        self.mismatch: PayloadMismatch | None = None  # why there was nothing to strike at a visit that it was not pinned to
        self.observes = type(fault).observe is not Fault.observe
        self._seed = seed
        self.begin_again()

    @functools.cached_property
    def text(self) -> str:
        """The fault as it prints; kept, for it is part of each strike."""
        return repr(self.fault)

    def begin_again(self) -> None:
        """Visits are counted from 0 again."""
        self.struck = 0
        self.memory: dict[Any, Any] = {}
        self._resolved: set[int] = set()
        self._next = self._following(0)

    def go_on_from(self, visit: int, struck: int) -> None:
        """Visits are counted on from another process's: this is the next, and it has struck so often."""
        self.struck = struck
        self._next = self._following(visit)

    def is_due(self, visit: int) -> bool:
        """Whether it strikes at this visit."""
        fault = self.fault
        return (fault.times is None or self.struck < fault.times) and fault.strikes_at(visit, self._seed, self.index)

    @property
    def next_due(self) -> int:
        """A visit before which nothing is due any more: mostly the next that is."""
        if self.observes and self.fault.keeps_observing and self.memory:
            return 0
        if self._next == NO_VISIT or (self.fault.times is not None and self.struck >= self.fault.times):
            return NO_VISIT
        return 0 if self.observes else self._next

    def resolve(self, visit: int) -> None:
        """A visit has been looked at. Threads may come out of order: one that is late is still waited for."""
        if visit == self._next or (visit > self._next and self.fault.strikes_at(visit, self._seed, self.index)):
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
            return next((visit for visit in ahead if fault.strikes_at(visit, self._seed, self.index)), start + LOOK_AHEAD_VISITS)
        if fault.is_consecutive:
            return int(max(start, fault.at[0]))
        visit = following(fault.at, start) if isinstance(fault.at, (tuple, range)) else None
        return NO_VISIT if visit is None else visit


class VisitCounter:
    """The visits counted together: those of one site, or of one target."""

    __slots__ = ("advance", "count", "failed", "next_due", "passed", "scheduled")

    def __init__(self) -> None:
        self.advance = self.count = itertools.count(1).__next__  # one C call: atomic, so threads never share a number
        self.passed = self.failed = 0
        self.next_due = NO_VISIT
        self.scheduled: list[ScheduledFault] = []

    def go_on_from(self, visit: int) -> None:
        """The next visit has this number."""
        self.advance = self.count = itertools.count(visit + 1).__next__
        self.passed = visit

    def count_with(self, count: Callable[[], int]) -> None:
        """Take the numbers of the visits from ``count``; what is wrapped around the counting stays."""
        if self.advance is self.count:
            self.advance = count
        self.count = count

    def counting(self) -> Callable[[], int]:
        """Return what a wrapper around the counting calls: it follows ``count_with``."""
        return (lambda: self.count()) if self.advance is self.count else self.advance


@dataclasses.dataclass
class ProcessCounts:
    """How far another process of the same trial has come: visits by key (those that failed, too), strikes by the index of the fault."""

    passed: dict[Key, int] = dataclasses.field(default_factory=dict)
    struck: dict[int, int] = dataclasses.field(default_factory=dict)
    failed: dict[Key, int] = dataclasses.field(default_factory=dict)


def most_passed(*counts: Mapping[Key, int]) -> dict[Key, int]:
    """The highest number of visits of each key that was passed at all."""
    most = {key: max(count.get(key, 0) for count in counts) for count in counts for key in count}
    return {key: number for key, number in most.items() if number}

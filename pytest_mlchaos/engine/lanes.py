"""What is counted: the visits of one key, and the faults that are scheduled there."""

from __future__ import annotations

import bisect
import itertools

from ..core.faults import EVERY, Fault

__all__ = ["NEVER", "Lane", "Plan"]

NEVER = 2**30 - 1
"""No visit: an int that the interpreter compares fast (a visit of that number would take the slow path, which decides anew)."""
LOOK_AHEAD = 10_000
"""How far a probability is looked up in one go."""


class Plan:
    """A scheduled fault and what it has done so far."""

    __slots__ = ("eligible", "fault", "measures", "place", "struck", "total", "visits", "visits_struck")

    def __init__(self, fault: Fault, place: int) -> None:
        self.fault = fault
        self.place = place
        self.visits: list[int] = list(fault.at) if isinstance(fault.at, tuple) else []
        self.struck = self.total = 0
        self.visits_struck: list[int] = []
        self.eligible: list[int] = []
        self.measures: dict[str, int] = {}

    def due(self, visit: int, seed: int) -> bool:
        """Whether it strikes at this visit."""
        fault = self.fault
        return (fault.times is None or self.struck < fault.times) and fault.strikes_at(visit, seed, self.place)

    def next_due(self, start: int, seed: int) -> int:
        """A visit before which nothing is due: mostly the next that is."""
        fault = self.fault
        if fault.times is not None and self.struck >= fault.times:
            return NEVER
        if fault.at is EVERY:
            return start
        if fault.p is not None:
            ahead = range(start, start + LOOK_AHEAD)
            return next((visit for visit in ahead if fault.strikes_at(visit, seed, self.place)), start + LOOK_AHEAD)
        following = bisect.bisect_left(self.visits, start)
        return self.visits[following] if following < len(self.visits) else NEVER


class Lane:
    """The visits counted together: those of one site, or of one target."""

    __slots__ = ("advance", "failed", "next_due", "passed", "plans")

    def __init__(self) -> None:
        self.advance = itertools.count(1).__next__  # one C call: atomic, so threads never share a number
        self.passed = self.failed = 0
        self.next_due = NEVER
        self.plans: list[Plan] = []

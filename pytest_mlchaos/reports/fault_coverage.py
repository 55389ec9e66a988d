"""Read from the journal which faults were tried where, and what was never tried.

A *fault point* is a place at which a fault can strike: a site, the target of a call, or a file.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from ..core.coverage_entries import Recovery, Scope, Touch
from ..core.entries import Exploration, Judgement, State, StrikeEntry, Test, Trial
from ..core.fault_points import file_point
from .journal_reader import SessionLog, TestLog

__all__ = [
    "STATES",
    "FaultCell",
    "FaultCoverage",
    "FaultPoint",
    "NeverFaulted",
    "RecoveryCode",
    "coverage_of",
    "is_judged",
]

PointState: TypeAlias = Literal["judged", "unjudged", "unstruck", "unvisited"]
STATES: Mapping[PointState, str] = {
    "judged": "struck and judged",
    "unjudged": "struck, but not judged",
    "unstruck": "visited, and never struck",
    "unvisited": "never visited",
}
"""The states of a fault point, from the best to the worst."""
CRASH_STATE = "crash.state"


@dataclasses.dataclass(frozen=True, slots=True)
class FaultCell:
    """One fault at one fault point.

    Attributes:
        fault: The name of the fault.
        strikes: The number of strikes.
        judged: The number of them that were judged.
        visited: True if the fault point was visited.
    """

    fault: str
    strikes: int = 0
    judged: int = 0
    visited: bool = True

    @property
    def state(self) -> PointState:
        """Return the state of the cell."""
        if self.judged:
            return "judged"
        if self.strikes:
            return "unjudged"
        return "unstruck" if self.visited else "unvisited"


@dataclasses.dataclass(frozen=True, slots=True)
class FaultPoint:
    """One fault point.

    Attributes:
        name: Its name, as ``train.step``, ``call client:Client.get`` or ``storage ckpt-*.pt``.
        visits: The number of visits of the site in all trials. 0 if it is not known.
        visited: True if any trial visited it.
        functions: The functions of the user that visited it, as far as known.
        cells: The faults that struck it, or were declared for it.
    """

    name: str
    visits: int = 0
    visited: bool = True
    functions: tuple[str, ...] = ()
    cells: tuple[FaultCell, ...] = ()

    @property
    def site(self) -> str:
        """Return the name without the target or the path."""
        return self.name.partition(" ")[0]

    @property
    def state(self) -> PointState:
        """Return the best state of its cells."""
        states = {cell.state for cell in self.cells}
        for state in ("judged", "unjudged"):
            if state in states:
                return state
        return "unstruck" if self.visited else "unvisited"


@dataclasses.dataclass(frozen=True, slots=True)
class NeverFaulted:
    """A function of the user, and the fault points that it visited while no fault ever struck there.

    Attributes:
        function: The function, as ``features.py:load``.
        points: The names of the fault points.
    """

    function: str
    points: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RecoveryCode:
    """One block of recovery code, as in the entry of that name."""

    file: str
    line: int
    what: str
    function: str
    reached: bool


@dataclasses.dataclass(frozen=True, slots=True)
class FaultCoverage:
    """The fault coverage of a session.

    Attributes:
        points: The fault points, by name.
        never_faulted: The functions of the user with fault points at which no fault struck them.
        recovery: The recovery code in the files that the trials ran.
        notes: What was not measured, as sentences.
    """

    points: tuple[FaultPoint, ...] = ()
    never_faulted: tuple[NeverFaulted, ...] = ()
    recovery: tuple[RecoveryCode, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def percent(self) -> float:
        """Return the share of the fault points at which a strike was judged, in percent.

        The fault points are those that a trial visited, and those that a test declared a fault for.
        It is 100 if there are none.
        """
        judged = self.count("judged")
        return 100.0 * judged / len(self.points) if self.points else 100.0

    @property
    def shown_percent(self) -> int:
        """Return the percentage to show. It is 100 only if nothing is missing."""
        return math.floor(self.percent)

    @property
    def unreached(self) -> tuple[RecoveryCode, ...]:
        """Return the recovery code that no fault has reached."""
        return tuple(one for one in self.recovery if not one.reached)

    def count(self, state: PointState) -> int:
        """Return the number of fault points in a state."""
        return sum(point.state == state for point in self.points)


def coverage_of(session: SessionLog) -> FaultCoverage:
    """Return the fault coverage of a session."""
    collected = _Collected()
    notes: dict[str, None] = {}
    recovery: dict[RecoveryCode, bool] = {}
    measured = [test for test in session.tests.values() if test.all(Scope)]
    for test in measured:
        collected.add_functions(test)
    for test in measured:
        collected.add(test)
        for scope in test.all(Scope):
            if scope.no_lines:
                notes[scope.no_lines] = None
            if scope.cut:
                notes[f"{test.nodeid} made too many calls, so not all of them are listed"] = None
        for block in test.all(Recovery):
            key = RecoveryCode(block.file, block.line, block.what, block.function, reached=False)
            recovery[key] = recovery.get(key, False) or block.reached
    blocks = [dataclasses.replace(key, reached=reached) for key, reached in recovery.items()]
    return FaultCoverage(
        points=collected.points(),
        never_faulted=collected.never_faulted(),
        recovery=tuple(sorted(blocks, key=lambda one: (one.file, one.line, one.what))),
        notes=tuple(notes),
    )


def is_judged(strike: StrikeEntry, trial: Trial | None, test: TestLog, number: int) -> bool:
    """Return True if something judged what happened after a strike.

    The trial failed, or an assertion judged the result inside which it struck, or a public
    attribute of that result was read, or a check of the test function stands after the line at
    which it struck.

    Args:
        strike: The strike.
        trial: The end of its trial, or None if the trial did not end.
        test: Its test.
        number: The number of its trial.
    """
    if trial is not None and trial.outcome == "failed":
        return True
    if strike.result is not None and any(
        one.result == strike.result for one in test.all(Judgement, number)
    ):
        return True
    last = max((scope.last_check for scope in test.all(Scope)), default=0)
    return bool(strike.line) and strike.line <= last


class _Collected:
    """The fault points of several tests."""

    def __init__(self) -> None:
        self._visits: dict[str, int] = {}
        self._functions: dict[str, set[str]] = {}
        self._cells: dict[tuple[str, str], list[int]] = {}
        self._declared: set[tuple[str, str]] = set()
        self._struck: set[tuple[str, str]] = set()

    def add_functions(self, test: TestLog) -> None:
        """Add the functions of a test. Call this for all tests before ``add``."""
        for touch in test.all(Touch):
            self._functions.setdefault(touch.point, set()).add(touch.function)

    def add(self, test: TestLog) -> None:
        """Add the visits and strikes of a test."""
        for number, trial in test.trials.items():
            for name, count in trial.visits.items():
                point = _point_of_visits(name)
                if point and count:
                    self._visits[point] = self._visits.get(point, 0) + count
            for strike in test.all(StrikeEntry, number):
                judged = is_judged(strike, trial, test, number)
                self._add_strike(strike, judged)
        self._add_explorations(test)
        for scope in test.all(Scope):
            self._declared |= set(scope.declared)

    def _add_strike(self, strike: StrikeEntry, judged: bool) -> None:
        point = strike.point or strike.site
        self._count(point, _name_of(strike.fault), 1, int(judged))
        for name in (point, *strike.through):
            if strike.function:
                self._struck.add((name, strike.function))
            if name != point and name in self._functions:
                self._count(name, _name_of(strike.fault), 1, int(judged))

    def _add_explorations(self, test: TestLog) -> None:
        end = test.end
        for line in test.lines:
            found = line.entry
            if not isinstance(found, Exploration) or not found.states:
                continue
            judged = any(one.result == found.number for one in test.all(Judgement, line.trial))
            judged = judged or (isinstance(end, Test) and end.outcome == "failed")
            self._visits[CRASH_STATE] = self._visits.get(CRASH_STATE, 0) + found.states
            self._count(CRASH_STATE, "crash", found.tried, found.tried if judged else 0)
            states = [one for one in test.all(State, line.trial) if one.exploration == found.number]
            self._add_states(test, states, judged=judged)

    def _add_states(self, test: TestLog, states: Sequence[State], *, judged: bool) -> None:
        """Add the files that crash states are about: a crash struck their writes."""
        touches = test.all(Touch)
        for path in {one.path for one in states if one.path}:
            number = sum(one.path == path for one in states)
            point = file_point(path)
            meant = {one.point for one in touches if _is_below(one.point, point)} or {point}
            for name in meant:
                self._count(name, "crash", number, number if judged else 0)
            self._struck |= {(one.point, one.function) for one in touches if one.point in meant}

    def _count(self, point: str, fault: str, strikes: int, judged: int) -> None:
        cell = self._cells.setdefault((point, fault), [0, 0])
        cell[0] += strikes
        cell[1] += judged

    def points(self) -> tuple[FaultPoint, ...]:
        """Return the fault points, by name."""
        known = {*self._visits, *self._functions, *(point for point, _ in self._cells)}
        cells = {
            key: FaultCell(key[1], strikes, judged)
            for key, (strikes, judged) in self._cells.items()
        }
        for fault, declared in sorted(self._declared):
            meant = [point for point in known if _is_meant(declared, point)]
            for point in meant or [declared]:
                cells.setdefault((point, fault), FaultCell(fault, visited=bool(meant)))
        everything = {*known, *(point for point, _ in cells)}
        return tuple(
            FaultPoint(
                name=name,
                visits=self._visits.get(name, 0),
                visited=name in known,
                functions=tuple(sorted(self._functions.get(name, ()))),
                cells=tuple(cells[key] for key in sorted(cells) if key[0] == name),
            )
            for name in sorted(everything)
        )

    def never_faulted(self) -> tuple[NeverFaulted, ...]:
        """Return the functions with fault points at which no fault struck them."""
        found: dict[str, list[str]] = {}
        for point, functions in sorted(self._functions.items()):
            for function in functions:
                if (point, function) not in self._struck:
                    found.setdefault(function, []).append(point)
        return tuple(NeverFaulted(name, tuple(points)) for name, points in sorted(found.items()))


def _name_of(fault: str) -> str:
    """Return the name of a fault, from the text that recreates it."""
    return fault.partition("(")[0]


def _point_of_visits(name: str) -> str:
    """Return the fault point of a site in ``Trial.visits``, or an empty text.

    Storage operations are counted by file, in the entries of visited files.
    """
    site, _, rest = name.partition(" ")
    if site.partition(".")[0] == "storage":
        return ""
    return f"call {rest}" if site.partition(".")[0] == "call" else name


def _is_below(point: str, relative: str) -> bool:
    """Return True if a file is this one, whose path is relative to a directory of the test."""
    path, tail = point.partition(" ")[2], relative.partition(" ")[2]
    return point.startswith("storage ") and (path == tail or path.endswith(f"/{tail}"))


def _is_meant(declared: str, point: str) -> bool:
    """Return True if a fault with this declared point can strike that point."""
    if declared == point or declared == point.partition(" ")[0]:
        return True
    site, _, pattern = declared.partition(" ")
    path = point.partition(" ")[2]
    if site != "storage" or not point.startswith("storage "):
        return False
    return fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(path.rpartition("/")[2], pattern)

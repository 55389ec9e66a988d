"""``mlchaos.breaking_point``: how much of a fault does a subject survive?

1. ``levels.py`` reads the range of the fault's parameter.
2. ``runner.py`` runs the subject at a level, each time from the same start, and asks the oracle.
3. ``bisection.py`` chooses the next level, and rules out places where the breaking point is not.
4. ``verdicts.py`` judges the interval, and ``baselines.py`` keeps it in the repository.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic  # by name, so that a virtual clock does not reach it
from typing import Any

from ..core.policy import check_fault
from ..core.progress import report_step
from ..engine.controller import Controller
from ..errors import BadArgument, Inconclusive
from .baselines import Baselines
from .bisection import Bisection
from .levels import Levels
from .runner import LevelRunner
from .verdicts import BreakingPoint, CurvePoint, Found

__all__ = ["SearchOptions", "find_breaking_point"]


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        confidence: The confidence of the interval.
        max_trials: The largest number of trials.
        repeat: False if one trial decides a level. None to decide that by the fault.
        staged: True to try the levels in order, and stop at the first break.
        budget: The time limit in seconds, or None.
        name: The name of the result.
    """

    confidence: float = 0.95
    max_trials: int = 60
    repeat: bool | None = None
    staged: bool = False
    budget: float | None = None
    name: str = ""


def find_breaking_point(
    controller: Controller,
    subject: Callable[..., Any],
    args: tuple[Any, ...],
    fault: str,
    keywords: Mapping[str, Any],
    oracle: Callable[[Any], object],
    scratch: Path,
    workdirs: Iterable[Path],
    options: SearchOptions,
    baselines: Baselines,
) -> BreakingPoint:
    """Search the breaking point of a subject.

    Args:
        controller: The controller of the trial, whose test declares no fault.
        subject: The function to run.
        args: Its arguments.
        fault: The name of the fault.
        keywords: The keywords of the fault, one of them a range.
        oracle: A function of the run that raises or returns False if it has not survived.
        scratch: The test's temporary directory.
        workdirs: More directories that the subject works in.
        options: How to search.
        baselines: The file of the baselines.
    """
    if controller.scheduled:
        raise BadArgument(
            "mlchaos.breaking_point: the test must not declare faults of its own. Pass the fault "
            "as an argument"
        )
    levels = Levels.of(fault, keywords)
    example = levels.fault(levels.values[-1])
    check_fault(example)  # before a weaker level strikes
    runner = LevelRunner(controller, subject, args, levels, oracle, scratch, workdirs)
    runner.check_golden()
    is_noisy = not options.staged and (
        options.repeat is not False
        if options.repeat is not None
        else example.random or example.p is not None
    )
    search = _Search(
        runner, Bisection(len(levels.values), 1 - options.confidence, is_noisy), options
    )
    note = search.in_stages() if options.staged else search.bisect()
    if not options.staged and options.repeat is None and search.is_contradicted():
        note = search.bisect()
        is_noisy = True
    found = search.bisection
    places = found.places
    if not places:
        raise Inconclusive(
            f"{levels}: the subject survives strong levels and not weaker ones, so it has no "
            f"single breaking point: {search.describe(levels)}"
        )
    return BreakingPoint(
        Found(
            options.name or getattr(subject, "__name__", type(subject).__name__),
            str(levels),
            levels.parameter,
            levels.values,
            places[0],
            places[-1],
            found.estimate,
            options.confidence if is_noisy else 1.0,
            search.curve(levels),
            note,
            search.why,
        ),
        baselines,
    )


class _Search:
    """Tries levels, one after another."""

    def __init__(self, runner: LevelRunner, bisection: Bisection, options: SearchOptions) -> None:
        self.bisection = bisection
        self.why = ""
        self._runner, self._options = runner, options
        self._weakest_broken: int | None = None
        self._end = None if options.budget is None else monotonic() + options.budget
        self._seeds: dict[int, int] = {}  # by level: the number of trials so far

    def in_stages(self) -> str:
        """Try the levels in order, up to the first break."""
        for level in range(self.bisection.levels):
            if note := self._over():
                return note
            if not self._try(level):
                break
        return ""

    def bisect(self) -> str:
        """Try levels until the interval is short. Return the reason why it ended before that."""
        found, enough = self.bisection, 1 if self.bisection.is_noisy else 0
        while found.places and found.places[-1] - found.places[0] > enough:
            if note := self._over():
                return note
            self._try(found.next_level())
        return ""

    def is_contradicted(self) -> bool:
        """Repeat the trials on both sides of the breaking point, if one trial decided each.

        If an outcome differs, the outcomes are noisy. Then go on with these trials as such.
        """
        found = self.bisection
        if found.is_noisy or not found.places:
            return False
        place = found.places[0]
        again = [level for level in (place - 1, place) if level in self._seeds]
        if all(self._try(level) == (level < place) for level in again):
            return False
        noisy = Bisection(found.levels, 1 - self._options.confidence)
        for one in found.tried:
            noisy.record(one.level, one.survived)
        self.bisection = noisy
        return True

    def _over(self) -> str:
        if len(self.bisection.tried) >= self._options.max_trials:
            return f"the search ended after max_trials={self._options.max_trials} trials"
        if self._end is not None and monotonic() > self._end:
            return f"the budget ended the search after {len(self.bisection.tried)} trials"
        return ""

    def _try(self, level: int) -> bool:
        seed = self._seeds.get(level, 0)
        self._seeds[level] = seed + 1
        survived = self._runner.survives(level, seed)
        if not survived and (self._weakest_broken is None or level <= self._weakest_broken):
            self._weakest_broken, self.why = level, self._runner.why
        self.bisection.record(level, survived)
        tried = self.bisection.tried
        report_step(
            "trials", len(tried), self._options.max_trials, sum(not one.survived for one in tried)
        )
        return survived

    def curve(self, levels: Levels) -> list[CurvePoint]:
        """Return the trials by level."""
        found: dict[int, list[bool]] = {}
        for one in self.bisection.tried:
            found.setdefault(one.level, []).append(one.survived)
        return [
            CurvePoint(levels.values[level], sum(some), len(some))
            for level, some in sorted(found.items())
        ]

    def describe(self, levels: Levels) -> str:
        """Return the outcomes in words."""
        return ", ".join(
            f"{point.survived} of {point.trials} survived at {point.level:g}"
            for point in self.curve(levels)
        )

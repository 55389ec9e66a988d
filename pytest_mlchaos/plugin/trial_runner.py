"""Run the body of one test as a trial."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import signal
import textwrap
import unittest
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter, time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from .. import errors
from ..core.clock import VirtualClock
from ..core.entries import (
    Curve,
    Entry,
    Judgement,
    Line,
    StrikeEntry,
    Timing,
    without_times,
)
from ..core.entries import Trial as TrialEntry
from ..core.interrupts import Uninterruptible, uninterruptible
from ..core.journal import Strike
from ..core.privacy import error_text, shows_values
from ..core.recording import recorded_by
from ..core.results import HandedResult, describe_unjudged
from ..core.schedule import Schedule
from ..core.settings import Settings
from ..engine.controller import Controller
from ..engine.patching import Patches
from ..engine.subjects import subject_runs
from ..engine.trial import trial
from ..engine.user_code import user_place
from ..errors import HalfWritten, SilentlyDifferent, Vacuous
from ..reports import text
from .counted_calls import counted_targets, named_assertions
from .fault_coverage import measures_coverage
from .launched import dies_for_real, strikes_here
from .pytest_internals import own_directories, set_up_again
from .steady_states import steady_state_checked
from .swallowed import describe_dropped

if TYPE_CHECKING:
    from ..crashes.report import CrashReport
    from ..search.explore import Cause
    from .trial_coverage import TestCoverage

__all__ = ["EXPLORED", "SKIPPED", "Abort", "Body", "as_typed", "cause_of", "is_failure"]


MAX_SUMMARY_CHARACTERS = 120
"""Characters of an error's first line in a report."""
MAX_TIMED_STRIKES = 100
"""The most strikes of a trial whose times are kept. A fault may strike each visit."""
WORST = (SilentlyDifferent, HalfWritten)
"""Failures that are reported first, the worst before the others: wrong output that looks right."""
EXPLORED: pytest.StashKey[list[CrashReport]] = pytest.StashKey()
"""The reports of a test's explorations."""
SKIPPED = (pytest.skip.Exception, pytest.xfail.Exception, unittest.SkipTest)
_DECLARED_BY = {
    "judges_leaks": "assert_no_leak",
    "judges_orphans": "assert_no_orphans",
    "judges_privacy": "assert_privacy_budget",
    "records_collectives": "assert_no_desync",
    "records_steps": "assert_in_sync",
}
"""The assertion that a test names, for each of ``Declarations`` that follows from one."""


class Abort(BaseException):
    """Carry an error that ends an exploration through Hypothesis, which must not handle it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Body:
    """Run an item's body under a schedule, and collect the journals.

    Each trial after the first has fresh fixtures. ``clock`` is the reason why a trial's clock was
    real although the settings ask for a virtual one.
    """

    def __init__(
        self,
        item: pytest.Function,
        call: Callable[[], object],
        patches: Patches,
        grow: Callable[[Line], object] = lambda line: None,
    ) -> None:
        self._item = item
        self._grow = grow
        self._call = call
        self._patches = patches
        self._own = own_directories(item.config)
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        self._counted = counted_targets(item.function, parameters)
        self._judgements = named_assertions(item.function, _DECLARED_BY.values())
        self._properties = len(item.user_properties)
        self.nodeid = as_typed(item)
        self.runs = 0
        self.drawn = False  # True if a search draws the schedules
        self.by_composite = False  # True if the test declares a composite fault
        self.idle = ""  # the reason why no fault can strike, although the test may judge faults
        self.missed = ""  # the reason why the last trial shows nothing
        self.strikes_here = True  # False if the faults are bound to other ranks of a launcher
        self.judging = True  # True if the test must judge the fixture's results
        self.coverage = _coverage_of(item)
        self.lines: list[Line] = []
        self.controller: Controller | None = None
        self._forget: list[Callable[[], None]] = []
        self._explored = 0  # the number of reports in the entries
        self.clock = ""
        self.kept: dict[bytes, Any] = {}  # what the trials share

    def run(
        self,
        schedule: Schedule,
        settings: Settings,
        strikes: list[Strike] | None = None,
        *,
        probing: bool = False,
        control: str = "",
    ) -> Controller:
        """Run one trial. Trials after the first have fresh fixtures.

        ``control`` is the kind of a control trial, which judges alerts alone.
        """
        self._set_up()
        alarm = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
        controller = self.controller = None
        entries: list[Entry] = []
        ended: BaseException | None = None
        start = time(), perf_counter()
        try:
            with (
                recorded_by(entries.append),
                _quiet(self._item, self.runs),
                trial(
                    schedule,
                    self._patches,
                    clock=settings.clock,
                    timeout=settings.timeout,
                    probing=probing,
                    surveyed=self.coverage is not None and self.runs == 1,
                    own=self._own,
                    counted=self._counted,
                ) as controller,
                _examples(self._item, controller),
                self._followed(controller, schedule, probing=probing),
                dies_for_real(controller, self._item.nodeid, self.runs, self._grow),
            ):
                self.controller = controller
                self._describe_test(controller)
                made: list[errors.MlchaosError] = []
                errors.made = made
                with (
                    steady_state_checked(self._item, controller),
                    self._body_as_subject(controller),
                ):
                    self._call()
                self.missed = (
                    (describe_dropped(made) or describe_unjudged(controller.results))
                    if self.judging
                    else ""
                )
                # If no fault struck, NeverStruck reports that after the trial, and it matters more.
                # So the trial without faults, and a trial in which nothing struck, go on here.
                silent = bool(controller.scheduled) and not any(
                    scheduled.total for scheduled in controller.scheduled
                )
                self.strikes_here = strikes_here(controller)
                if self.missed and not probing and (self.drawn or not silent):
                    raise Vacuous(self.missed)
        except BaseException as error:
            ended = error
            if _raised_by(alarm, error):
                journal = list(controller.journal) if controller else []
                error.add_note(text.one_trial(schedule, journal, self.nodeid, self.clock))
                raise Abort(error) from None
            raise
        finally:
            errors.made = None
            if controller is not None:
                self._forget = controller.forget
                self.clock = controller.clock.reason or self.clock
                if strikes is not None:
                    strikes[:] = controller.journal
                self._keep(controller, entries, ended, start, control)
        return controller

    def _describe_test(self, controller: Controller) -> None:
        """Say what the test declares and judges."""
        controller.drawn, controller.idle = self.drawn, self.idle
        controller.by_composite = self.by_composite
        controller.kept = self.kept
        for declaration, assertion in _DECLARED_BY.items():
            setattr(controller, declaration, assertion in self._judgements)
        controller.decides = self.judging and not self.drawn

    @contextlib.contextmanager
    def _body_as_subject(self, controller: Controller) -> Iterator[None]:
        """Let the files that the body works with count, if nothing else in it is the subject."""
        if not controller.subject_listeners or "mlchaos" in self._item.fixturenames:
            yield
            return
        roots = [
            Path(value) for value in self._item.funcargs.values() if isinstance(value, os.PathLike)
        ]
        with subject_runs(controller, roots, stepwise=True) as begin:
            begin()
            yield

    def _followed(
        self, controller: Controller, schedule: Schedule, *, probing: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Follow the trial for the fault coverage, if it is wanted."""
        if self.coverage is None:
            return contextlib.nullcontext()
        return self.coverage.trial(controller, "" if probing else schedule.line)

    def _keep(
        self,
        controller: Controller,
        entries: list[Entry],
        error: BaseException | None,
        start: tuple[float, float],
        control: str = "",
    ) -> None:
        """Keep the entries of a trial that has ended.

        Args:
            controller: Its controller.
            entries: What was recorded while it ran.
            error: The error that ended it.
            start: The time at which it began, and the same by ``perf_counter``.
            control: The kind of a control trial.
        """
        if control:
            entries, error = [], None  # its judgements say nothing about the subject
        interrupted = error is not None and not isinstance(error, (Exception, *SKIPPED))
        explored = self._item.stash.get(EXPLORED, [])
        for number, report in enumerate(explored[self._explored :], len(controller.results)):
            handed = report._handed
            number = number if handed is None else handed.number
            entries += report.entries(number, interrupted=interrupted and handed is None)
        self._explored = len(explored)
        cause = cause_of(error) if error is not None and is_failure(error) else None
        entries.append(
            TrialEntry(
                outcome="passed" if error is None else "failed" if cause else "skipped",
                schedule="" if controller.probing else controller.schedule.line,
                probing=controller.probing,
                control=control,
                visits={text.site_text(key): count for key, count in controller.passed().items()},
                error=cause.kind if cause else "",
                cause=without_times(cause.summary) if cause else "",
                place=cause.place if cause else "",
            )
        )
        entries.append(
            Timing(of="trial", start=round(start[0], 6), seconds=perf_counter() - start[1])
        )
        if error is None:
            entries += _looks(controller.results)
        entries += controller.points.entries()
        entries += _late_entries(controller)
        entries += _strike_times(controller)
        strikes = [StrikeEntry.of(strike) for strike in controller.journal.in_order()]
        if self.coverage is not None:
            strikes = self.coverage.complete(controller.journal.in_order())
            entries += self.coverage.visited()
        for entry in (*strikes, *_relative(entries)):
            line = Line(self._item.nodeid, self.runs, entry)
            self.lines.append(line)
            self._grow(line)

    def _set_up(self) -> None:
        if self.runs:
            # Each trial records its own properties.
            del self._item.user_properties[self._properties :]
            try:
                set_up_again(self._item, self._sweep)
            except Exception as error:  # noqa: BLE001  # a fixture may raise anything
                error.add_note("mlchaos: a fixture failed between two trials")
                raise Abort(error) from None
        self.runs += 1

    def forget(self) -> None:
        """Drop what apps have left in memory. A real process would lose it at its end, too."""
        while self._forget:
            self._forget.pop()()

    def _sweep(self) -> None:
        """Clean up after the tear-down of the fixtures.

        Fixtures that patch may have restored one of our patches. The last trial's memory is dropped
        too.
        """
        self.forget()
        self._patches.sweep(
            thoroughly=not {"monkeypatch", "mocker"}.isdisjoint(self._item.fixturenames)
        )


def _late_entries(controller: Controller) -> Iterator[Entry]:
    """Yield the entries of results that are known only at the end of the trial."""
    clock = controller.clock
    is_virtual = isinstance(clock, VirtualClock) and not clock.reason
    for result in controller.late_results:
        handed = result._handed
        yield from result._late_entries(handed.number if handed else 0, is_virtual)


def _strike_times(controller: Controller) -> Iterator[Timing]:
    """Yield when the first strikes happened. They are with the timings: threads may differ."""
    times = controller.journal.seconds_in_order()[:MAX_TIMED_STRIKES]
    for number, seconds in enumerate(times):
        if seconds is not None:
            yield Timing(of="strike", number=number, seconds=round(seconds, 6))


def _looks(results: Iterable[HandedResult]) -> Iterator[Judgement]:
    """Yield a judgement for each result of which the test only read public attributes."""
    for one in results:
        if one.looked and not one.asserted:
            yield Judgement(oracle="attributes", verdict="passed", result=one.number)


def _coverage_of(item: pytest.Function) -> TestCoverage | None:
    """Return the fault coverage of a test, or None if it is not wanted."""
    if not measures_coverage(item.config):
        return None
    from .trial_coverage import TestCoverage

    return TestCoverage(item, item.config.rootpath)


def _relative(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries, with losses relative to the first of the golden run.

    A loss is a value of the user, and the journal holds none.
    """
    firsts = {
        entry.result: next((abs(loss) for loss in entry.values if loss and math.isfinite(loss)), 1)
        for golden in (False, True)
        for entry in entries
        if isinstance(entry, Curve) and entry.golden == golden
    }
    for entry in entries:
        if isinstance(entry, Curve):
            scale = 1 if shows_values() else firsts[entry.result]
            values = (
                float(f"{loss / scale:.6g}") if loss is not None and math.isfinite(loss) else None
                for loss in entry.values
            )
            yield dataclasses.replace(entry, values=tuple(values))
        else:
            yield entry


def as_typed(item: pytest.Item) -> str:
    """Return the item's node id as the user can type it in the directory where pytest was called."""
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    return "::".join([path, *item.nodeid.split("::")[1:]])


def _quiet(item: pytest.Function, number: int) -> contextlib.AbstractContextManager[Any]:
    """Show the warnings of the first trial only, because all trials warn alike.

    Warnings that are errors remain errors.
    """
    if number == 1 or "recwarn" in item.fixturenames:  # the test's own recorder must see them
        return contextlib.nullcontext()
    return Uninterruptible(warnings.catch_warnings(record=True))


@uninterruptible
def _examples(item: pytest.Function, controller: Controller) -> Iterator[None]:
    """Treat each example of a user's own ``@given`` as one run of the body: count sites from 0 in
    it.
    """
    given = getattr(item.obj, "hypothesis", None)
    if given is None:
        yield
        return
    inner = given.inner_test

    @functools.wraps(inner)
    def example(*args: object, **kwargs: object) -> Any:
        controller.begin_again()
        return inner(*args, **kwargs)

    given.inner_test = example
    try:
        yield
    finally:
        given.inner_test = inner


def is_failure(error: BaseException) -> bool:
    """Return True if pytest would count the error as a failed test, not as a skip or an
    interruption.
    """
    return isinstance(error, (Exception, SystemExit, pytest.fail.Exception)) and not isinstance(
        error, SKIPPED
    )


def _raised_by(handler: object, error: BaseException) -> bool:
    """Return True if a signal handler, for example that of pytest-timeout, raised an error.

    Then the time of the test is over, and the exploration must end.
    """
    code = getattr(handler, "__code__", None)
    return code is not None and any(frame.tb_frame.f_code is code for frame in _frames(error))


def _frames(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def cause_of(error: BaseException) -> Cause:
    """Return what two failures with the same reason have in common."""
    from ..search.explore import Cause

    place = user_place(error)
    words = textwrap.shorten(error_text(error), MAX_SUMMARY_CHARACTERS, placeholder=" ...")
    gravity = next(
        (number for number, kind in enumerate(WORST) if isinstance(error, kind)), len(WORST)
    )
    return Cause(type(error).__qualname__, place, f"{words} ({place})" if place else words, gravity)

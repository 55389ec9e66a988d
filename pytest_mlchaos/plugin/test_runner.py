"""Run the trials of one test: one trial for a fixed schedule, or as many as a search needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from .. import sites
from ..core import safety
from ..core.entries import Entry, Line, StrikeEntry, Timing
from ..core.faults import Fault, OneOf, is_drawn
from ..core.journal import Strike
from ..core.limits import Limits, limited_by
from ..core.privacy import error_text
from ..core.results import unstruck
from ..core.schedule import Schedule
from ..core.settings import Settings
from ..core.shard_entries import Searched
from ..core.sites import Key
from ..engine.controller import Controller
from ..engine.counters import ScheduledFault
from ..engine.patching import Patches
from ..errors import (
    BadArgument,
    FaultError,
    GaveUp,
    GoldenRunFailed,
    Inconclusive,
    InjectionForbidden,
    LimitReached,
    MlchaosError,
    NeverStruck,
    NotReproducible,
    ServiceFailed,
    SteadyStateFailed,
    Vacuous,
)
from ..reports import text
from ..search.space import Space, variants
from . import shard_option
from .alert_controls import AlertControls
from .fault_coverage import points_declared
from .launched import refuse_search, strikable
from .marks import (
    DeclaredFault,
    declared_by,
    declares_composite,
    fault_marks,
    replayed_schedule,
    settings_of,
    within_policy,
)
from .never_struck import (
    absent,
    elsewhere,
    in_set_up,
    remarks,
    struck_in_part,
    unused_state,
)
from .provenance import provenance_of
from .search_space import bounded_settings, space_of, suited_settings
from .session_budget import SEARCH_ENDED, within_session
from .test_entry import end_of_test, message_of
from .trial_runner import SKIPPED, Abort, Body, cause_of, is_failure

if TYPE_CHECKING:
    from ..search.explore import Cause, SearchResult

__all__ = ["Trials"]

_WITHOUT_FAULTS = (
    BadArgument,
    FaultError,
    GoldenRunFailed,
    InjectionForbidden,
    LimitReached,
    Vacuous,
)
"""Errors that do not depend on which faults struck, so no schedule is printed."""


class Trials:
    """Run an item's body under its declared faults, as many times as needed."""

    def __init__(
        self,
        item: pytest.Function,
        body: Callable[[], object],
        patches: Patches,
        grow: Callable[[Line], object] = lambda line: None,
    ) -> None:
        self._item = item
        self._body = Body(item, body, patches, grow)
        self._alerts = AlertControls(item, self._body)
        self._failing: Schedule | None = None  # the schedule of the reported failure
        self._judged = False  # True once a trial under faults has ended
        self._struck = False  # True once a trial's faults struck what it judges
        self._unstruck = ""  # the reason why a trial's faults did not
        self._skipped: BaseException | None = None
        # raised by a trial whose faults exceeded the restarts of the run
        self._void: BaseException | None = None
        # by declaration: the reason why a fault could not strike at a visit
        self._unfit: dict[int | None, BaseException] = {}
        self.untried: list[str] = []
        self.interrupted = ""  # the report of a search that was interrupted
        # By oracle: whether it could judge anything in some trial.
        self._judgements: dict[str, bool] = {}
        self._nodeid = self._body.nodeid
        self.declares = bool(fault_marks(item))
        self._known: list[DeclaredFault] = []
        self._late: list[Entry] = []
        self._searched: list[Entry] = []  # in a shard: what it says about its part of the search

    def __call__(self) -> None:
        """Run the test. Raise the error of the smallest failing trial."""
        try:
            self._all()
        except Abort as abort:
            raise abort.error from abort.error.__cause__
        finally:
            # Pytest keeps its items, so do not keep what the last trial held.
            self._body.controller = None
            self._body.kept = {}
            self._late = self._entries_of_test()

    def forget(self) -> None:
        """Drop what the last trial left in memory. Call this after the fixtures are torn down."""
        self._body.forget()

    @property
    def runs(self) -> int:
        """Return the number of trials."""
        return self._body.runs

    @property
    def on_the_real_clock(self) -> bool:
        """Return True if the clock of some trial had to be real."""
        return bool(self._body.clock)

    @property
    def lines(self) -> list[Line]:
        """Return the entries of all trials."""
        return self._body.lines

    @property
    def strikes(self) -> int:
        """Return the number of strikes in all trials."""
        return sum(isinstance(line.entry, StrikeEntry) for line in self.lines)

    def ended(
        self, outcome: str, error: BaseException | None, start: float, seconds: float
    ) -> list[Line]:
        """Return all entries of the test, which has ended.

        Args:
            outcome: ``passed``, ``failed``, ``skipped`` or ``interrupted``.
            error: The error that ended it, or None.
            start: The start, in seconds since 1970.
            seconds: The duration.
        """
        entry = end_of_test(self._item, self._failing, outcome, error)
        entry = dataclasses.replace(
            entry,
            faults=tuple(repr(one.fault) for one in self._known),
            trials=self.runs,
            strikes=self.strikes,
            real_clock=self.on_the_real_clock,
            untried=tuple(self.untried if outcome == "passed" else ()),
        )
        timing = Timing(
            of="test", start=round(start, 6), seconds=seconds, message=message_of(error)
        )
        source = provenance_of(self._item, (line.entry for line in self.lines))
        late = (*self._late, *([source] if source is not None else []), entry, timing)
        return [*self.lines, *(Line(self._item.nodeid, 0, one) for one in late)]

    def _entries_of_test(self) -> list[Entry]:
        """Return the entries about all trials of the test. Call this while its project is known."""
        coverage = self._body.coverage
        found: list[Entry] = [*points_declared(self._item), *self._searched]
        return found if coverage is None else [*found, *coverage.ended(self._known)]

    def _all(self) -> None:
        sites.load()
        settings = settings_of(self._item.config, self._item)
        with limited_by(Limits.of(settings)):
            self._limited(settings)

    def _limited(self, settings: Settings) -> None:
        config = self._item.config
        schedule, declared = self._declared(settings)
        self._body.judging = not config.getoption("mlchaos_off")
        if schedule is not None and not schedule.faults:
            if self._body.judging and not settings.allow_quiet:
                self._body.idle = "this test declares no fault"
            self._body.run(schedule, settings)
            self._alerts.after(schedule, settings)
            return
        safety.refuse_production(config.getini("mlchaos_production"))
        if hasattr(self._item, "addFailure"):
            raise BadArgument(
                "chaos faults work on test functions and plain test classes, not on methods of "
                "unittest.TestCase"
            )
        if schedule is not None:
            self._once(schedule, settings)
        else:
            refuse_search()
            self._explored(declared, settings)

    def _declared(self, settings: Settings) -> tuple[Schedule | None, list[DeclaredFault]]:
        """Return the one schedule to run. If something must be drawn, return None and the declared
        faults.
        """
        config = self._item.config
        if config.getoption("mlchaos_off"):
            return Schedule(), []
        schedule = replayed_schedule(config)
        self._body.by_composite = declares_composite(self._item)
        declared = self._known = declared_by(self._item) if schedule is None else []
        if schedule is None and all(one.fault.is_pinned for one in declared):
            schedule = Schedule(tuple(one.fault for one in declared), settings.seed or 0)
        return schedule, declared

    # -- one schedule ------------------------------------------------------------------------------

    def _once(self, schedule: Schedule, settings: Settings) -> None:
        strikes: list[Strike] = []
        self._alerts.before(schedule, settings)
        try:
            controller = self._body.run(schedule, settings, strikes)
        except BaseException as error:
            if is_failure(error) and not isinstance(error, _WITHOUT_FAULTS):
                clock, (shown, caveat) = (
                    self._body.clock,
                    self._printable(schedule, settings, cause_of(error)),
                )
                self._failing = None if caveat else shown
                error.add_note(text.one_trial(shown, strikes, self._nodeid, clock, caveat))
            self._explain_mismatch(error)
            raise
        if not self._body.strikes_here:
            return  # the journals of all ranks together show if the faults struck
        silent = [one.fault for one in strikable(controller) if not one.total]
        if silent and not settings.allow_quiet:
            if unfit := _mismatch(controller):
                raise unfit
            hint = (
                remarks(controller)
                or unused_state(silent)
                or absent(silent)
                or text.describe_names_seen(silent, controller.passed(), controller.names)
                or elsewhere(silent, controller)
            )
            raise NeverStruck(
                text.describe_never_struck(silent, self._all_passed(controller, settings), hint)
            )
        if self._body.missed:
            raise Vacuous(self._body.missed)
        if not settings.allow_quiet:
            if partly := [
                line for scheduled in controller.scheduled if (line := struck_in_part(scheduled))
            ]:
                raise NeverStruck(
                    "\n".join(
                        [
                            *partly,
                            f"sites passed: {text.describe_passed_sites(controller.passed())}",
                        ]
                    )
                )
            if missed := unstruck(controller.results, controller.journal):
                raise Vacuous(missed)
        self._alerts.after(schedule, settings)

    def _explain_mismatch(self, error: BaseException) -> None:
        """Add a note to an error if a fault could not strike, which may be its cause."""
        controller = self._body.controller
        unfit = None if controller is None else _mismatch(controller)
        if unfit is not None and is_failure(error):
            error.add_note(f"mlchaos: {unfit}")

    def _printable(
        self, schedule: Schedule, settings: Settings, cause: Cause
    ) -> tuple[Schedule, str]:
        """Return the schedule in a form that can be pasted, and a caveat if it fails differently.

        A predicate cannot be printed. Its fault is pinned to the visits and ranks that it struck,
        and the pinned schedule is run once.
        """
        scheduled_faults = (
            self._body.controller.scheduled if self._body.controller is not None else []
        )
        if not any(scheduled.fault.where is not None for scheduled in scheduled_faults):
            return schedule, ""
        faults = [
            fault
            for scheduled in scheduled_faults
            for fault in (
                _pin_to_strikes(scheduled)
                if scheduled.fault.where is not None
                else [scheduled.fault]
            )
        ]
        pinned = dataclasses.replace(schedule, faults=tuple(faults))
        try:
            self._body.run(pinned, settings)
        except BaseException as error:  # a failed replay must not replace the original failure
            if not is_failure(error) and not isinstance(error, (*SKIPPED, Abort)):
                raise
            if is_failure(error) and cause_of(error) == cause:
                return pinned, ""
        return schedule, text.does_not_print(schedule)

    def _all_passed(self, controller: Controller, settings: Settings) -> dict[Key, int]:
        """Return all visits of the test. One more trial, without faults, watches every site."""
        try:
            return {
                **self._body.run(Schedule(), settings, probing=True).passed(),
                **controller.passed(),
            }
        except Exception:  # noqa: BLE001
            # the test needs its faults, so use the counts that are known
            return controller.passed()

    # -- exploration -------------------------------------------------------------------------------

    def _explored(self, declared: list[DeclaredFault], settings: Settings) -> None:
        if hasattr(self._item.obj, "hypothesis"):
            raise BadArgument(
                "a test with its own @given needs pinned faults: give each fault at= (or p=) and "
                "fixed parameters"
            )
        if "subtests" in self._item.fixturenames:
            raise BadArgument(
                "a test with subtests needs pinned faults (at= or p=, fixed parameters): pytest "
                "reports the subtests of each trial"
            )
        from ..search.explore import explore

        self._body.drawn = True
        settings = within_policy(suited_settings(settings, declared))
        space, passed = self._probed(declared, settings)
        assert self._body.controller is not None
        self._alerts.had_trial_without_faults()
        settings = bounded_settings(settings, self._body.controller)
        bounded = within_session(self._item.config, settings)
        struck: set[int | None] = set()
        shard = shard_option.shard_of_search(self._item)
        found = explore(
            space,
            functools.partial(self._judge, settings=settings, struck=struck, space=space),
            bounded,
            self._item.nodeid,
            unit=self._unit(),
            interrupted=self._keep_interrupted,
            shard=shard,
        )
        self.untried = found.untried
        if found.out_of_budget and bounded is not settings:
            self._item.stash[SEARCH_ENDED] = True
        if not found.failures and shard is not None:
            if not settings.allow_quiet:
                self._searched = [self._told_to_the_others(declared, struck)]
            self._alerts.after(_all_declared(declared, settings), settings)
            return
        if not found.failures:
            if self._void is not None and not self._judged:
                raise self._void  # nothing survived any schedule
            if not settings.allow_quiet:
                self._check_struck(declared, struck, passed)
                self._check_judged(found.trials)
            if self._unstruck and not self._struck and not settings.allow_quiet:
                raise Vacuous(self._unstruck)
            if self._skipped is not None and not self._judged:
                raise self._skipped  # skipped under every fault, so nothing was tested
            self._alerts.after(_all_declared(declared, settings), settings)
            return
        strikes: list[Strike] = []
        smallest = found.failures[0]
        report = functools.partial(
            text.describe_exploration,
            found.trials,
            sum(failure.count for failure in found.failures),
            found.failures,
            nodeid=self._nodeid,
            sites=passed,
            cut_short=found.out_of_budget,
            untried=found.untried,
        )
        try:
            self._body.run(smallest.smallest, settings, strikes)
        except BaseException as error:
            if is_failure(error):
                self._failing = smallest.smallest
                error.add_note(report(strikes, clock=self._body.clock))
            raise
        raise NotReproducible(
            f"{smallest.smallest.line} failed ({smallest.cause.summary}) and passed when it was "
            f"repeated: "
            "the test depends on more than its schedule (time, threads, state kept between trials)"
        )

    def _told_to_the_others(
        self, declared: list[DeclaredFault], struck: set[int | None]
    ) -> Searched:
        """Return what is a failure only if it is so in all shards."""
        silent = [one.fault for one in declared if one.fault._origin not in struck]
        void = "" if self._void is None or self._judged else error_text(self._void)
        return Searched(
            silent=tuple(f"{fault._origin}: {fault!r}" for fault in silent),
            idle=tuple(name for name, judges in self._judgements.items() if not judges),
            judged=tuple(name for name, judges in self._judgements.items() if judges),
            unstruck="" if self._struck else self._unstruck,
            struck=self._struck,
            void=void,
            skipped=self._skipped is not None and not self._judged,
        )

    def _unit(self) -> str:
        """Return the name of a trial in the progress line: it counts worlds if each runs one."""
        assert self._body.controller is not None
        methods = [result.what for result in self._body.controller.results]
        return "worlds" if methods == ["world.run"] else "schedules"

    def _keep_interrupted(self, found: SearchResult) -> None:
        """Keep the report of what an interrupted search has found. pytest shows no error then."""
        self.interrupted = text.describe_interrupted(
            self._item.name, found.trials, found.failures, self._nodeid, shrinking=found.shrinking
        )

    def _probed(
        self, declared: list[DeclaredFault], settings: Settings
    ) -> tuple[Space, dict[Key, int]]:
        """Run the trial without faults. It must pass, and records which visits can be targeted."""
        owners = [
            (member, variant)
            for one in declared
            for member in one.members()
            for variant in variants(member.fault, member.given)
        ]
        try:
            controller = self._body.run(
                Schedule(tuple(variant for _, variant in owners), settings.seed or 0),
                settings,
                probing=True,
            )
        except Exception as error:
            if not isinstance(error, (FaultError, BadArgument, InjectionForbidden, Vacuous)):
                error.add_note(
                    "mlchaos: this is the first trial, without any fault. The test must pass it "
                    "before faults are tried"
                )
            raise
        space = space_of(owners, controller, declared, settings)
        for one in declared if not settings.allow_quiet else ():
            if not any(
                probe.visits or probe.fault.continuous
                for probe in space.probes
                if probe.fault._origin == one.fault._origin
            ):
                if unfit := _mismatch(controller, one.fault._origin):
                    raise unfit
                hint = (
                    in_set_up(one.fault, controller)
                    or absent([one.fault])
                    or text.describe_names_seen([one.fault], controller.passed(), controller.names)
                    or elsewhere([one.fault], controller)
                )
                raise NeverStruck(
                    text.describe_never_struck([one.fault], controller.passed(), hint)
                )
        return space, controller.passed()

    def _judge(
        self, schedule: Schedule, settings: Settings, struck: set[int | None], space: Space
    ) -> Cause | None:
        """Return the cause of a trial's failure, or None. Raise an error that ends the exploration."""
        strikes: list[Strike] = []
        try:
            controller = self._body.run(schedule, settings, strikes)
            self._judged = True
            missed = unstruck(controller.results, controller.journal)
            self._unstruck, self._struck = (
                missed or self._unstruck,
                self._struck or (bool(strikes) and not missed),
            )
        except InjectionForbidden as error:
            raise Abort(error) from None
        except (FaultError, BadArgument, LimitReached, Vacuous, SteadyStateFailed) as error:
            error.add_note(text.one_trial(schedule, strikes, self._nodeid, self._body.clock))
            raise Abort(error) from None
        except BaseException as error:
            if isinstance(error, SKIPPED):
                self._skipped = error
                return None
            if not is_failure(error):
                raise
            if _asked_too_much(error, schedule, space) or self._prevented_start(error, schedule):
                self._void = error
                return None
            return cause_of(error)
        finally:
            if self._body.controller is not None:
                struck.update(
                    scheduled.fault._origin
                    for scheduled in self._body.controller.scheduled
                    if scheduled.total
                )
                self._unfit.update(
                    (scheduled.fault._origin, scheduled.mismatch)
                    for scheduled in self._body.controller.scheduled
                    if scheduled.mismatch
                )
                for oracle, judges in self._body.controller.judgements.items():
                    self._judgements[oracle] = self._judgements.get(oracle, False) or judges
        return None

    def _prevented_start(self, error: BaseException, schedule: Schedule) -> bool:
        """Return True if an app refused to start, as a sound one may under these faults."""
        controller = self._body.controller
        return (
            isinstance(error, ServiceFailed)
            and controller is not None
            and controller.is_injected(error.__cause__)
            and all(fault.may_prevent_start for fault in schedule.faults)
        )

    def _check_judged(self, trials: int) -> None:
        idle = [oracle for oracle, judges in self._judgements.items() if not judges]
        if idle and idle[0].startswith("Watch."):
            raise Inconclusive(
                f"{idle[0]} judged nothing: in each of the {trials} schedules, the run ended before "
                f"within= was over. Let the run go on for longer after the faults, or choose early "
                f"visits with at="
            )
        if idle:
            raise BadArgument(
                f"{idle[0]} judged nothing: in none of the {trials} schedules did a fault strike "
                f"while the requests that "
                "it judges were handled (work in a different process is not seen). Let the fault "
                "strike there, or remove the assertion"
            )

    def _check_struck(
        self, declared: list[DeclaredFault], struck: set[int | None], passed: dict[Key, int]
    ) -> None:
        silent = [one.fault for one in declared if one.fault._origin not in struck]
        if silent:
            if unfit := next(
                (self._unfit[fault._origin] for fault in silent if fault._origin in self._unfit),
                None,
            ):
                raise unfit
            raise NeverStruck(text.describe_never_struck(silent, passed, absent(silent)))


def _mismatch(controller: Controller, origin: int | None = None) -> MlchaosError | None:
    """Return the reason why a fault, or the declared one, could not strike, or None."""
    return next(
        (
            scheduled.mismatch
            for scheduled in controller.scheduled
            if scheduled.mismatch
            and not scheduled.total
            and origin in (None, scheduled.fault._origin)
        ),
        None,
    )


def _asked_too_much(error: BaseException, schedule: Schedule, space: Space) -> bool:
    """Return True if the search scheduled more process deaths than the run may restart.

    Then the failure says nothing about the subject. A single strike counts as a failure, because
    no smaller schedule exists.
    """
    if not isinstance(error, GaveUp) or not all(error.ended_by):
        return False
    drawn = [fault for fault in schedule.faults if space.open_visits(fault)]
    return sum(len(fault.at) for fault in drawn) > 1 and not {
        repr(fault) for fault in drawn
    }.isdisjoint(error.ended_by)


def _pin_to_strikes(scheduled: ScheduledFault) -> list[Fault]:
    """Return a scheduled fault at the visits that it struck.

    If all ranks were struck alike, return one fault for all of them. Else return one for each rank.
    """
    visits: dict[int | None, list[int]] = {}
    for rank, visit in scheduled.strikes:
        visits.setdefault(rank, []).append(visit)
    ranks = (
        [scheduled.fault.rank]
        if len(visits) > 1 and len({tuple(sorted(each)) for each in visits.values()}) == 1
        else list(visits)
    )
    some = next(iter(visits.values()), [])
    return [
        dataclasses.replace(
            scheduled.fault, at=visits.get(rank, some), rank=rank, where=None, times=None, p=None
        )
        for rank in ranks
        if some
    ]


def _all_declared(declared: list[DeclaredFault], settings: Settings) -> Schedule:
    """Return a schedule of the declared faults, for a control that lets them strike everywhere.

    A parameter that is drawn has its default, or the first of its alternatives.
    """
    faults = [_undrawn(member.fault) for one in declared for member in one.members()]
    return Schedule(tuple(faults), settings.seed or 0)


def _undrawn(fault: Fault) -> Fault:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(fault):
        value = getattr(fault, field.name)
        if field.compare and is_drawn(value):
            changes[field.name] = value.values[0] if isinstance(value, OneOf) else field.default
    return dataclasses.replace(fault, **changes) if changes else fault

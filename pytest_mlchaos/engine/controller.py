"""Define the controller, which all visits of all sites pass.

The steps of one visit are: user code, a site, ``visit``, the look-up of due faults,
``fault.apply``, the journal, and back into user code with the payload, a delay or an exception.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.clock import Clock, RealClock
from ..core.interrupts import deferred, handler, register_open, uninterruptible, unregister_open
from ..core.journal import Journal, Strike
from ..core.phases import quiet, raised
from ..core.points import Points, listen, stop_listening
from ..core.policy import check_fault
from ..core.records import Preemption
from ..core.results import HandedResult, Result
from ..core.schedule import Schedule
from ..core.sites import Collective, Key, Stream, Visit, key_of, name_of
from ..errors import MlchaosError, SimulatedCrash
from .attribution import attribute_strike, forget_scopes
from .beside_process import BesideProcess
from .call_times import CallTimes
from .counters import NO_VISIT, ProcessCounts, ScheduledFault, VisitCounter, most_passed
from .error_origin import comes_from
from .forks import Forks
from .gate import Gate
from .injector import Injector
from .nesting import SubjectState
from .own_rank import OwnRank
from .process_state import NOTICES
from .remote_state import RemoteState, merge_into
from .subjects import SubjectListener
from .visit_listeners import VisitListeners

__all__ = ["Controller", "current", "current_clock"]

NO_ATTRIBUTES: Mapping[str, Any] = {}

_active: list[Controller] = []


def _share() -> None:
    """Prepare for a fork, which is about to happen."""
    for controller in _active:
        controller.share()


def _go_on_in_child() -> None:
    """Make a forked child part of the trial, if faults may strike in it."""
    for controller in [*_active]:
        controller.clock.become_real("this is a child process")
        if not controller.born():
            _active.remove(controller)
            stop_listening(controller.points)
            controller.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_share, after_in_child=_go_on_in_child)


def current() -> Controller | None:
    """Return the controller of the running trial, or None."""
    return _active[-1] if _active else None


def current_clock() -> Clock:
    """Return the clock of the running trial, or the real one."""
    return _active[-1].clock if _active else RealClock()


class Controller(SubjectState):
    """Count visits, apply faults that are due, and keep the journal.

    Sites call ``visit`` or ``begin``.

    Args:
        schedule: The faults of the trial.
        clock: The trial's clock. The real clock without one.
        probing: True in the first trial of a search, without faults. Faults note the visits at
            which they can strike.
        own: The test's own directories. Faults ignore files in others.

    Attributes:
        names: A few names by site, for example of files.
    """

    attempts = 0  # the number of attempts so far
    _strikes_before = 0  # the number of strikes before the last attempt
    fault_ended: float | None = None  # the end of the last strike, on the trial's clock
    # Of each visit in this process, for example its rank in a world.
    attributes: Mapping[str, Any] = NO_ATTRIBUTES

    def __init__(
        self,
        schedule: Schedule,
        clock: Clock | None = None,
        *,
        probing: bool = False,
        own: Iterable[Path] = (),
    ) -> None:
        check_fault(*schedule.faults)  # before any site is armed
        self.schedule = schedule
        self.clock: Clock = clock or RealClock()
        self.began = self.clock.peek()
        self.own = tuple(own)
        self.journal = Journal(self.hear)
        # Sends events to a different process, if this one reports to it.
        self._send: Callable[..., object] | None = None
        self._striking: ScheduledFault | None = None  # the fault whose strike was sent last
        # Type and text of errors that were raised in forked processes.
        self._injected_there: list[tuple[str, str]] = []
        self.started_afresh: list[str] = []  # the start methods of processes that were not forked
        # The processes that this one has forked, or that this one is part of.
        self.forks: Forks | None = None
        self.names: dict[str, dict[str, None]] = {}
        self.probing = probing
        # The points that the trial has reached, by mlchaos.reachable and mlchaos.sometimes.
        self.points = Points()
        # The results that the test has received from the fixture, and if it judged them.
        self.results: list[HandedResult] = []
        self.scheduled = [
            ScheduledFault(fault, place, schedule.seed)
            for place, fault in enumerate(schedule.faults)
        ]
        self.crash: SimulatedCrash | None = None
        self.broken: MlchaosError | None = None
        self.own_rank = OwnRank()
        self.counted: dict[str, int] = {}  # by target: its calls in golden runs
        self.call_times: dict[Key, CallTimes] = {}  # of these targets, also in golden runs
        self.injected: list[BaseException] = []
        self.claims: list[Callable[[BaseException], bool]] = []
        self.interrupt: Callable[[], None] | None = None
        self.resources = contextlib.ExitStack()  # closed at the end of the body, also after errors
        self.process = contextlib.ExitStack()  # closed at the end of the attempt, or of the body
        self.elsewhere: dict[int, ProcessCounts] = {}
        # Opens the contexts that last as long as the body.
        self.activate_continuous_faults: Callable[[], None] = lambda: None
        self.preempted: Any = None  # the notice to the current process, after a signal to end
        self.signalled: str | None = None  # the site at which a signal handler is running
        self.roots: tuple[Path, ...] = ()  # the work directories of a supervised subject
        self.judgements: dict[str, bool] = {}  # by oracle: True if it has found anything to judge
        self.handlers = {
            number: handler(number) for number in map(signal.Signals.__getitem__, NOTICES)
        }  # at the start of the trial
        self.restarts: int | None = None  # the smallest number that a run of this trial allows
        self.limit: tuple[float, float] | None = None  # its seconds, and its end on the real clock
        self.struck_tables: list[tuple[Any, Any]] = []  # each before and after its strike
        self.unremoved: set[str] = set()  # the files whose removal a fault has made fail
        self._begin_listeners()
        self._closed = False
        self._applying = threading.local()
        self.lock = threading.Lock()
        self._injector = Injector(self)
        self._counters: dict[Key, VisitCounter] = {}
        self.visit_listeners = VisitListeners(self)
        self.armed: set[Key] = set()
        self.late_results: list[Result] = []  # with entries that are known at the end of the trial
        # Makes the visits of threads that serve a process of the subject, while it runs.
        self.beside: BesideProcess | None = None

    def _begin_listeners(self) -> None:
        """Set the lists of functions that are called when something happens in the trial."""
        # Called when the fixtures are torn down, before the next trial.
        self.forget: list[Callable[[], None]] = []
        self.on_change = []
        self._on_crash: list[Callable[[], None]] = []
        self.subject_listeners: list[SubjectListener] = []

    # -- what sites call ---------------------------------------------------------------------------

    @property
    def is_applying(self) -> bool:
        """Return True while this thread applies a fault, whose own work is not a visit."""
        return getattr(self._applying, "on", False)

    def visit(
        self,
        key: Key,
        payload: object = None,
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
        source: Stream | None = None,
    ) -> Any:
        """Pass a site. Return the payload: the very same object unless a fault strikes.

        Args:
            key: The key that the site was armed with.
            payload: What passes, for example a batch.
            attributes: What else a fault or a ``where=`` may look at, by name.
            source: The stream that the payload comes from, if a fault may drop, repeat or reorder
                payloads here.
        """
        try:
            counter = self._counters[key]
        except KeyError:
            counter = self._open(key)
        counter.passed = passed = counter.advance()
        if passed <= counter.next_due:
            return payload
        visit = self._strike(key, counter, passed - 1, payload, attributes, None, source)
        if visit is None:
            return payload
        Gate(visit, self.clock).wait()
        return visit.payload

    def begin(
        self,
        key: Key,
        payload: object = None,
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
        operation: Collective | None = None,
    ) -> Gate | None:
        """Start an operation at a site.

        Call ``gate.wait()`` inside ``with gate`` before the operation. A coroutine awaits
        ``gate.wait_async()``. The new payload is ``gate.payload``.

        Args:
            key: The key that the site was armed with.
            payload: The object that passes, for example the arguments of a call.
            attributes: More values by name, for a fault or a ``where=``.
            operation: The collective that is about to be launched, if it is one.

        Returns:
            The gate to run the operation in, or None if no fault is due.
        """
        try:
            counter = self._counters[key]
        except KeyError:
            counter = self._open(key)
        counter.passed = passed = counter.advance()
        if passed <= counter.next_due:
            return None
        visit = self._strike(
            key, counter, passed - 1, payload, attributes, contextlib.ExitStack(), None, operation
        )
        return None if visit is None else Gate(visit, self.clock)

    # -- what trials and runs call -----------------------------------------------------------------

    def __enter__(self) -> Controller:
        register_open(self)
        _active.append(self)
        listen(self.points)
        return self

    def __exit__(self, *_: object) -> None:
        with deferred():
            self.hear()
            if self in _active:
                _active.remove(self)
            stop_listening(self.points)
            self.close()
            unregister_open(self)

    def close(self) -> None:
        """Stop all strikes, also for code that still holds a wrapper of this trial."""
        self._end_forks()
        self._closed = True
        self._rearm()

    def passed(self) -> dict[Key, int]:
        """Return the number of visits of each site.

        With several processes, take the highest number.
        """
        self.hear()
        return most_passed(
            {key: counter.passed for key, counter in self._counters.items()},
            *(counts.passed for counts in self.elsewhere.values()),
        )

    def count(self, key: Key, *, succeeded: bool = False) -> int:
        """Return the number of visits of a site.

        ``succeeded`` leaves out visits that a fault made fail.
        """
        self.hear()
        counter = self._counters.get(key)
        return counter.passed - (counter.failed if succeeded else 0) if counter else 0

    def counts(self) -> ProcessCounts:
        """Return the counts, for a process that continues from here."""
        counters = self._counters.items()
        return ProcessCounts(
            {key: counter.passed for key, counter in counters},
            {scheduled.index: scheduled.struck for scheduled in self.scheduled},
        )

    def go_on_from(self, counts: ProcessCounts) -> None:
        """Continue to count from the numbers of a different process, and add its failures."""
        for scheduled in self.scheduled:
            if scheduled.fault.continuous:
                scheduled.struck = counts.struck.get(scheduled.index, 0)
        for key, visit in counts.passed.items():
            counter = self._open(key)
            counter.go_on_from(visit)
            counter.failed += counts.failed.get(key, 0)
            self._opened(key, counter)
            for scheduled in counter.scheduled:
                scheduled.go_on_from(visit, counts.struck.get(scheduled.index, 0))
            self._schedule(counter)

    def restart(self) -> None:
        """Start a new process after a crash: the sites are active again.

        Free the memory of the old process. The tracebacks of injected errors hold its frames, with
        its models and loader workers.
        """
        self._end_forks()
        self.crash = None
        self.end_process()
        for error in self.injected:
            raised(error)
            error.__traceback__ = None
        self.injected.clear()
        self._rearm()

    def begin_again(self) -> None:
        """Start the body again, for the next example of a user's own ``@given``."""
        self.resources.close()
        self._end_forks()
        self.end_process()
        self._counters, self.crash, self.elsewhere, self.preempted = {}, None, {}, None
        self.results.clear()
        for scheduled in self.scheduled:
            scheduled.begin_again()
        self.activate_continuous_faults()

    def end_process(self) -> None:
        """End all contexts and memories of faults that last as long as the process."""
        self.journal.end_process()
        for scheduled in self.scheduled:
            scheduled.memory = {}
        self.process.close()

    def at_work(self, scheduled: ScheduledFault) -> bool:
        """Return True if a continuous fault may strike now.

        It may not in a golden run, in a dead process, or while the plugin itself is working.
        """
        return (
            scheduled in self.scheduled
            and not self._closed
            and self.crash is None
            and not self.is_applying
        )

    @uninterruptible
    def watching_steps(self, on_step: Callable[[], None]) -> Iterator[None]:
        """Call ``on_step`` at each optimizer step."""
        counter = self._counters.get("train.step") or self._open("train.step")
        count = counter.counting()

        def advance() -> int:
            on_step()
            return count()

        counter.advance = advance
        try:
            yield
        finally:
            counter.advance = count

    def may_restart(self, times: int) -> None:
        """Record how many restarts a run of this trial allows."""
        self.restarts = times if self.restarts is None else min(times, self.restarts)

    def failed(self, site: str) -> None:
        """Record that a counted operation did not happen."""
        if site in self._counters:
            self._counters[site].failed += 1

    @uninterruptible
    def on_crash(self, freeze: Callable[[], None], *, first: bool = False) -> Iterator[None]:
        """Call ``freeze`` at the moment of a crash, before any code unwinds.

        ``first`` puts it before the others.
        """
        self._on_crash.insert(0 if first else len(self._on_crash), freeze)
        try:
            yield
        finally:
            self._on_crash.remove(freeze)

    def is_quiet(self, key: Key) -> bool:
        """Return True if no fault looks at the next visit (or any, if other processes count)."""
        counter = self._counters.get(key)
        if counter is None:
            return False
        return counter.next_due == NO_VISIT or (
            self.forks is None and counter.passed < counter.next_due
        )

    def is_due_later(self, key: Key) -> bool:
        """Return True if a fault is due at a later visit of this key."""
        counter = self._counters.get(key)
        return counter is not None and not self._closed and counter.next_due < NO_VISIT

    @uninterruptible
    def attempt(self, *, goes_on: bool = False) -> Iterator[None]:
        """Mark the code as the process that a crash ends. With ``goes_on``, it outlives the code."""
        self.supervised += 1
        self.attempts += 1
        self._strikes_before = len(self.journal)
        self.changed()
        try:
            yield
        finally:
            self.supervised -= 1
            self.changed()
            if not goes_on or self.crash is not None:
                self.end_process()

    @uninterruptible
    def without_faults(self) -> Iterator[None]:
        """Run a golden run inside: sites are counted from 0 and no fault strikes.

        Restore all counts at the end.
        """
        self.hear()
        self._quiet += 1
        self.changed()
        kept = self._counters, self.crash, self.scheduled, self.names, self.elsewhere
        self._counters, self.crash, self.scheduled, self.names, self.elsewhere = (
            {},
            None,
            [],
            {},
            {},
        )
        try:
            with (
                self.forks.paused()
                if self.forks is not None and not self.forks.name
                else contextlib.nullcontext(),
                quiet(),
            ):
                yield
        finally:
            for target, number in self.calls().items():
                self.counted[target] += number
            self._counters, self.crash, self.scheduled, self.names, self.elsewhere = kept
            self._quiet -= 1
            self.changed()

    def calls(self) -> dict[str, int]:
        """Return how often each target was called whose calls the test counts."""
        passed = self.passed() if self.counted else {}
        return {target: passed.get(key_of(target), 0) for target in self.counted}

    def is_injected(self, error: BaseException | None) -> bool:
        """Return True if a fault raised this exception, or one that it was raised ``from``."""
        self.hear()
        return (
            comes_from(error, self.injected, self._injected_there)
            or (error is not None and any(claim(error) for claim in self.claims))
            or (isinstance(error, Exception) and self._refuses_damage())
        )

    def _refuses_damage(self) -> bool:
        """Return True if an error of a run's subject is its answer to a composite fault.

        A sound program may refuse what is damaged. It is started again, as an operator would do.
        """
        struck = len(self.journal) > self._strikes_before
        return self.by_composite and struck and self.inside == "mlchaos.run"

    # -- processes that the subject forks ----------------------------------------------------------

    def share(self) -> None:
        """Count visits and report strikes together with the child, before a fork."""
        if self.forks is None:
            scheduled_faults = list(filter(self.own_rank.strikes_in_children, self.scheduled))
            if not scheduled_faults or self._closed or self.crash is not None:
                return
            keys = list(dict.fromkeys(scheduled.fault.key for scheduled in scheduled_faults))
            forks = Forks(keys, len(self.scheduled))
            self.own_rank.begin(forks, self.elsewhere)
            forks.begin(
                {key: self._counters[key].passed for key in keys if key in self._counters},
                {scheduled.index: scheduled.struck for scheduled in scheduled_faults},
            )
            self.forks = forks
            for key in keys:
                if key in self._counters:
                    self._counters[key].count_with(functools.partial(forks.advance, key))
        self.forks.children += 1

    def born(self) -> bool:
        """Continue in a forked child. Return False if no fault may strike in it."""
        if self.forks is None or self._closed or self.crash is not None or not self.scheduled:
            return False
        self.forks.born()
        self.lock, self.interrupt = threading.Lock(), None
        self._send = self.forks.tell
        self._report_points()
        self._on_crash[:] = [functools.partial(os.kill, os.getpid(), signal.SIGKILL)]
        self.scheduled = list(filter(self.own_rank.strikes_in_children, self.scheduled))
        self.own_rank.is_inherited = True
        for key, counter in self._counters.items():
            here = self.own_rank.scheduled_at(key, self)
            counter.scheduled = [scheduled for scheduled in here if scheduled in counter.scheduled]
        forget_scopes()
        self._rearm()
        return True

    def recount(self) -> None:
        """Count visits as the rank that this process has become."""
        with self.lock:
            for key, counter in self._counters.items():
                counter.scheduled = self.own_rank.scheduled_at(key, self)
                self.own_rank.go_on(key, counter, self.forks)
                self._schedule(counter)

    def activate(self) -> None:
        """Become the controller of this process until it ends."""
        _active.append(self)

    def _report_points(self) -> None:
        """Report the points that this process reaches from now on, and forget those so far."""
        stop_listening(self.points)
        assert self._send is not None
        self.points = Points(functools.partial(self._send, "point"))
        listen(self.points)

    def hear(self) -> None:
        """Read the messages of forked processes since the last call."""
        forks = self.forks
        if forks is None or forks.name or not self.scheduled:
            return
        heard = RemoteState()
        for message in forks.told():
            if message[0] == "failed" and message[2] != forks.rank:
                continue  # a different rank counts its own visits
            heard.take(*message)
            self._relay(*message)
        merge_into(self, heard, ended=False)
        for place, strike in heard.strikes:
            now = self.clock.now()
            attribute_strike(strike, now, now, self.scheduled[place].fault.key)
        for key, number in heard.failures.items():
            self._open(key).failed += number
        self._injected_there += heard.injected
        for key in forks.keys:
            if passed := forks.passed(key):
                counter = self._open(key)
                counter.passed = max(counter.passed, passed)
        self.own_rank.hear(forks, self.elsewhere)

    def _relay(self, kind: str, *content: object) -> None:
        """Forward a message of a forked process. Subclasses override this."""

    def _end_forks(self) -> None:
        """Detach the processes that were forked so far from the trial."""
        self.hear()
        forks, self.forks = self.forks, None
        if forks is not None:
            for key in forks.keys:
                if key in self._counters:
                    counter = self._counters[key]
                    counter.count_with(itertools.count(counter.passed + 1).__next__)
            forks.close()

    def note(self, scheduled: ScheduledFault, **details: object) -> None:
        """Record a strike of a fault that is not bound to a visit."""
        self._injector.record(
            scheduled, Strike(scheduled.text, name_of(scheduled.fault.key), 0, details)
        )

    def tell_strike(self, scheduled: ScheduledFault, strike: Strike) -> None:
        """Report a strike to the parent process, if there is one."""
        self._striking = scheduled
        self.visit_listeners.strikes += 1
        if self._send is not None:
            self._send("strike", scheduled.index, strike)

    def _probe(self, counter: VisitCounter, visit: Visit) -> None:
        self._injector.probe(counter, visit)
        if self._send is not None:
            for scheduled in counter.scheduled:
                if scheduled.eligible and scheduled.eligible[-1] == visit.index:
                    self._send("eligible", scheduled.index, visit.index)
                    self._send("measured", {scheduled.index: scheduled.measures})

    # -- the slow path -----------------------------------------------------------------------------

    def _open(self, key: Key) -> VisitCounter:
        with self.lock:
            counter = self._counters.get(key)
            if counter is None:
                counter = VisitCounter()
                counter.scheduled = self.own_rank.scheduled_at(key, self)
                self._opened(key, counter)
                if self.forks is not None and counter.scheduled and self.forks.is_counted(key):
                    counter.count_with(functools.partial(self.forks.advance, key))
                if key in self.call_times:
                    counter.advance = self.call_times[key].recording(counter.counting())
                self.visit_listeners.attach(counter)
                self._counters[key] = counter
                self._schedule(counter)
            return counter

    def _opened(self, key: Key, counter: VisitCounter) -> None:
        """Prepare a counter before its first use. Subclasses override this."""

    def _schedule(self, counter: VisitCounter) -> None:
        if self._closed:
            counter.next_due = NO_VISIT
        elif self.crash is not None:
            counter.next_due = -NO_VISIT
        elif self.probing:
            counter.next_due = 0 if counter.scheduled else NO_VISIT
        else:
            counter.next_due = min(
                (scheduled.next_due for scheduled in counter.scheduled), default=NO_VISIT
            )

    def _rearm(self) -> None:
        for counter in list(self._counters.values()):
            self._schedule(counter)

    def _strike(
        self,
        key: Key,
        counter: VisitCounter,
        number: int,
        payload: object,
        attributes: Mapping[str, Any],
        stack: contextlib.ExitStack | None,
        source: Stream | None = None,
        operation: Collective | None = None,
    ) -> Visit | None:
        """Apply the faults that are due at this visit. Return None if there are none."""
        if self._closed or self.is_applying:
            return None
        if self.crash is not None:
            counter.failed += 1
            # A new one, because the first keeps the traceback of the code that caught it.
            raise SimulatedCrash(str(self.crash))
        visit = Visit(
            name_of(key),
            number,
            payload if operation is None else operation.inputs,
            {**self.attributes, **attributes},
            stack=stack,
            source=source,
            process=self.process,
            operation=operation,
        )
        self._applying.on = True
        try:
            if self.probing:
                self._probe(counter, visit)
            else:
                self._injector.apply_due(counter, visit)
        except BaseException:
            if stack is not None:
                stack.close()
            raise
        finally:
            self._applying.on = False
            counter.failed += visit.error is not None
            self._schedule(counter)
        return visit

    def die(self, crash: SimulatedCrash) -> None:
        """End the process at a moment that is not a visit."""
        self.inject(crash)

    def preemption_over(self, told: Preemption) -> None:
        """Report the end of a process that received a signal to end. Subclasses override this."""

    def inject(self, error: BaseException) -> None:
        """Record an exception as injected. A crash also ends the process."""
        if self.forks is not None and self.forks.name:
            self.forks.tell("injected", type(error).__qualname__, str(error))
            if self._striking is not None:
                self.forks.tell("failed", self._striking.fault.key, self.forks.rank)
        self.injected.append(error)
        if isinstance(error, SimulatedCrash):
            self.crash = error
            error.in_main_thread = threading.current_thread() is threading.main_thread()
            for freeze in self._on_crash:
                freeze()
            if not error.in_main_thread and self.interrupt is not None:
                self.interrupt()
            self._rearm()

"""The controller: every visit of every site goes through it.

The life of one visit: user code, a site, ``visit``, the look-up of what is due, ``fault.apply``, the
journal, and back into user code with the payload, a delay or an exception.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.clock import Clock, RealClock
from ..core.interrupts import deferred, handler, register_open, uninterruptible, unregister_open
from ..core.journal import Journal, Strike
from ..core.records import Preemption
from ..core.results import HandedResult
from ..core.schedule import Schedule
from ..core.sites import Key, Stream, Visit, name_of
from ..errors import BadArgument, MlchaosError, SimulatedCrash
from .attribution import attribute_strike, forget_scopes
from .counters import NO_VISIT, ProcessCounts, ScheduledFault, VisitCounter, most_passed
from .error_origin import comes_from
from .forks import Forks
from .gate import Gate
from .injector import Injector
from .process_state import NOTICES
from .remote_state import RemoteState, merge_into

__all__ = ["Controller", "SubjectOf", "current"]

NO_ATTRIBUTES: Mapping[str, Any] = {}

_active: list[Controller] = []


def _share() -> None:
    """A process is about to be forked."""
    for controller in _active:
        controller.share()


def _go_on_in_child() -> None:
    """A forked child (a loader's worker) is part of the trial, if faults may strike in it."""
    for controller in [*_active]:
        controller.clock.become_real("this is a child process")
        if not controller.born():
            _active.remove(controller)
            controller.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_share, after_in_child=_go_on_in_child)


def current() -> Controller | None:
    """The controller of the trial that is running, if one is."""
    return _active[-1] if _active else None


class SubjectOf:
    """Refuses nested runs: they would count the visits, and end the process, of one another.

    The refusal is kept, because a subject may catch it. (A generator of contextlib's would show its code in what a subject raises.)

    Attributes:
        outer: The entry point whose subject makes the call; empty if the test's body makes it.
    """

    def __init__(self, controller: Controller, caller: str, within: Container[str]) -> None:
        self._controller = controller
        self._caller = caller
        self._within = within
        self.outer = controller.inside

    def __enter__(self) -> None:
        controller = self._controller
        self.outer = controller.inside
        if controller.inside and controller.inside not in self._within:
            error = BadArgument(
                f"{self._caller} was called inside the subject of {controller.inside}, or beside it in a thread, and runs cannot be "
                "nested: call it in the test, after the other one has returned"
            )
            controller.broken = controller.broken or error
            raise error
        controller.inside = self._caller

    def __exit__(self, *_: object) -> None:
        self._controller.inside = self.outer


def _strikes_in_children(scheduled: ScheduledFault) -> bool:
    """Return True unless it is the trial's own process that a fault ends, or surrounds."""
    return not scheduled.fault.ends_process and not scheduled.fault.continuous


class Controller:
    """Count visits, strike what is due, keep the journal. A site is given one, and calls ``visit`` or ``begin``.

    ``probing`` makes it the first, fault-free trial of an exploration: faults note the visits at which they could strike. ``own`` are the
    test's own directories: other files are none of the faults' business. ``names`` keeps a few names (of files, say) by site.
    """

    inside = ""  # the entry point whose subject is running
    attributes: Mapping[str, Any] = NO_ATTRIBUTES  # of every visit in this process: its rank, in a world

    def __init__(self, schedule: Schedule, clock: Clock | None = None, *, probing: bool = False, own: Iterable[Path] = ()) -> None:
        self.schedule = schedule
        self.clock: Clock = clock or RealClock()
        self.own = tuple(own)
        self.journal = Journal(self.hear)
        self._send: Callable[..., object] | None = None  # tells another process what happens in this one
        self._striking: ScheduledFault | None = None  # whose strike was told last
        self._injected_there: list[tuple[str, str]] = []  # the type and the text of errors that were raised in forked processes
        self.started_afresh: list[str] = []  # the start methods of processes that were not forked
        self.forks: Forks | None = None  # the processes that this one has forked, or that this one is part of
        self.names: dict[str, dict[str, None]] = {}
        self.probing = probing
        self.results: list[HandedResult] = []  # what the test has received from the fixture, and whether it was judged
        self.idle = ""  # why no fault can strike in this test, though its judgements are about faults
        self.drawn = False  # whether a search drew the schedule, or the test declares it
        self.scheduled = [ScheduledFault(fault, place, schedule.seed) for place, fault in enumerate(schedule.faults)]
        self.crash: SimulatedCrash | None = None
        self.broken: MlchaosError | None = None
        self.injected: list[BaseException] = []
        self.claims: list[Callable[[BaseException], bool]] = []
        self.interrupt: Callable[[], None] | None = None
        self.resources = contextlib.ExitStack()  # closed when the body has ended, however it ended
        self.process = contextlib.ExitStack()  # closed when the process ends: the attempt, or else the body
        self.elsewhere: dict[int, ProcessCounts] = {}
        self.activate_continuous_faults: Callable[[], None] = lambda: None  # opens what is open while the body runs
        self.preempted: Any = None  # the Notice of the process that is under way, once it was told to end
        self.signalled: str | None = None  # the site at which a signal's handler is running
        self.roots: tuple[Path, ...] = ()  # the directories that a supervised subject works in
        self.supervised = 0  # attempts under way: what is opened in one dies with it, what the test holds does not
        self.forget: list[Callable[[], None]] = []  # called when the fixtures are torn down, before the next trial
        self.judgements: dict[str, bool] = {}  # by oracle: whether it has found anything to judge
        self.handlers = {number: handler(number) for number in map(signal.Signals.__getitem__, NOTICES)}  # as the trial began
        self.restarts: int | None = None  # how often the runs of this trial may restart: the least of them
        self.limit: tuple[float, float] | None = None  # seconds that the trial may take, and when (real clock) they are over
        self._on_crash: list[Callable[[], None]] = []
        self._closed = False
        self._applying = threading.local()
        self.lock = threading.Lock()
        self._injector = Injector(self)
        self._counters: dict[Key, VisitCounter] = {}

    # -- what sites call ---------------------------------------------------------------------------------------

    def visit(self, key: Key, payload: Any = None, attributes: Mapping[str, Any] = NO_ATTRIBUTES, source: Stream | None = None) -> Any:
        """Pass a site. Return the payload: the very same object unless a fault strikes.

        Args:
            key: The key that the site was armed with.
            payload: What passes, for example a batch.
            attributes: What else a fault or a ``where=`` may look at, by name.
            source: The stream that the payload comes from, if a fault may drop, repeat or reorder payloads here.
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

    def begin(self, key: Key, payload: Any = None, attributes: Mapping[str, Any] = NO_ATTRIBUTES) -> Gate | None:
        """Start an operation at a site. Return None if no fault is due, else the gate to run the operation in.

        Call ``gate.wait()`` inside ``with gate`` before the operation; a coroutine awaits ``gate.wait_async()``.
        The payload to go on with is ``gate.payload``.
        """
        try:
            counter = self._counters[key]
        except KeyError:
            counter = self._open(key)
        counter.passed = passed = counter.advance()
        if passed <= counter.next_due:
            return None
        visit = self._strike(key, counter, passed - 1, payload, attributes, contextlib.ExitStack())
        return None if visit is None else Gate(visit, self.clock)

    # -- what trials and runs call -----------------------------------------------------------------------------

    def __enter__(self) -> Controller:
        register_open(self)
        _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        with deferred():
            self.hear()
            if self in _active:
                _active.remove(self)
            self.close()
            unregister_open(self)

    def close(self) -> None:
        """Nothing strikes from now on, whoever still holds a wrapper of this trial's."""
        self._end_forks()
        self._closed = True
        self._rearm()

    def passed(self) -> dict[Key, int]:
        """How often each site was passed; in the process that passed it most often, where there are several."""
        self.hear()
        return most_passed(
            {key: counter.passed for key, counter in self._counters.items()}, *(counts.passed for counts in self.elsewhere.values())
        )

    def count(self, key: Key, *, succeeded: bool = False) -> int:
        """How often one site was passed; ``succeeded`` leaves out the visits that a fault made fail."""
        self.hear()
        counter = self._counters.get(key)
        return counter.passed - (counter.failed if succeeded else 0) if counter else 0

    def counts(self) -> ProcessCounts:
        """How far it has come, for another process to go on from."""
        counters = self._counters.items()
        return ProcessCounts(
            {key: counter.passed for key, counter in counters}, {scheduled.index: scheduled.struck for scheduled in self.scheduled}
        )

    def go_on_from(self, counts: ProcessCounts) -> None:
        """Visits are counted on from another process; what failed there is added."""
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
        """The process lives again: what comes after a crash passes its sites as before.

        The memory of the one before is freed: tracebacks hold its frames, and with them its models and loader workers.
        """
        self._end_forks()
        self.crash = None
        self.end_process()
        for error in self.injected:
            error.__traceback__ = None
        self.injected.clear()
        self._rearm()

    def begin_again(self) -> None:
        """The body starts over (the next example of a user's own ``@given``): sites are counted from 0."""
        self.resources.close()
        self._end_forks()
        self.end_process()
        self._counters, self.crash, self.elsewhere, self.preempted = {}, None, {}, None
        self.results.clear()
        for scheduled in self.scheduled:
            scheduled.begin_again()
        self.activate_continuous_faults()

    def end_process(self) -> None:
        """What faults keep up, and remember, as long as the process lives is over."""
        self.journal.end_process()
        for scheduled in self.scheduled:
            scheduled.memory = {}
        self.process.close()

    def at_work(self, scheduled: ScheduledFault) -> bool:
        """Whether a fault that waits for no visit may strike now: no golden run, no dead process, no work of the tool's own."""
        return scheduled in self.scheduled and not self._closed and self.crash is None and not getattr(self._applying, "on", False)

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
        """A run of this trial may restart so often."""
        self.restarts = times if self.restarts is None else min(times, self.restarts)

    def judged(self, oracle: str, judges: bool) -> None:
        """An oracle was asked; ``judges``: some fault had struck what it judges."""
        self.judgements[oracle] = self.judgements.get(oracle, False) or judges

    def failed(self, site: str) -> None:
        """An operation that was counted has not happened."""
        if site in self._counters:
            self._counters[site].failed += 1

    @uninterruptible
    def on_crash(self, freeze: Callable[[], None], *, first: bool = False) -> Iterator[None]:
        """Call ``freeze`` at the moment of a crash, before any code unwinds; ``first``: before others."""
        self._on_crash.insert(0 if first else len(self._on_crash), freeze)
        try:
            yield
        finally:
            self._on_crash.remove(freeze)

    @uninterruptible
    def attempt(self) -> Iterator[None]:
        """What runs here is the process that a crash ends; the test around it lives on."""
        self.supervised += 1
        try:
            yield
        finally:
            self.supervised -= 1
            self.end_process()

    def subject_of(self, caller: str, *, within: Container[str] = ()) -> SubjectOf:
        """Return a context manager that refuses another run while the subject of this one runs.

        ``within``: the entry points whose subjects may start such a run, because no fault strikes in them.
        """
        return SubjectOf(self, caller, within)

    @uninterruptible
    def without_faults(self) -> Iterator[None]:
        """For a golden run: sites are counted from 0 and nothing strikes; afterwards all is as it was."""
        self.hear()
        kept = self._counters, self.crash, self.scheduled, self.names, self.elsewhere
        self._counters, self.crash, self.scheduled, self.names, self.elsewhere = {}, None, [], {}, {}
        try:
            with self.forks.paused() if self.forks is not None and not self.forks.name else contextlib.nullcontext():
                yield
        finally:
            self._counters, self.crash, self.scheduled, self.names, self.elsewhere = kept

    def is_injected(self, error: BaseException | None) -> bool:
        """Whether an exception is one that a fault raised, or was raised ``from`` one."""
        self.hear()
        return comes_from(error, self.injected, self._injected_there) or (error is not None and any(claim(error) for claim in self.claims))

    # -- processes that the subject forks ----------------------------------------------------------------------

    def share(self) -> None:
        """A process is about to be forked: from now on visits are counted, and strikes told, together with it."""
        if self.forks is None:
            scheduled_faults = [scheduled for scheduled in self.scheduled if _strikes_in_children(scheduled)]
            if not scheduled_faults or self._closed or self.crash is not None:
                return
            keys = list(dict.fromkeys(scheduled.fault.key for scheduled in scheduled_faults))
            forks = Forks(keys, len(self.scheduled))
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
        """Go on in a forked child; return False if no fault may strike in it."""
        if self.forks is None or self._closed or self.crash is not None or not self.scheduled:
            return False
        self.forks.born()
        self.lock, self.interrupt = threading.Lock(), None
        self._send = self.forks.tell
        self._on_crash[:] = [functools.partial(os.kill, os.getpid(), signal.SIGKILL)]
        self.scheduled = [scheduled for scheduled in self.scheduled if _strikes_in_children(scheduled)]
        for counter in self._counters.values():
            counter.scheduled = [scheduled for scheduled in counter.scheduled if scheduled in self.scheduled]
        forget_scopes()
        self._rearm()
        return True

    def hear(self) -> None:
        """Take over what forked processes have told since the last call."""
        forks = self.forks
        if forks is None or forks.name or not self.scheduled:
            return
        heard = RemoteState()
        for message in forks.told():
            heard.take(*message)
            self._relay(*message)
        merge_into(self, heard, ended=False)
        for place, strike in heard.strikes:
            attribute_strike(strike, self.clock.now(), self.scheduled[place].fault.key)
        for key, number in heard.failures.items():
            self._open(key).failed += number
        self._injected_there += heard.injected
        for key in forks.keys:
            if passed := forks.passed(key):
                counter = self._open(key)
                counter.passed = max(counter.passed, passed)

    def _relay(self, kind: str, *content: Any) -> None:
        """A forked process has told something; for processes that tell another one what happens."""

    def _end_forks(self) -> None:
        """The processes that were forked so far are no longer part of the trial."""
        self.hear()
        forks, self.forks = self.forks, None
        if forks is not None:
            for key in forks.keys:
                if key in self._counters:
                    counter = self._counters[key]
                    counter.count_with(itertools.count(counter.passed + 1).__next__)
            forks.close()

    def note(self, scheduled: ScheduledFault, **details: Any) -> None:
        """Record a strike of a fault that is not bound to a visit."""
        self._injector.record(scheduled, Strike(scheduled.text, name_of(scheduled.fault.key), 0, details))

    def tell_strike(self, scheduled: ScheduledFault, strike: Strike) -> None:
        """Report a strike to the process that listens to this one."""
        self._striking = scheduled
        if self._send is not None:
            self._send("strike", scheduled.index, strike)

    def _probe(self, counter: VisitCounter, visit: Visit) -> None:
        self._injector.probe(counter, visit)
        if self._send is not None:
            for scheduled in counter.scheduled:
                if scheduled.eligible and scheduled.eligible[-1] == visit.index:
                    self._send("eligible", scheduled.index, visit.index)
                    self._send("measured", {scheduled.index: scheduled.measures})

    # -- the slow path -----------------------------------------------------------------------------------------

    def _open(self, key: Key) -> VisitCounter:
        with self.lock:
            counter = self._counters.get(key)
            if counter is None:
                counter = VisitCounter()
                counter.scheduled = [
                    scheduled for scheduled in self.scheduled if scheduled.fault.key == key and scheduled.fault.applies_to(self.attributes)
                ]
                self._opened(key, counter)
                if self.forks is not None and counter.scheduled and self.forks.is_counted(key):
                    counter.count_with(functools.partial(self.forks.advance, key))
                self._counters[key] = counter
                self._schedule(counter)
            return counter

    def _opened(self, key: Key, counter: VisitCounter) -> None:
        """A counter is about to be used for the first time; for processes that tell another one what happens."""

    def _schedule(self, counter: VisitCounter) -> None:
        if self._closed:
            counter.next_due = NO_VISIT
        elif self.crash is not None:
            counter.next_due = -NO_VISIT
        elif self.probing:
            counter.next_due = 0 if counter.scheduled else NO_VISIT
        else:
            counter.next_due = min((scheduled.next_due for scheduled in counter.scheduled), default=NO_VISIT)

    def _rearm(self) -> None:
        for counter in list(self._counters.values()):
            self._schedule(counter)

    def _strike(
        self,
        key: Key,
        counter: VisitCounter,
        number: int,
        payload: Any,
        attributes: Mapping[str, Any],
        stack: contextlib.ExitStack | None,
        source: Stream | None = None,
    ) -> Visit | None:
        """Apply what is due at this visit; None when nothing was."""
        if self._closed or getattr(self._applying, "on", False):
            return None
        if self.crash is not None:
            counter.failed += 1
            raise SimulatedCrash(str(self.crash))  # a fresh one: the first keeps the traceback of who caught it
        visit = Visit(name_of(key), number, payload, {**self.attributes, **attributes}, stack=stack, source=source, process=self.process)
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
        """The process is killed at no visit."""
        self.inject(crash)

    def preemption_over(self, told: Preemption) -> None:
        """A process that was told to end has ended; for processes that tell another one what happens."""

    def inject(self, error: BaseException) -> None:
        """Remember that an exception is a fault's doing; a crash ends the process."""
        if self.forks is not None and self.forks.name:
            self.forks.tell("injected", type(error).__qualname__, str(error))
            if self._striking is not None:
                self.forks.tell("failed", self._striking.fault.key)
        self.injected.append(error)
        if isinstance(error, SimulatedCrash):
            self.crash = error
            error.in_main_thread = threading.current_thread() is threading.main_thread()
            for freeze in self._on_crash:
                freeze()
            if not error.in_main_thread and self.interrupt is not None:
                self.interrupt()
            self._rearm()

"""Run a subject in fresh processes, one for each attempt. A crash there is a real SIGKILL."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

# The real clock: virtual time does not replace the names in this package.
from time import monotonic, time
from typing import Any

from ..core.privacy import error_text
from ..core.recording import recorded_by
from ..core.records import (
    Attempt,
    Gradients,
    Preemption,
    PrivateStep,
    Record,
    tell,
    too_many_ended,
)
from ..core.schedule import Schedule
from ..engine import randomness
from ..engine.beside_process import beside_process
from ..engine.continuous_faults import activate_continuous_faults
from ..engine.controller import Controller
from ..engine.counters import ProcessCounts
from ..engine.fresh_starts import site_modules
from ..engine.patching import Patches
from ..engine.process_state import ProcessState
from ..engine.remote_state import RemoteState, merge_into
from ..engine.subjects import subject_runs
from ..engine.trial import arm, arm_ranks
from ..errors import BadArgument, GaveUp, GoldenRunFailed, LimitReached, MlchaosError, TrialTimeout
from ..processes import stack_dumps
from ..processes.child import join_threads, print_error
from ..processes.child import tell as tell_home
from ..processes.remote_controller import (
    ReportingClock,
    ReportingController,
    tell_before_exit,
)
from ..processes.subject_pickling import dumps
from ..processes.subprocess_runner import FreshProcesses, ProcessResult, Task
from .private_steps import accounted_of
from .supervisor import Watch, check_subject, gradients_of, last_strike, losses_of, not_finite_of
from .workdirs import WorkDirs

__all__ = ["IsolatedSupervisor"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Order:
    """The task of one attempt's process.

    ``payload`` holds (subject, args) and ``schedule`` (schedule, watch), both pickled.
    """

    payload: bytes
    schedule: bytes
    sites: Sequence[str]
    own: Sequence[Path]
    roots: Sequence[Path]
    probing: bool
    attempt: int
    resumed: ProcessCounts
    random: dict[str, Any]

    def does_the_same(self, other: _Order) -> bool:
        """Return True if two orders of one supervisor start the same attempt."""
        return (self.schedule, self.sites, self.probing, self.attempt, self.resumed) == (
            other.schedule,
            other.sites,
            other.probing,
            other.attempt,
            other.resumed,
        )


class IsolatedSupervisor:
    """Run one subject, its attempts and its golden run, each in a process of its own."""

    def __init__(
        self,
        processes: FreshProcesses,
        controller: Controller,
        subject: Callable[..., Any],
        args: tuple[Any, ...],
        scratch: Path,
        watch: Watch,
        workdirs: Iterable[Path] = (),
    ) -> None:
        check_subject(subject, "mlchaos.run")
        self._processes = processes
        self._controller = controller
        self._watch = watch
        with controller.without_faults():  # the plugin's own calls make no visits
            self._given = _pickle(
                (subject, args),
                f"{getattr(subject, '__qualname__', type(subject).__name__)} and its arguments "
                f"cannot be sent to its process",
            )
            self._process_state = ProcessState()
            self._disk = WorkDirs.of(subject, args, scratch, workdirs)
            self._random = randomness.capture_state()
        self._ahead: list[tuple[_Order, Task]] = []

    def start_ahead(self) -> None:
        """Start the first attempt and the golden run now, both in processes.

        ``run`` and ``golden`` take their results if they would start the same. The directories of
        the subject must not be shared with a different run at that time.
        """
        controller = self._controller
        with controller.without_faults():
            counts = controller.counts()
            first = self._order(controller.schedule, 0, counts, probing=controller.probing)
            for order in (first, self._order(Schedule(), 0, ProcessCounts(), probing=False)):
                self._ahead.append((order, self._start(order)))

    def end_ahead(self) -> None:
        """End the processes that nothing has waited for."""
        while self._ahead:
            self._ahead.pop()[1].end()

    def run(self, max_restarts: int) -> Record:
        """Run the subject until it returns. See ``Supervisor.run``."""
        with subject_runs(self._controller, self._disk.roots) as begin:
            return self._run(max_restarts, begin)

    def _run(self, max_restarts: int, begin: Callable[[], None]) -> Record:
        controller, start = self._controller, monotonic()
        first_strike = len(controller.journal)
        attempts: list[Attempt] = []
        ended_by: list[str] = []
        controller.may_restart(max_restarts)
        gradients: list[Sequence[Gradients]] = []
        losses: list[Sequence[float]] = []
        private: list[Sequence[PrivateStep]] = []
        preemptions: list[Preemption | None] = []
        while True:
            struck = len(controller.journal)
            begin()
            before = controller.counts()
            steps = controller.count("train.step", succeeded=True)
            began = time(), monotonic()
            ended, heard = self._process(
                controller.schedule, len(attempts), before, probing=controller.probing
            )
            beside = controller.counts()
            merge_into(controller, heard)
            controller.go_on_from(_later(before, heard, beside))
            end, value, parameters = self._judged(ended, heard, attempts)
            steps = controller.count("train.step", succeeded=True) - steps
            attempts.append(Attempt(end or "returned", steps, began[0], monotonic() - began[1]))
            ended_by.append(last_strike(controller.journal[struck:]))
            gradients.append(heard.gradients)
            losses.append(heard.losses)
            private.append(heard.private)
            preemptions.append(heard.preempted)
            if end is None:
                record = _record(
                    value, parameters, attempts, controller.journal[first_strike:], start, gradients
                )
                return dataclasses.replace(
                    record,
                    preemptions=preemptions,
                    losses=losses,
                    private=private,
                    accounted=heard.accounted,
                    real_time="time is real in fresh processes",
                )
            if len(attempts) > max_restarts:
                text = too_many_ended("the subject", len(attempts), "max_restarts")
                raise GaveUp(f"{text}\n{tell(attempts)}", ended_by=tuple(ended_by))

    def golden(self, look: Callable[[Any], Any] | None = None) -> Record:
        """Run the subject without faults, from the same start. The trial's counts do not change.

        ``look`` receives the returned value while the directories of this run are in place.
        """
        start = monotonic()
        with self._controller.without_faults(), ProcessState(), self._disk.as_at_the_start():
            self._process_state.restore()
            ended, heard = self._process(Schedule(), 0, ProcessCounts(), probing=False)
            try:
                end, value, parameters = self._judged(ended, heard, [])
            except (TrialTimeout, LimitReached):
                raise
            except Exception as error:
                raise GoldenRunFailed(
                    f"the subject fails without any fault: {error_text(error)}"
                ) from error
            looked = None if look is None else look(value)
        steps = heard.passed.get("train.step", 0) - heard.failures.get("train.step", 0)
        record = _record(
            value, parameters, [Attempt(end or "returned", steps)], (), start, [heard.gradients]
        )
        return dataclasses.replace(
            record,
            losses=[heard.losses],
            looked=looked,
            private=[heard.private],
            accounted=heard.accounted,
        )

    def _process(
        self, schedule: Schedule, number: int, resumed: ProcessCounts, *, probing: bool
    ) -> tuple[ProcessResult, RemoteState]:
        """Run one attempt in a process, and return its result and its messages."""
        controller = self._controller
        with beside_process(controller), controller.without_faults():
            order = self._order(schedule, number, resumed, probing=probing)
            ended = (self._started(order) or self._start(order)).wait()
        # The output belongs to the test: pytest captures and shows it.
        print(ended.output.removesuffix(ended.stderr), end="")  # noqa: T201
        print(ended.stderr, end="", file=sys.stderr)  # noqa: T201
        heard = RemoteState()
        for message in ended.told:
            heard.take(*message)
        return ended, heard

    def _order(
        self, schedule: Schedule, number: int, resumed: ProcessCounts, *, probing: bool
    ) -> _Order:
        return _Order(
            payload=self._given,
            schedule=_pickle(
                (schedule, self._watch),
                "the faults cannot be sent to the subject's process (where=?)",
            ),
            sites=site_modules(),
            own=self._controller.own,
            roots=self._disk.roots,
            probing=probing,
            attempt=number,
            resumed=resumed,
            random=self._random,
        )

    def _start(self, order: _Order) -> Task:
        self._processes.prepare()  # before the remaining time is computed
        roots = [str(root) for root in self._disk.roots]
        # The limits of memory and processor time also hold without a directory.
        return self._processes.start(
            _live, order, timeout=_time_left(self._controller), folders=roots or [os.devnull]
        )

    def _started(self, order: _Order) -> Task | None:
        """Return the process that was started ahead with the same task, or None."""
        for place, (other, task) in enumerate(self._ahead):
            if order.does_the_same(other):
                del self._ahead[place]
                return task
        return None

    def _judged(
        self, ended: ProcessResult, heard: RemoteState, before: list[Attempt]
    ) -> tuple[str | None, bytes, bytes]:
        """Return (None, its value, its parameters), or the reason if a fault ended the process.

        Raise any other end as an error.
        """
        if self._controller.broken is not None:
            raise self._controller.broken from ended.error
        if heard.unusable is not None:
            raise BadArgument(
                f"mlchaos.run: the subject does not load in its process: {heard.unusable}"
            )
        if ended.started is not None:
            raise MlchaosError(
                f"mlchaos.run: the subject's process could not be started: {ended.started}"
            )
        if ended.exceeded:
            raise LimitReached(f"mlchaos.run: the subject's process {ended.exceeded}. It was ended")
        if ended.hung:
            seconds = (
                self._controller.limit[0] if self._controller.limit is not None else ended.duration
            )
            where = stack_dumps.place(ended.stack)
            raise TrialTimeout(
                f"the trial took longer than {seconds:g} s (setting timeout). The subject's "
                f"process was in {where or '?'}"
            )
        if heard.crash is not None:
            return heard.crash, b"", b""
        if ended.error is not None and self._controller.is_injected(ended.error):
            return f"the process ended with {error_text(ended.error)}", b"", b""
        if ended.error is not None:
            _tell(ended, before)
            raise ended.error
        if ended.value is None:
            error: BaseException = ChildProcessError(
                f"the subject's process {_death(ended)} before the subject returned"
            )
            _tell(dataclasses.replace(ended, error=error), before)
            raise error
        end, value, parameters = ended.value
        return end, value, parameters


def _later(before: ProcessCounts, heard: RemoteState, beside: ProcessCounts) -> ProcessCounts:
    """Return the counts after one more process.

    ``beside`` holds those of this process, whose proxies may have served it.
    """
    told = heard.counts()
    struck = {
        place: told.struck.get(place, 0)
        + max(before.struck.get(place, 0), beside.struck.get(place, 0))
        for place in {*before.struck, *told.struck, *beside.struck}
    }
    passed = {
        key: told.passed.get(key, before.passed.get(key, 0))
        + max(0, beside.passed.get(key, 0) - before.passed.get(key, 0))
        for key in {*before.passed, *told.passed, *beside.passed}
    }
    return ProcessCounts(passed, struck, heard.failures)


def _time_left(controller: Controller) -> float | None:
    """Return the time limit for a process.

    It is shorter than the trial's, to leave time to read the process's stack.
    """
    if controller.limit is None:
        return None
    left = controller.limit[1] - monotonic()
    return max(0.01, left - min(1.0, left / 4))


def _record(
    value: bytes,
    parameters: bytes,
    attempts: list[Attempt],
    faults: Any,
    start: float,
    gradients: Sequence[Sequence[Gradients]],
) -> Record:
    passed = monotonic() - start
    trained, broken = _unpickle(parameters)
    return Record(
        _unpickle(value),
        tuple(attempts),
        faults,
        passed,
        trained,
        _unpickle(value),
        gradients,
        not_finite=broken,
    )


def _unpickle(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        raise BadArgument(
            f"mlchaos.run: the subject's return value cannot be loaded here: {error_text(error)}"
        ) from error


def _pickle(value: object, complaint: str) -> bytes:
    try:
        return dumps(value)
    except BadArgument as error:
        raise BadArgument(f"mlchaos.run: {complaint}: {error}") from None


def _tell(ended: ProcessResult, before: list[Attempt]) -> None:
    assert ended.error is not None
    if ended.traceback:
        ended.error.add_note(
            f"mlchaos: raised in the subject's own process\n{ended.traceback.rstrip()}"
        )
    if before and not isinstance(ended.error, MlchaosError):
        ended.error.add_note(
            f"mlchaos: the subject's own error, in attempt {len(before) + 1} of "
            f"mlchaos.run\n{tell(before)}"
        )


def _death(ended: ProcessResult) -> str:
    code = ended.exitcode or 0
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"


# -- in the subject's process ----------------------------------------------------------------------


def _live(order: _Order) -> tuple[str | None, bytes, bytes] | None:
    """Run the subject.

    Return (None, its value, its parameters), or how a fault ended it. Raise its own errors.
    """
    try:
        for name in order.sites:
            importlib.import_module(name)
        schedule, watch = pickle.loads(order.schedule)
        subject, args = pickle.loads(order.payload)
    except Exception as error:  # noqa: BLE001  # any of the user's modules may fail at import
        tell_home("unusable", f"{error_text(error)}")
        return None
    controller = ReportingController(
        tell_home, {}, schedule, ReportingClock(tell_home), probing=order.probing, own=order.own
    )
    controller.inside = "mlchaos.run"
    controller.go_on_from(order.resumed)
    controller.roots = tuple(order.roots)
    with (
        Patches() as patches,
        controller,
        controller.on_crash(functools.partial(os.kill, os.getpid(), signal.SIGKILL)),
    ):
        tell_before_exit(controller, patches)
        arm_ranks(controller, patches)
        arm(controller, patches, everything=order.probing)
        if order.attempt:
            randomness.seed_all("restart", order.attempt)
        else:
            randomness.restore(order.random)
        try:
            with (
                recorded_by(lambda entry: None),
                watch() as trained,
                controller.attempt(),
                controller.resources,
                controller.process,
            ):
                activate_continuous_faults(controller, fresh=True)
                try:
                    end, value, parameters = _attempt(
                        controller, functools.partial(subject, *args), trained
                    )
                finally:
                    tell_home("gradients", gradients_of(trained))
                    tell_home("losses", losses_of(trained))
                    tell_home("accounted", dumps(accounted_of(trained)))
        finally:
            join_threads()  # faults may strike in these threads too
            controller.report()
    returned = (
        f"the subject's return value ({type(value).__name__}) cannot be sent back from its process"
    )
    return (
        end,
        _pickle(value, returned),
        _pickle(
            parameters, "the trained parameters cannot be sent back from the subject's process"
        ),
    )


def _attempt(
    controller: Controller, subject: Callable[[], Any], trained: Callable[[], Any]
) -> tuple[str | None, Any, Any]:
    try:
        value = subject()
        end = None if controller.preempted is None else controller.preempted.ending("it returned")
        return end, value, (trained(), not_finite_of(trained))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if controller.preempted is not None:
            return (
                controller.preempted.ending(f"the process ended with {error_text(error)}"),
                None,
                ((), {}),
            )
        if not controller.is_injected(
            error.__context__ if isinstance(error, SystemExit) else error
        ):
            raise
        print_error(error)
        return f"the process ended with {error_text(error)}", None, ((), {})

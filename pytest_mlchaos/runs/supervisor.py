"""Supervise the runs of a subject: restart it when a fault ends it, as a scheduler does."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter, time
from typing import Any

from ..core.faults import chaos_marks
from ..core.journal import Strike
from ..core.phases import raised
from ..core.privacy import error_text
from ..core.records import (
    Accounted,
    Attempt,
    Gradients,
    Preemption,
    PrivateStep,
    Record,
    tell,
    too_many_ended,
)
from ..engine import randomness
from ..engine.continuous_faults import refuse_in_process
from ..engine.controller import Controller
from ..engine.error_origin import describe_swallower
from ..engine.process_state import ProcessState
from ..engine.subjects import subject_runs
from ..errors import (
    BadArgument,
    CrashSwallowed,
    GaveUp,
    GoldenRunFailed,
    MlchaosError,
    SimulatedCrash,
)
from .inputs import Inputs, deep_copy
from .private_steps import accounted_of, private_steps_of
from .workdirs import WorkDirs

__all__ = [
    "Supervisor",
    "check_subject",
    "gradients_of",
    "last_strike",
    "losses_of",
    "not_finite_of",
    "refuse_marks",
    "snapshot_value",
]

_NOTHING: tuple[Any, Any] = ((), {})
Watch = Callable[[], contextlib.AbstractContextManager[Callable[[], Any]]]
"""A context for one attempt.

It yields a function that returns the trained parameters at the end.
"""


class Supervisor:
    """Run one subject, its attempts and its golden run."""

    def __init__(
        self,
        controller: Controller,
        subject: Callable[..., Any],
        args: tuple[Any, ...],
        scratch: Path,
        watch: Watch,
        workdirs: Iterable[Path] = (),
    ) -> None:
        check_subject(subject, "mlchaos.run")
        refuse_in_process([scheduled.fault for scheduled in controller.scheduled])
        self._controller = controller
        self._watch = watch
        with controller.without_faults():  # the plugin's own calls make no visits
            self._inputs = Inputs(subject, args)
            self._process_state = ProcessState()
            self._disk = WorkDirs.of(subject, args, scratch, workdirs)
            self._random = randomness.capture_state()

    def run(self, max_restarts: int) -> Record:
        """Run the subject until it returns.

        A crash or an injected error restarts it.

        Raises:
            GaveUp: The subject was restarted ``max_restarts`` times and did not finish.
            Exception: The subject's own error, with the earlier attempts as a note.
        """
        with subject_runs(self._controller, self._disk.roots) as begin:
            return self._run(max_restarts, begin)

    def _run(self, max_restarts: int, begin: Callable[[], None]) -> Record:
        controller = self._controller
        first_strike, start = len(controller.journal), controller.clock.now()
        attempts: list[Attempt] = []
        ended_by: list[str] = []
        controller.may_restart(max_restarts)
        gradients: list[Sequence[Gradients]] = []
        losses: list[Sequence[float]] = []
        private: list[tuple[Sequence[PrivateStep], Accounted | None]] = []
        preemptions: list[Preemption | None] = []
        while True:
            subject = self._inputs.first() if not attempts else self._restarted(len(attempts))
            steps, struck = self._steps(), len(controller.journal)
            began = time(), perf_counter()
            controller.preempted, controller.roots = None, self._disk.roots
            begin()
            with controller.on_crash(self._freeze):
                value, (parameters, broken), ended = self._attempt(
                    subject, attempts, gradients, losses, private
                )
            seconds = perf_counter() - began[1]
            attempts.append(Attempt(ended or "returned", self._steps() - steps, began[0], seconds))
            ended_by.append(last_strike(controller.journal[struck:]))
            preemptions.append(
                None if controller.preempted is None else controller.preempted.told()
            )
            controller.preempted = None
            if ended is None:
                strikes = controller.journal[first_strike:]
                passed = controller.clock.now() - start
                return Record(
                    value,
                    tuple(attempts),
                    strikes,
                    passed,
                    parameters,
                    snapshot_value(value),
                    gradients,
                    preemptions,
                    broken,
                    losses,
                    controller.clock.reason,
                    private=[steps for steps, _ in private],
                    accounted=private[-1][1],
                )
            if len(attempts) > max_restarts:
                text = too_many_ended("the subject", len(attempts), "max_restarts")
                raise GaveUp(f"{text}\n{tell(attempts)}", ended_by=tuple(ended_by))

    def golden(self, look: Callable[[Any], Any] | None = None) -> Record:
        """Run the subject without faults, from the same start. The trial's counts do not change.

        ``look`` receives the returned value while the directories of this run are in place.
        """
        controller, start = self._controller, self._controller.clock.now()
        with self._undisturbed() as subject, self._watch() as trained:
            value = subject()
            attempts, passed = (Attempt("returned", self._steps()),), controller.clock.now() - start
            broken = not_finite_of(trained)
            return Record(
                value,
                attempts,
                (),
                passed,
                trained(),
                snapshot_value(value),
                [gradients_of(trained)],
                not_finite=broken,
                losses=[losses_of(trained)],
                private=[private_steps_of(trained)],
                accounted=accounted_of(trained),
                looked=None if look is None else look(value),
            )

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[functools.partial[Any]]:
        """Give a partial of the subject with its initial arguments, directories and process
        state.
        """
        subject = self._inputs.again()

        with (
            self._controller.without_faults(),
            randomness.preserve_state(),
            ProcessState(),
            self._disk.as_at_the_start(),
        ):
            self._process_state.restore()
            randomness.restore(self._random)
            yield functools.partial(_call_golden, subject)

    def _steps(self) -> int:
        return self._controller.count("train.step", succeeded=True)

    def _restarted(self, attempt: int) -> Callable[[], Any]:
        """Start a new process.

        Memory is fresh, the disk is as the crash left it, and random numbers differ.
        """
        self._controller.restart()
        with self._controller.without_faults():
            self._disk.thaw()
            self._process_state.restore()
            randomness.seed_all("restart", attempt)
            return self._inputs.again()

    def _freeze(self) -> None:
        with self._controller.without_faults():
            self._disk.freeze()

    def _attempt(
        self,
        subject: Callable[[], Any],
        before: list[Attempt],
        gradients: list[Sequence[Gradients]],
        losses: list[Sequence[float]],
        private: list[tuple[Sequence[PrivateStep], Accounted | None]],
    ) -> tuple[Any, Any, str | None]:
        """Return the results of one attempt, or the reason why the process ended.

        The results are (value, (trained parameters, values that are not finite), None).
        """
        controller = self._controller
        with self._watch() as trained, contextlib.ExitStack() as ending:
            ending.callback(lambda: gradients.append(gradients_of(trained)))
            ending.callback(lambda: losses.append(losses_of(trained)))
            ending.callback(
                lambda: private.append((private_steps_of(trained), accounted_of(trained)))
            )
            try:
                with controller.attempt():
                    value = subject()
            except SimulatedCrash as crash:
                return None, _NOTHING, str(crash)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                raised(error)
                if controller.broken is not None:
                    raise controller.broken from error
                if controller.crash is not None:
                    return None, _NOTHING, str(controller.crash)
                if isinstance(error, KeyboardInterrupt) and not controller.is_injected(error):
                    raise
                if controller.preempted is not None:
                    return (
                        None,
                        _NOTHING,
                        controller.preempted.ending(f"the process ended with {error_text(error)}"),
                    )
                if not controller.is_injected(
                    error.__context__ if isinstance(error, SystemExit) else error
                ):
                    self._tell(error, before)
                    raise
                return None, _NOTHING, f"the process ended with {error_text(error)}"
            if controller.crash is not None:
                place = describe_swallower(controller.crash)
                if place is None:
                    return None, _NOTHING, str(controller.crash)
                controller.restart()  # report it only once
                raise CrashSwallowed(place)
            if controller.preempted is not None:
                return None, _NOTHING, controller.preempted.ending("it returned")
            return value, (trained(), not_finite_of(trained)), None

    def _tell(self, error: BaseException, before: list[Attempt]) -> None:
        if before and not isinstance(error, MlchaosError):
            error.add_note(
                f"mlchaos: the subject's own error, in attempt {len(before) + 1} of "
                f"mlchaos.run\n{tell(before)}"
            )


def _call_golden(subject: Callable[[], Any]) -> Any:
    try:
        return subject()
    except Exception as error:
        raise GoldenRunFailed(
            f"the subject fails without any fault: {error_text(error)}"
        ) from error


def check_subject(subject: object, caller: str) -> None:
    """Raise ``BadArgument`` for a subject that is not a plain callable."""
    if not callable(subject) or inspect.iscoroutinefunction(subject):
        what = (
            "a coroutine function. Run it with asyncio.run"
            if callable(subject)
            else f"{type(subject).__name__}"
        )
        raise BadArgument(f"{caller}: subject must be a plain callable, got {what}")
    refuse_marks(subject, caller)


def refuse_marks(subject: object, caller: str) -> None:
    """Raise ``BadArgument`` for a subject with chaos decorators, which have no effect there."""
    if marks := chaos_marks(subject):
        name = getattr(subject, "__name__", type(subject).__name__)
        decorators = ", ".join(f"@chaos.{mark}" for mark in marks)
        raise BadArgument(
            f"{caller}: {decorators} on the subject {name}() has no effect: put the decorator on "
            f"the test"
        )


def last_strike(strikes: Sequence[Strike]) -> str:
    """Return the fault that struck last, as it prints, or an empty text."""
    return strikes[-1].fault if strikes else ""


def losses_of(trained: Callable[[], Any]) -> Sequence[float]:
    """Return the loss of each backward pass, if they were recorded."""
    found: Sequence[float] = getattr(trained, "losses", list)()
    return found


def gradients_of(trained: Callable[[], Any]) -> Sequence[Gradients]:
    """Return the gradients of each optimizer step, if they were recorded."""
    found: Sequence[Gradients] = getattr(trained, "gradients", list)()
    return found


def not_finite_of(trained: Callable[[], Any]) -> Mapping[tuple[str, str], int]:
    """Return the numbers of values that are not finite, if they were recorded."""
    found: Mapping[tuple[str, str], int] = getattr(trained, "not_finite", dict)()
    return found


_IMMUTABLE = frozenset({int, float, str, bytes, bool, type(None)})


def snapshot_value(value: object) -> Any:
    """Return a copy of a value. Two runs may return the same object, and change it later."""
    if type(value) in _IMMUTABLE:
        return value
    (copy,), failures = deep_copy((value,))
    return value if failures else copy

"""Runs of a subject under supervision: started again when a fault ends it, as a scheduler would."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.faults import chaos_marks
from ..core.journal import Strike
from ..core.privacy import error_text
from ..core.records import Attempt, Gradients, Preemption, Record, tell, too_many_ended
from ..engine import randomness
from ..engine.continuous_faults import refuse_in_process
from ..engine.controller import Controller
from ..engine.error_origin import describe_swallower
from ..engine.process_state import ProcessState
from ..errors import BadArgument, CrashSwallowed, GaveUp, GoldenRunFailed, MlchaosError, SimulatedCrash
from .inputs import Inputs, deep_copy
from .workdirs import WorkDirs

__all__ = ["Supervisor", "check_subject", "gradients_of", "last_strike", "not_finite_of", "refuse_marks", "snapshot_value"]

_NOTHING: tuple[Any, Any] = ((), {})
Watch = Callable[[], contextlib.AbstractContextManager[Callable[[], Any]]]
"""Opens around one attempt; what it yields gives, at the end, the parameters that were trained in it."""


class Supervisor:
    """One subject, its attempts, and its golden run."""

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
        with controller.without_faults():  # what the tool itself calls is nobody's visit
            self._inputs = Inputs(subject, args)
            self._process_state = ProcessState()
            self._disk = WorkDirs.of(subject, args, scratch, workdirs)
            self._random = randomness.capture_state()

    def run(self, max_restarts: int) -> Record:
        """The subject's value once it returns.

        Its death and injected errors restart it; after ``max_restarts`` of them, ``GaveUp``. An
        error of its own ends it, with the story so far as a note.
        """
        controller = self._controller
        first_strike, start = len(controller.journal), controller.clock.now()
        attempts: list[Attempt] = []
        ended_by: list[str] = []
        controller.may_restart(max_restarts)
        gradients: list[Sequence[Gradients]] = []
        preemptions: list[Preemption | None] = []
        while True:
            subject = self._inputs.first() if not attempts else self._restarted(len(attempts))
            steps, struck = self._steps(), len(controller.journal)
            controller.preempted, controller.roots = None, self._disk.roots
            with controller.on_crash(self._freeze):
                value, (parameters, broken), ended = self._attempt(subject, attempts, gradients)
            attempts.append(Attempt(ended or "returned", self._steps() - steps))
            ended_by.append(last_strike(controller.journal[struck:]))
            preemptions.append(None if controller.preempted is None else controller.preempted.told())
            controller.preempted = None
            if ended is None:
                strikes = controller.journal[first_strike:]
                passed = controller.clock.now() - start
                return Record(value, tuple(attempts), strikes, passed, parameters, snapshot_value(value), gradients, preemptions, broken)
            if len(attempts) > max_restarts:
                text = too_many_ended("the subject", len(attempts), "max_restarts")
                raise GaveUp(f"{text}\n{tell(attempts)}", ended_by=tuple(ended_by))

    def golden(self) -> Record:
        """The subject's value without faults, from the same start; the trial does not notice."""
        controller, start = self._controller, self._controller.clock.now()
        with self._undisturbed() as subject, self._watch() as trained:
            value = subject()
            attempts, passed = (Attempt("returned", self._steps()),), controller.clock.now() - start
            broken = not_finite_of(trained)
            return Record(value, attempts, (), passed, trained(), snapshot_value(value), [gradients_of(trained)], not_finite=broken)

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[Callable[[], Any]]:
        """The subject as it was at the start, in the directories and surroundings of the start, where no fault strikes."""
        subject = self._inputs.again()

        def golden() -> Any:
            try:
                return subject()
            except Exception as error:
                raise GoldenRunFailed(f"the subject fails without any fault: {error_text(error)}") from error

        with self._controller.without_faults(), randomness.preserve_state(), ProcessState(), self._disk.as_at_the_start():
            self._process_state.restore()
            randomness.restore(self._random)
            yield golden

    def _steps(self) -> int:
        return self._controller.count("train.step", succeeded=True)

    def _restarted(self, attempt: int) -> Callable[[], Any]:
        """A new process: memory is fresh, the disk is as the death found it, and random numbers are others."""
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
        self, subject: Callable[[], Any], before: list[Attempt], gradients: list[Sequence[Gradients]]
    ) -> tuple[Any, Any, str | None]:
        """(value, (trained parameters, what is not finite), None), or why the process ended."""
        controller = self._controller
        with self._watch() as trained, contextlib.ExitStack() as ending:
            ending.callback(lambda: gradients.append(gradients_of(trained)))
            try:
                with controller.attempt():
                    value = subject()
            except SimulatedCrash as crash:
                return None, _NOTHING, str(crash)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                if controller.broken is not None:
                    raise controller.broken from error
                if controller.crash is not None:
                    return None, _NOTHING, str(controller.crash)
                if isinstance(error, KeyboardInterrupt) and not controller.is_injected(error):
                    raise
                if controller.preempted is not None:
                    return None, _NOTHING, controller.preempted.ending(f"the process ended with {error_text(error)}")
                if not controller.is_injected(error.__context__ if isinstance(error, SystemExit) else error):
                    self._tell(error, before)
                    raise
                return None, _NOTHING, f"the process ended with {error_text(error)}"
            if controller.crash is not None:
                place = describe_swallower(controller.crash)
                if place is None:
                    return None, _NOTHING, str(controller.crash)
                controller.restart()  # told once
                raise CrashSwallowed(place)
            if controller.preempted is not None:
                return None, _NOTHING, controller.preempted.ending("it returned")
            return value, (trained(), not_finite_of(trained)), None

    def _tell(self, error: BaseException, before: list[Attempt]) -> None:
        if before and not isinstance(error, MlchaosError):
            error.add_note(f"mlchaos: the subject's own error, in attempt {len(before) + 1} of mlchaos.run\n{tell(before)}")


def check_subject(subject: Any, caller: str) -> None:
    """Refuse what cannot be called, or would only give a coroutine."""
    if not callable(subject) or inspect.iscoroutinefunction(subject):
        what = "a coroutine function; run it with asyncio.run" if callable(subject) else f"a {type(subject).__name__}"
        raise BadArgument(f"{caller} expects a plain callable as its subject but got {what}")
    refuse_marks(subject, caller)


def refuse_marks(subject: Any, caller: str) -> None:
    """Refuse a subject that carries chaos decorators: they have no effect there."""
    if marks := chaos_marks(subject):
        name = getattr(subject, "__name__", type(subject).__name__)
        decorators = ", ".join(f"@chaos.{mark}" for mark in marks)
        raise BadArgument(f"{caller}: {decorators} on the subject {name}() has no effect: put the decorator on the test")


def last_strike(strikes: Sequence[Strike]) -> str:
    """The fault that struck last, as it prints; nothing where none did."""
    return strikes[-1].fault if strikes else ""


def gradients_of(trained: Callable[[], Any]) -> Sequence[Gradients]:
    """What each optimizer step was given, where the watch over a run says so."""
    found: Sequence[Gradients] = getattr(trained, "gradients", list)()
    return found


def not_finite_of(trained: Callable[[], Any]) -> Mapping[tuple[str, str], int]:
    """How many values are not finite, where the watch over a run says so."""
    found: Mapping[tuple[str, str], int] = getattr(trained, "not_finite", dict)()
    return found


def snapshot_value(value: Any) -> Any:
    """The value as it is now: two runs may return the same object, and go on changing it."""
    (copy,), failures = deep_copy((value,))
    return value if failures else copy

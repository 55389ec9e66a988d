"""Call a pipeline under faults, and keep its value or error and the files that it leaves."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.journal import Strike
from ..core.phases import raised
from ..core.privacy import error_text
from ..core.records import Attempt, FileState, Output, Record
from ..engine import randomness
from ..engine.controller import Controller, current
from ..engine.error_origin import describe_swallower
from ..engine.file_history import FileHistory
from ..engine.subjects import subject_runs
from ..engine.table_types import is_table
from ..errors import BadArgument, CrashSwallowed, MlchaosError, SimulatedCrash, Verdict
from ..runs.supervisor import Supervisor, check_subject, snapshot_value

__all__ = ["Pipeline"]


class Pipeline(Supervisor):
    """One pipeline and its calls: under faults, again after they have cleared, and without faults."""

    def __init__(
        self,
        controller: Controller,
        pipeline: Callable[..., Any],
        args: tuple[Any, ...],
        scratch: Path,
        workdirs: Iterable[Path] = (),
    ) -> None:
        check_subject(pipeline, "mlchaos.pipeline")
        super().__init__(
            controller,
            functools.partial(_drain, pipeline),
            args,
            scratch,
            _nothing_watched,
            workdirs,
        )
        # By path: the sizes of the files that calls have left.
        self._sizes: dict[str, set[int]] = {}
        with controller.without_faults():
            self._now: Mapping[str, FileState] = self._disk.contents()

    def run(self) -> Output:  # type: ignore[override]  # it is never restarted
        """Call the pipeline under the trial's faults.

        An error is an outcome. A crash ends the simulated process, and freezes the files as they
        are then.
        """
        first_strike = len(self._controller.journal)
        with self._controller.on_crash(self._freeze):
            output = self._called(
                self._inputs.first(), lambda: self._controller.journal[first_strike:]
            )
        self._now = output.after
        return output

    def again(self, died: bool) -> Output:
        """Repeat the call without faults, on the directories as they are.

        The pipeline receives the same objects, or fresh ones if the process ``died``.
        """
        with self._controller.without_faults():
            if died:
                randomness.seed_all("restart", 1)
            output = self._called(self._inputs.again() if died else self._inputs.first(), tuple)
        self._now = output.after
        return output

    def golden(self, calls: int = 1) -> Output:  # type: ignore[override]  # files too
        """Return the output of the last of that many calls without faults."""
        start = self._controller.clock.now()
        with self._undisturbed() as subject:
            before = self._disk.contents(self._sizes)
            for _ in range(calls):
                value = subject()
            return self._output(value, None, before, (), start)

    def _called(
        self, subject: Callable[[], Any], strikes: Callable[[], Iterable[Strike]]
    ) -> Output:
        controller, start = self._controller, self._controller.clock.now()
        with FileHistory() as history, subject_runs(controller, self._disk.roots) as begin:
            begin()
            value, error = self._outcome(subject)
            if isinstance(error, SimulatedCrash):
                # The assertions belong to a different process than the crashed one
                controller.restart()
                with controller.without_faults():
                    self._disk.thaw()
                    self._process_state.restore()
        with controller.without_faults():
            return self._output(value, error, self._now, tuple(strikes()), start, history)

    def _output(
        self,
        value: object,
        error: BaseException | None,
        before: Mapping[str, FileState],
        strikes: tuple[Strike, ...],
        start: float,
        history: FileHistory | None = None,
    ) -> Output:
        ended = "returned" if error is None else f"raised {error_text(error)}"
        duration = self._controller.clock.now() - start
        record = Record(value, (Attempt(ended, 0),), strikes, duration, (), snapshot_value(value))
        renamed = self._disk.named(history.renamed) if history is not None else frozenset()
        read_back = self._disk.named(history.read_back) if history is not None else frozenset()
        after = self._disk.contents(self._sizes)
        for path, state in after.items():
            self._sizes.setdefault(path, set()).add(state.size)
        return Output(record, error, before, after, renamed, read_back)

    def _outcome(self, subject: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """Return (value, None), or (None, the error that it raised)."""
        controller = self._controller
        try:
            with controller.attempt():
                value = subject()
        except SimulatedCrash as crash:
            return None, crash
        except (Exception, SystemExit) as error:
            if controller.broken is not None:
                raise controller.broken from error
            if controller.crash is not None:
                return None, controller.crash
            if isinstance(error, MlchaosError) and not isinstance(error, Verdict):
                # An error of the test. A verdict comes from a check in the pipeline, so it is an
                # outcome.
                raise
            raised(error)
            return None, error
        if controller.crash is not None:
            place = describe_swallower(controller.crash)
            if place is None:
                return None, controller.crash
            controller.restart()  # the crash is reported once
            raise CrashSwallowed(place)
        return value, None


def _nothing_watched() -> contextlib.AbstractContextManager[Callable[[], Any]]:
    return contextlib.nullcontext(tuple)


def _pass_argument(argument: object) -> Any:
    """Pass a table through the site ``data.table``, so that faults can strike it.

    Return other values as they are.
    """
    controller = current()
    if controller is None or not is_table(argument):
        return argument
    return controller.visit("data.table", argument, {"reader": "mlchaos.pipeline"})


def _drain(pipeline: Callable[..., Any], *args: object) -> Any:
    """Return the pipeline's value.

    A generator or other iterator is read to its end, because it only works then.
    """
    try:
        value = pipeline(*map(_pass_argument, args))
    except SystemExit as end:
        if end.code:
            raise
        return None  # exit code 0: a script that succeeded
    if inspect.iscoroutine(value):
        value.close()  # without it Python warns that the coroutine was never awaited
    if inspect.iscoroutine(value) or inspect.isasyncgen(value):
        raise BadArgument(
            "mlchaos.pipeline: the pipeline returned a coroutine. Run it with asyncio.run inside a "
            "plain function"
        )
    return list(value) if isinstance(value, Iterator) else value

"""Call a pipeline under faults, and keep its value or error and the files that it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import inspect
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import sleep  # by name, so that a virtual clock does not reach it
from typing import Any

from ..core.journal import Strike
from ..core.phases import raised
from ..core.privacy import data_text, error_text
from ..core.records import Attempt, FileState, Output, Record
from ..engine import randomness
from ..engine.controller import Controller, current
from ..engine.error_origin import describe_swallower
from ..engine.file_history import FileHistory
from ..engine.process_state import ProcessState
from ..engine.repetition import repeated
from ..engine.resources import growth, list_resources, wait_for_release
from ..engine.scopes import GOLDEN_COPY_PREFIX, INTERNAL_OPERATION, within
from ..engine.subjects import subject_runs
from ..engine.table_types import is_table
from ..errors import BadArgument, CrashSwallowed, MlchaosError, SimulatedCrash, Verdict
from ..runs.remote_clients import fresh_clients
from ..runs.remote_files import RemoteFiles
from ..runs.supervisor import Supervisor, check_subject, snapshot_value
from ..runs.user_state import UserState
from .output_places import Place, split_outputs

__all__ = ["Pipeline"]

SETTLING_SECONDS = 0.02
"""The real time between two looks at the files, after a call that raised beside threads."""
SETTLING_LOOKS = 25

Change = Callable[..., object]
"""A function that changes the input. It may take the pipeline's arguments."""


class Pipeline(Supervisor):
    """One pipeline and its calls: under faults, again after they have cleared, and without faults."""

    def __init__(
        self,
        controller: Controller,
        pipeline: Callable[..., Any],
        args: tuple[Any, ...],
        scratch: Path,
        workdirs: Iterable[Path] = (),
        outputs: Place | Iterable[Place] = (),
    ) -> None:
        check_subject(pipeline, "mlchaos.pipeline")
        local, urls = split_outputs(outputs, scratch)
        super().__init__(
            controller,
            functools.partial(_drain, pipeline),
            args,
            scratch,
            _nothing_watched,
            [*workdirs, *local],
        )
        self._scratch = scratch
        # The files before and after each call, to add objects that only a later call writes.
        self._listings: list[dict[str, FileState]] = []
        self._started: set[str] = set()
        # By path: the sizes of the files that calls have left.
        self._sizes: dict[str, set[int]] = {}
        self._struck_before = 0  # the number of tables that were struck before the last call
        with controller.without_faults():
            self._remote = RemoteFiles(urls)
            controller.resources.callback(self._forget)
            self._now: Mapping[str, FileState] = self._contents()
            self._folders = self._disk.folders()
            self._memory = UserState()
            self._left = self._memory.contents()

    def run(self) -> Output:  # type: ignore[override]  # it is never restarted
        """Call the pipeline under the trial's faults.

        An error is an outcome. A crash ends the simulated process, and freezes the files as they
        are then.
        """
        first_strike = len(self._controller.journal)
        self._counts = self._controller.counts()
        with self._controller.on_crash(self._freeze):
            return self._called(
                self._inputs.first(), lambda: self._controller.journal[first_strike:]
            )

    def again(self, died: bool, changed: Change | None = None) -> Output:
        """Repeat the call without faults, on the directories as they are.

        Args:
            died: True if the process has died. The pipeline receives fresh objects then, and
                otherwise the same ones.
            changed: A function that changes the input before the call.
        """
        with self._controller.without_faults():
            if died:
                randomness.seed_all("restart", 1)
            subject = self._inputs.again() if died else self._inputs.first()
            if changed is not None:
                with self._remote.recorded():
                    _change(changed, _arguments(subject))
                self._now = self._contents()
            return self._called(subject, tuple)

    def golden(  # type: ignore[override]  # files too
        self, steps: Sequence[Change | None] = (None,), look: Callable[[Any], Any] | None = None
    ) -> Output:
        """Return the output of the last of these calls and changes, without faults.

        ``look`` receives the returned value while the directories of this run are in place.
        """
        start = self._controller.clock.now()
        with (
            self._undisturbed() as subject,
            self._memory_at_the_start(),
            fresh_clients(),
            self._remote.as_at_the_start(),
            FileHistory() as history,
            self._remote.recorded(),
        ):
            before = self._contents()
            value = None
            for step in steps:
                if step is None:
                    start = self._controller.clock.now()
                    value = subject()
                else:
                    _change(step, _arguments(subject.args[0]))
                    before = self._contents()
            looked = None if look is None else look(value)
            output = self._output(value, None, before, (), start, history, looked)
            return dataclasses.replace(output, calls=self._controller.calls(), fault_ended=None)

    def repeat(self, *, faults: bool = True) -> tuple[Mapping[str, list[str]], int]:
        """Repeat the first call in a copy of its directories, and drop its output.

        Args:
            faults: True to let the same faults strike, False for a call without faults.

        Returns:
            The names of the resources that it did not release, by kind, and the number of strikes.
        """
        controller = self._controller
        with (
            repeated(controller, self._counts) if faults else controller.without_faults(),
            randomness.preserve_state(),
            ProcessState(),
            self._disk.as_at_the_start(),
            self._remote.as_at_the_start(),
            self._remote.recorded(),
        ):
            self._process_state.restore()
            randomness.restore(self._random)
            gc.collect()
            before, strikes = list_resources(), len(controller.journal)
            with subject_runs(controller, self._disk.roots) as begin:
                begin()
                value, error = self._outcome(self._inputs.first())
            del value
            for one in (error, *controller.injected):
                if one is not None:
                    _drop_frames(one)
            if controller.crash is not None:
                controller.restart()
            strikes = len(controller.journal) - strikes
            return growth(before, wait_for_release(before)), strikes

    def find(self, name: str) -> Path | None:
        """Return the path of a file in the directories, by its name in an output."""
        content = self._remote.content(name)
        if content is None:
            return self._disk.path_of(name)
        folder = self._scratch / f"{GOLDEN_COPY_PREFIX}remote-{os.getpid()}"
        path = folder / name.rpartition("/")[2]
        with within(INTERNAL_OPERATION):
            folder.mkdir(exist_ok=True)
            path.write_bytes(content)
        return path

    def _forget(self) -> None:
        with self._controller.without_faults():
            self._remote.restore()

    def _freeze(self) -> None:
        super()._freeze()
        with self._controller.without_faults():
            self._remote.freeze()

    def _contents(self) -> dict[str, FileState]:
        """Return the states of all files and objects."""
        found = self._disk.contents(self._sizes)
        found |= self._remote.states(self._remote.contents(), self._sizes)
        self._listings.append(found)
        return found

    @contextlib.contextmanager
    def _memory_at_the_start(self) -> Iterator[None]:
        """Undo the pipeline's changes of user modules inside, such as full caches."""
        self._memory.adopt(self._left)  # What the test has changed since the call.
        try:
            with self._memory.as_at_the_start():
                yield
        finally:
            self._left = self._memory.contents()

    def _called(
        self, subject: Callable[[], Any], strikes: Callable[[], Iterable[Strike]]
    ) -> Output:
        controller, start = self._controller, self._controller.clock.now()
        with controller.without_faults():
            self._memory.adopt(self._left)
        controller.fault_ended, calls = None, controller.calls()
        self._struck_before = len(controller.struck_tables)
        with (
            FileHistory() as history,
            self._memory.following_imports(),
            self._remote.recorded(),
            subject_runs(controller, self._disk.roots) as begin,
        ):
            begin()
            value, error = self._outcome(subject)
            if error is not None and threading.active_count() > 1:
                self._let_threads_finish()
            if isinstance(error, SimulatedCrash):
                # The assertions belong to a different process than the crashed one
                controller.restart()
                with controller.without_faults():
                    self._disk.thaw()
                    self._remote.thaw()
                    self._process_state.restore()
        with controller.without_faults():
            self._left = self._memory.contents()
            output = self._output(value, error, self._now, tuple(strikes()), start, history)
        self._now = output.after
        made = {name: number - calls[name] for name, number in controller.calls().items()}
        return dataclasses.replace(output, calls=made)

    def _output(
        self,
        value: object,
        error: BaseException | None,
        before: Mapping[str, FileState],
        strikes: tuple[Strike, ...],
        start: float,
        history: FileHistory,
        looked: object = None,
    ) -> Output:
        ended = "returned" if error is None else f"raised {error_text(error)}"
        clock = self._controller.clock
        now = clock.now()
        record = Record(
            value,
            (Attempt(ended, 0),),
            strikes,
            now - start,
            (),
            snapshot_value(value),
            real_time=clock.reason,
            looked=looked,
        )
        after = self._contents()
        first = self._remote.states(self._remote.start(), self._sizes)
        for listing in self._listings[:-1]:
            # An object that this call is the first to write was there before.
            for path in first.keys() - self._started:
                listing.setdefault(path, first[path])
        self._started |= first.keys()
        for path, state in after.items():
            self._sizes.setdefault(path, set()).add(state.size)
        return Output(
            record,
            error,
            before,
            after,
            self._disk.named(history.renamed),
            self._disk.named(history.read_back),
            self._disk.folders() - self._folders,
            self._temporary(history.temporary),
            now,
            self._controller.fault_ended,
            tuple(self._controller.struck_tables[self._struck_before :]),
            self._disk.tables() if self._controller.struck_tables else {},
            self._controller.by_composite,
            uploads=self._remote.new_uploads(),
            unremoved=self._disk.named(self._controller.unremoved),
        )

    def _let_threads_finish(self) -> None:
        """Wait until threads of the pipeline have written what they had begun.

        An event loop of a library may go on with other requests after one has failed. They must not
        write into the directories of the golden run.
        """
        before = None
        for _ in range(SETTLING_LOOKS):
            now = {
                (name, status.st_size, status.st_mtime_ns)
                for root in self._disk.roots
                for folder, _, files in os.walk(root)
                for name in files
                if (status := _status(os.path.join(folder, name))) is not None
            }
            if now == before:
                return
            before = now
            sleep(SETTLING_SECONDS)

    def _temporary(self, made: Iterable[str]) -> int:
        """Return how many of these temporary files were left outside of the directories."""
        left = {
            path
            for path in made
            if os.path.lexists(path)
            and not any(Path(path).is_relative_to(root) for root in self._disk.roots)
        }
        left -= self._controller.unremoved
        return len(left - _still_owned()) if left else 0

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


def _status(path: str) -> os.stat_result | None:
    """Return the status of a file, or None if it has just been removed."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def _drop_frames(error: BaseException) -> None:
    """Free what the frames of an error hold, and of those that led to it."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        found.__traceback__, found = None, found.__cause__ or found.__context__


def _still_owned() -> set[str]:
    """Return the temporary files and directories whose live owner removes them later."""
    wrapper: Any = tempfile._TemporaryFileWrapper
    return {
        os.path.abspath(found.name)
        for found in gc.get_objects()
        if issubclass(type(found), (wrapper, tempfile.TemporaryDirectory))
        and isinstance(found.name, str)
    }


def _arguments(subject: functools.partial[Any]) -> tuple[Any, ...]:
    """Return the arguments of the pipeline in a subject that was made of ``_drain``."""
    return subject.args[1:]


def _change(change: Change, args: tuple[Any, ...]) -> None:
    """Call the user's function, with the pipeline's arguments if it takes any."""
    for given in ((), args):
        if _takes(change, given):
            change(*given)
            return
    raise BadArgument(
        f"again: changed must be a function without arguments, or one of the pipeline's "
        f"{len(args)} arguments, got {data_text(change)}"
    )


def _takes(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        inspect.signature(function).bind(*args)
    except (TypeError, ValueError):
        return False
    return True


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

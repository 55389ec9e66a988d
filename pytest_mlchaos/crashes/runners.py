"""Make the runs in the subject's work directory, one at a time.

They take place in this process, or each in a fresh one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.interrupts import uninterruptible
from ..core.phases import faulted
from ..core.privacy import child_error, error_text, remember_text
from ..engine.process_state import ProcessState
from ..engine.scopes import INTERNAL_OPERATION, within
from ..errors import BadArgument, LimitReached, MlchaosError
from ..processes import stack_dumps
from ..processes.subject_pickling import PickledOnce
from ..processes.subprocess_runner import ProcessResult, fresh_processes
from .leaks import Leftovers
from .model import Change, RunResult, Tree
from .ranks.orders import Order
from .recording.content_store import ContentStore
from .recording.location import Location
from .recording.polling_recorder import PollingRecorder
from .recording.strace_process import TracedDirectory, await_strace, run_traced
from .recording.syscall_recorder import SyscallRecorder
from .run import (
    OnStep,
    RunOptions,
    Subject,
    collect_garbage,
    note_writes,
    run_recorded,
    run_resumed,
)

__all__ = ["GoldenRun", "InProcessRunner", "Runner", "SubprocessRunner"]


@dataclasses.dataclass(frozen=True)
class GoldenRun:
    """A recorded run and its effects.

    Attributes:
        ran: The run.
        start: The content of the directory at its start.
        changes: Its changes of the directory.
        end: The content of the directory at its end.
        running: The threads and processes that it left.
        changed: The names in modules that are restored.
        kept: The names in modules that keep a changed value.
        compared: True if changes were found by comparing listings, so that some may be missing.
        unseen: The number of changes with an unseen content, one number per call that made several.
        traced: True if system calls were recorded.
        differs: The files that are not as the recorded system calls, or the changes of several
            ranks, left them.
        orders: The changes of several ranks in different orders.
        notes: Further facts about the recording, in words.
        resumes_alike: False if resumed runs differ from this one by design.
    """

    ran: RunResult
    start: Tree | None
    changes: Sequence[Change]
    end: Tree | None
    running: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    compared: bool = False
    unseen: tuple[int, ...] = ()
    traced: bool = False
    differs: tuple[str, ...] = ()
    orders: tuple[Order, ...] = ()
    notes: tuple[str, ...] = ()
    resumes_alike: bool = True


class Runner(Protocol):
    """Runs a subject from any content of its directory."""

    contents: ContentStore
    location: Location
    is_fresh: bool
    start: Tree | None
    follow: bool
    """True to record resumed runs, too, because the files that they write show their progress."""

    def limit(self, seconds: float) -> None:
        """Set the time limit for one run."""

    def golden(self, start: Tree | None) -> GoldenRun:
        """Make a recorded run from that content, or from the present content for None."""
        ...

    def resume(self, tree: Tree, number: int, on_step: OnStep | None) -> RunResult:
        """Make the ``number``-th run, from that content."""
        ...

    def leave(self, tree: Tree | None) -> None:
        """Restore that content at the end."""


class InProcessRunner:
    """Makes the runs in this process.

    The next run starts after the effects of the last on user modules and on the directory have been
    undone.
    """

    is_fresh = False

    def __init__(self, subject: Subject, options: RunOptions, contents: ContentStore) -> None:
        self.contents = contents
        self.location = options.location
        self.start: Tree | None = None
        self.follow = False
        self._subject = subject
        self._options = options
        self._disk = options.location.holding(contents)
        self._process_state = ProcessState()
        self._before = Leftovers()

    def limit(self, seconds: float) -> None:
        """Set the time limit for one run."""
        self._options = dataclasses.replace(self._options, timeout=seconds)

    def golden(self, start: Tree | None) -> GoldenRun:
        """Make a recorded run from that content."""
        self._reset(start)
        try:
            with self._before.following_imports():
                golden = _record_golden(
                    self._subject.fresh(), self._options, self.contents, self._before
                )
            self.start = golden.start if start is None else self.start
            return golden
        finally:
            self._process_state.restore()

    def resume(self, tree: Tree, number: int, on_step: OnStep | None) -> RunResult:
        """Make the ``number``-th run, from that content."""
        self._reset(tree)
        with self._before.following_imports(), faulted():
            if self.follow:
                return _record_resumed(self._subject.fresh(), self._options, self.contents, number)
            return run_resumed(self._subject.fresh(), self._options, number, on_step)

    def leave(self, tree: Tree | None) -> None:
        """Restore that content and the process at the end."""
        collect_garbage()
        self._reset(tree)
        self._before.leave()

    def _reset(self, tree: Tree | None) -> None:
        with within(INTERNAL_OPERATION):
            if tree is not None:
                self._disk.hold(tree)
            self._process_state.restore()
            self._before.restore()


class SubprocessRunner:
    """Makes each run in a fresh process.

    With ``syscalls``, strace records the golden run.
    """

    is_fresh = True

    def __init__(
        self,
        subject: Subject,
        options: RunOptions,
        contents: ContentStore,
        *,
        syscalls: bool = False,
    ) -> None:
        self._syscalls = syscalls
        self.contents = contents
        self.location = options.location
        self.start: Tree | None = None
        self.follow = False
        self._order: Any = PickledOnce(
            (subject.fresh(), dataclasses.replace(options, timeout=None))
        )
        self._timeout = options.timeout
        self._root = options.root
        self._disk = options.location.holding(contents)

    def limit(self, seconds: float) -> None:
        """Set the time limit for one run."""
        self._timeout = seconds

    def golden(self, start: Tree | None) -> GoldenRun:
        """Make a recorded run from that content."""
        self._hold(start)
        if self._syscalls:
            golden = self._traced()
        else:
            golden = _golden_of(
                fresh_processes().run(
                    _golden_there,
                    self._order,
                    self.contents.path,
                    timeout=self._timeout,
                    folders=[str(self._root)],
                ),
                start,
            )
            self.contents.refresh()
        self.start = golden.start if start is None else self.start
        return golden

    def _traced(self) -> GoldenRun:
        with (
            within(INTERNAL_OPERATION),
            contextlib.closing(SyscallRecorder(self._root, self.contents)) as replay,
        ):
            written = self.contents.path.with_name(f"{self.contents.path.name}-calls")
            try:
                ended = run_traced(
                    _traced_there,
                    self._order,
                    self.contents.path,
                    to=written,
                    timeout=self._timeout,
                )
                if written.exists():  # missing if the traced run never began
                    replay.run(written)
            finally:
                written.unlink(missing_ok=True)
            golden = _golden_of(ended, replay.start)
            note_writes(golden.ran, replay.changes, replay.tree() or {})
            return dataclasses.replace(
                golden,
                start=replay.start,
                changes=replay.changes,
                end=replay.tree(),
                unseen=tuple(replay.unseen),
                traced=True,
                differs=replay.differs,
            )

    def resume(self, tree: Tree, number: int, on_step: OnStep | None) -> RunResult:
        """Make the ``number``-th run, from that content."""
        self._hold(tree)
        store = self.contents.path if self.follow else None
        return _result_of(
            fresh_processes().run(
                _resumed_there,
                self._order,
                number,
                on_step,
                store,
                timeout=self._timeout,
                folders=[str(self._root)],
            )
        )

    def leave(self, tree: Tree | None) -> None:
        """Restore that content at the end."""
        self._hold(tree)

    def _hold(self, tree: Tree | None) -> None:
        if tree is not None:
            with within(INTERNAL_OPERATION):
                self._disk.hold(tree)


def _record_golden(
    call: Callable[[], Any], options: RunOptions, contents: ContentStore, before: Leftovers
) -> GoldenRun:
    with within(INTERNAL_OPERATION):
        recorder = options.location.recorder(contents)
    try:
        ran = run_recorded(call, options, recorder)
        running = before.running()
        before.look()
        with within(INTERNAL_OPERATION):
            recorder.drain()
        directory = before.directory()
        if directory is not None:
            raise BadArgument(
                f"mlchaos.explore_crashes: the subject changed the working directory to "
                f"{directory} and did not change it back. "
                "A restarted process would start in the original one. Use absolute paths, or "
                "contextlib.chdir"
            )
        return GoldenRun(
            ran,
            recorder.start,
            recorder.changes,
            recorder.tree(),
            tuple(running),
            tuple(before.in_globals()),
            tuple(before.kept()),
            isinstance(recorder, PollingRecorder),
            tuple(recorder.unseen),
        )
    finally:
        recorder.close()


def _record_resumed(
    call: Callable[[], Any], options: RunOptions, contents: ContentStore, number: int
) -> RunResult:
    with within(INTERNAL_OPERATION):
        recorder = options.location.recorder(contents)
    try:
        return run_recorded(call, options, recorder, number)
    finally:
        recorder.close()


# -- in the fresh process --------------------------------------------------------------------------


_Order = tuple[Callable[[], Any], RunOptions]


def _golden_there(order: _Order, store: Path) -> GoldenRun:
    contents, (call, options) = ContentStore(store), order
    golden = _record_golden(call, options, contents, Leftovers())
    contents.close()
    return dataclasses.replace(golden, ran=_portable(golden.ran))


def _traced_there(order: _Order, store: Path, ready: Path) -> GoldenRun:
    """Make the golden run in this process once strace follows it."""
    with within(INTERNAL_OPERATION):
        await_strace(ready)
    call, options = order
    return _golden_there(
        (call, dataclasses.replace(options, elsewhere=TracedDirectory(options.root))), store
    )


def _golden_of(ended: ProcessResult, start: Tree | None) -> GoldenRun:
    """Return the golden run that a process made, or its failure."""
    if ended.exceeded or not isinstance(ended.value, GoldenRun):
        return GoldenRun(_result_of(ended), start, (), None)
    golden = dataclasses.replace(ended.value, running=(*ended.value.running, *ended.left))
    golden.ran.output = golden.ran.output or ended.output
    return golden


def _resumed_there(
    order: _Order, number: int, on_step: OnStep | None, store: Path | None
) -> RunResult:
    call, options = order
    if store is None:
        return _portable(run_resumed(call, options, number, on_step))
    with open_store(store.with_name(f"{store.name}-{number}")) as contents:
        contents.path.unlink()  # the contents are only used in this process
        return _portable(_record_resumed(call, options, contents, number))


def _portable(ran: RunResult) -> RunResult:
    """Replace an error that cannot be pickled by one with its text."""
    if ran.error is not None:
        remember_text(ran.error)
        try:
            pickle.loads(pickle.dumps(ran.error))
        except Exception:  # noqa: BLE001  # whatever a foreign exception class does
            ran.error = child_error(f"{error_text(ran.error)}")
    return ran


def _result_of(ended: ProcessResult) -> RunResult:
    """Return the run that a process made, or its failure."""
    if isinstance(ended.value, RunResult) and not ended.exceeded:
        ended.value.output = ended.value.output or ended.output
        return ended.value
    if ended.exceeded:
        raise LimitReached(f"mlchaos.explore_crashes: a run {ended.exceeded}. It was ended")
    ran = RunResult(duration=ended.duration, output=ended.output)
    if ended.started is not None:
        raise BadArgument(f"mlchaos.explore_crashes: {ended.started}")
    if ended.hung:
        ran.hung = (
            f"in {stack_dumps.place(ended.stack)}"
            if ended.stack
            else "in an unknown place (no stack is available)"
        )
    elif isinstance(ended.error, MlchaosError):
        raise ended.error
    elif ended.error is not None:
        ran.error = ended.error
    elif ended.exitcode:
        ran.error = child_error(f"the process ended with exit code {ended.exitcode}")
    return ran


@uninterruptible
def open_store(store: Path) -> Iterator[ContentStore]:
    """Open a content store in a file, and close it at the end."""
    contents = ContentStore(store)
    try:
        yield contents
    finally:
        contents.close()

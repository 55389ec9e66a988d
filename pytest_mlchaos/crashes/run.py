"""Run a subject once in its work directory, as a new process would, with a time limit."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter  # bound before the subject's clock is patched, so it is the real one
from typing import Any

from ..core.clock import VirtualClock
from ..core.interrupts import deferred, uninterruptible
from ..core.phases import raised
from ..core.privacy import error_text
from ..core.schedule import Schedule
from ..engine import virtual_time
from ..engine.controller import Controller, current
from ..engine.digests import random_states
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..engine.randomness import seed_as_new_process
from ..engine.scopes import INTERNAL_OPERATION, within
from ..engine.user_code import user_place
from ..engine.watchdog import time_limit
from ..errors import GoldenRunFailed, MlchaosError, NonDeterministicSubject, TrialTimeout, Verdict
from ..runs.inputs import Inputs
from ..runs.supervisor import snapshot_value
from ..runs.traces import Trace
from .early_end import Stop
from .model import WORKER, Change, RunResult, Tree, completed_files
from .recording.hooks import cross_device
from .recording.location import LocalDirectory, Location, ReadLog, Recorder

__all__ = [
    "OnStep",
    "RunOptions",
    "Subject",
    "Traced",
    "ends_the_test",
    "freeze_heap",
    "note_writes",
    "run_recorded",
    "run_resumed",
]

Traced = Callable[[Callable[[Trace], None]], contextlib.AbstractContextManager[Trace]]
"""A context manager that traces a run's steps, and calls the given function after each."""
OnStep = Callable[[Trace, ReadLog], None]
"""Called after each step, with the trace so far and the files that the run has read."""
_MAX_OUTPUT_CHARACTERS = 20_000
_JUDGEMENTS = (Verdict, GoldenRunFailed, NonDeterministicSubject)
"""This package's verdicts on code that the subject runs. They are outcomes, as the subject's own
errors are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a subject's runs.

    ``elsewhere`` is the location of its checkpoints, if that is not a directory.
    """

    root: Path
    traced: Traced
    cross_device: bool = False
    timeout: float | None = None
    virtual: bool = False
    elsewhere: Location | None = None

    @property
    def location(self) -> Location:
        """Return the location of its checkpoints."""
        return self.elsewhere or LocalDirectory(self.root)


class Subject:
    """A callable with its arguments. Each run receives fresh copies of them."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._inputs = Inputs(function, args)

    def fresh(self) -> Callable[[], Any]:
        """Return the callable with its arguments as they were at the start."""
        return self._inputs.again()


def run_recorded(
    call: Callable[[], Any], options: RunOptions, recorder: Recorder, number: int = 0
) -> RunResult:
    """Run the subject while the recorder follows the files that it writes.

    Args:
        call: The subject with its arguments.
        options: The options of its runs.
        recorder: The recorder of the location.
        number: The number of its process, which seeds its generators.
    """

    def on_step(trace: Trace, reads: ReadLog) -> None:
        recorder.drain(closely=True)
        recorder.step = len(trace.steps)

    with options.location.watched(recorder):
        ran = _run(call, options, number, on_step, recorder)
    note_writes(ran, recorder.changes, recorder.tree() or {})
    return ran


def note_writes(ran: RunResult, changes: Sequence[Change], left: Tree) -> None:
    """Fill in which files a run wrote.

    Args:
        ran: The run.
        changes: The changes that were recorded.
        left: The content of the directory at the end.
    """
    # They show the progress of a run without steps.
    completed = list(completed_files(changes))
    ran.completed = tuple((change.path, file.content.digest) for change, file in completed)
    ran.grown = frozenset(change.path for change in changes) - _replaced_paths(changes)
    saved = dict.fromkeys(
        change.path
        for change, file in completed
        if file.content.size and (change.step or not ran.trace.steps)
    )
    # A run cannot resume from a lock that is gone at the end.
    ran.saved = tuple(path for path in saved if path in left)


def _replaced_paths(changes: Iterable[Change]) -> set[str]:
    """Return the files that were not only appended to, and links and directories."""
    kinds = ("created", "grew", "closed", "synced")
    return {
        path
        for change in changes
        if change.kind not in kinds
        for path in (change.path, change.source)
        if path is not None
    }


def ends_the_test(error: BaseException) -> bool:
    """Return True for an exception with which pytest or pytest-timeout ends a test.

    pytest's ``Failed`` sets ``__module__`` to ``builtins``, so its bases are checked.
    """
    kind = type(error)
    is_failed = kind.__name__ == "Failed" and any(
        base.__module__.startswith("_pytest") for base in kind.__mro__
    )
    return is_failed or kind.__module__.startswith("_pytest")


def run_resumed(
    call: Callable[[], Any],
    options: RunOptions,
    number: int,
    on_step: OnStep | None = None,
) -> RunResult:
    """Run the subject without recording.

    Args:
        call: The subject with its arguments.
        options: The options of its runs.
        number: The number of its process, which seeds its generators.
        on_step: Called after each step, with the trace and what the run has read.
    """
    return _run(call, options, number, on_step or _nothing)


def _nothing(trace: Trace, reads: ReadLog) -> None: ...


def _run(
    call: Callable[[], Any],
    options: RunOptions,
    number: int,
    on_step: OnStep,
    recorder: Recorder | None = None,
) -> RunResult:
    ran, output = RunResult(), io.StringIO()
    seed_as_new_process(number)
    before = dict(random_states())
    start = perf_counter()
    with (
        _run_environment(options, output, quiet=number > 0),
        options.location.reads(recorder) as reads,
        options.traced(lambda trace: on_step(trace, reads)) as ran.trace,
    ):
        try:
            with time_limit(options.timeout, current() or Controller(Schedule()), "the run"):
                ran.value = snapshot_value(call())
        except Stop:
            pass
        except TrialTimeout as timeout:
            ran.hung = timeout.place
        except SystemExit as stop:
            ran.error = stop if stop.code else None
        except BaseException as error:  # whatever the subject raises is an outcome
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)) or ends_the_test(error):
                raise
            if isinstance(error, MlchaosError) and not isinstance(error, _JUDGEMENTS):
                raise  # an error of the test or of mlchaos says nothing about the subject
            ran.error = error
        if ran.trace.stopped:  # the subject may have caught the end, and gone on or failed
            ran.value = ran.error = ran.hung = None
        ran.duration = perf_counter() - start
    ran.read, ran.observed = reads.files, reads.observed
    ran.output = output.getvalue()[-_MAX_OUTPUT_CHARACTERS:]
    ran.trace.random = {
        name: (before[name], state) for name, state in random_states() if name in before
    }
    if ran.error is not None:
        raised(ran.error)
        ran.place = user_place(ran.error)
    elif (
        ran.hung is None
        and not ran.trace.stopped
        and (isinstance(options.location, LocalDirectory) or ran.value is None)
    ):
        with within(INTERNAL_OPERATION):
            ran.files, ran.texts = options.location.endings()
    return ran


@uninterruptible
def _run_environment(options: RunOptions, output: io.StringIO, *, quiet: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        # The golden run shows its warnings. Resumed runs would repeat them.
        stack.enter_context(
            warnings.catch_warnings(record=True) if quiet else warnings.catch_warnings()
        )
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(output))
        stack.enter_context(_one_thread())
        _hear_threads(output, stack.enter_context(Patches()), quiet=quiet)
        if options.cross_device:
            stack.enter_context(cross_device(str(options.root)))
        if options.virtual:
            virtual_time.install(VirtualClock(), stack.enter_context(Patches()))
        yield


def _hear_threads(output: io.StringIO, patches: Patches, *, quiet: bool) -> None:
    """Print the error that ends a thread.

    A run that waits for that thread does not report it otherwise. ``quiet`` skips the previous
    hook.
    """
    hook = threading.excepthook

    def ended(args: Any) -> None:
        if not quiet:
            hook(args)
        name = args.thread.name if args.thread is not None else "?"
        error = args.exc_value if args.exc_value is not None else args.exc_type()
        print(f"{WORKER}thread {name} raised {error_text(error)}", file=output)

    patches.set(threading, "excepthook", ended)


@uninterruptible
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread (or ``OMP_NUM_THREADS``).

    torchrun and the fresh processes do the same. Many small runs, possibly in parallel, are faster
    with one thread, and floating-point sums are equal.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0] or 1)
    before: list[int] = []

    def limit() -> None:
        torch = sys.modules["torch"]
        before.append(torch.get_num_threads())
        torch.set_num_threads(threads)

    with Patches() as patches:
        when_imported("torch", patches, limit)
        yield
        if before:
            sys.modules["torch"].set_num_threads(before[0])


@uninterruptible
def freeze_heap() -> Iterator[None]:
    """Exclude all existing objects from garbage collection.

    With torch there are a million of them. After this, only objects that the runs create are
    collected.
    """
    if gc.get_freeze_count():  # the user has frozen objects, and unfreeze() would release them
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def collect_garbage() -> None:
    """Free what a run has left, so that its loaders' workers end and its files are closed.

    Python drops an exception in a finalizer, even a KeyboardInterrupt. So signals wait until all
    finalizers have run.
    """
    with deferred():
        gc.collect()

"""Trigger a recorder around each call of a C function, in every thread."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterator

# By name, so that patches of the module's attributes do not affect it.
from time import process_time
from typing import Any, TypeAlias

from ...core.interrupts import uninterruptible
from ...engine.activity import is_single_threaded, is_waiting_on_child
from ...engine.import_hooks import watch_imports
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, within
from ...engine.thread_frames import thread_frames
from ...engine.user_code import is_users
from .inotify_recorder import InotifyRecorder
from .polling_recorder import PollingRecorder

__all__ = ["EXDEV", "cross_device", "install_hooks"]

_TOOL = 4  # of sys.monitoring: 0 to 2 and 5 are for debuggers, coverage, profilers and optimisers
EXDEV = 18  # of Linux and macOS
_STOP_CHECK_SECONDS = 0.05
"""The watcher thread checks at this interval whether the run is over. The run's end waits for it.
"""
_LONG_CALL_SECONDS = 0.01
"""A C function that takes longer is a long call.

Writes of Python code are recorded sooner, at the calls themselves, so that their states are the
same in each run.
"""
_CHILD_IDLE_SECONDS = 0.03
"""A child process that writes nothing for this long has moved on to other work.

It may soon overwrite the file, so the directory is recorded then.
"""


@uninterruptible
def install_hooks(recorder: InotifyRecorder | PollingRecorder) -> Iterator[None]:
    """Drain the recorder whenever something may have been written.

    This is before and after each C function, and when Python functions return. Writes of other
    threads and of child processes in between are recorded then, too.
    """
    drain, pending, busy, owner = recorder.drain, recorder.pending, threading.local(), os.getpid()

    def look() -> None:
        if os.getpid() != owner:
            sys.setprofile(None)  # in a forked process, whose writes the parent records
        elif not getattr(busy, "on", False):
            busy.on = True
            try:
                with within(INTERNAL_OPERATION):
                    drain()
            finally:
                busy.on = False

    with Patches() as patches:
        _watch_syncs(recorder, patches)
        if isinstance(recorder, PollingRecorder):
            patches.on_undo(recorder.listen(look))
        hooks = _monitor if hasattr(sys, "monitoring") else _profile
        pause, resume = hooks(patches, pending, look)
        with (
            watch_imports(pause, resume, of=_is_librarys),
            _watcher_thread(recorder, look, busy),
        ):
            yield
    with within(INTERNAL_OPERATION):
        drain(closely=True)


@uninterruptible
def _watcher_thread(
    recorder: InotifyRecorder | PollingRecorder, look: Callable[[], None], busy: threading.local
) -> Iterator[None]:
    """Drain the recorder during long C calls from a second thread.

    Some trainers write several times in one call. A call that sleeps may wait for a child process,
    which writes to the work directory meanwhile.

    Writes of Python code are recorded at the calls themselves, before this thread considers a call
    long. So their states are the same in each run.
    """
    over, me = threading.Event(), os.getpid()

    def watch() -> None:
        # On Python 3.12, all threads are watched, and this one's own calls must not count.
        busy.on = True
        while not over.is_set() and os.getpid() == me:
            if recorder.wait(_STOP_CHECK_SECONDS) and _is_time(recorder, over):
                busy.on = False
                look()
                busy.on = True

    thread = threading.Thread(target=watch, name="mlchaos-watch", daemon=True)
    profile = threading.getprofile() if hasattr(threading, "getprofile") else None
    threading.setprofile(None)  # the watcher must not watch itself
    thread.start()
    threading.setprofile(profile)
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_time(recorder: InotifyRecorder | PollingRecorder, over: threading.Event) -> bool:
    """Return True if the watcher thread should drain the recorder now, after a change."""
    if isinstance(recorder, PollingRecorder) and recorder.has_children():
        return True  # polled files of child processes may change again soon
    drained, worked, waiting = recorder.drained, process_time(), recorder.pending()
    if over.wait(_LONG_CALL_SECONDS) or recorder.drained != drained or not recorder.wait(0):
        return False  # Python code ran in between, so this was not one long call
    # A call that used less CPU time may only have waited for its turn on a busy machine.
    if process_time() - worked > _LONG_CALL_SECONDS / 4:
        return is_single_threaded()
    return (
        is_waiting_on_child()
        and not over.wait(_CHILD_IDLE_SECONDS)
        and recorder.pending() == waiting
        and is_waiting_on_child()
    )


def _is_librarys(spec: importlib.machinery.ModuleSpec) -> bool:
    """Return True for a module of a library.

    The hooks pause while it is executed. Some imports make a million calls (a first optimizer of
    torch imports its compiler), and none of them writes checkpoints. A change that an import makes
    in the work directory is recorded after it.
    """
    return not is_users(str(spec.origin))


_Pair: TypeAlias = tuple[Callable[[], None], Callable[[], None]]


def _profile(patches: Patches, pending: Callable[[], int], look: Callable[[], None]) -> _Pair:
    """Install the hooks on Python 3.11.

    Return functions that pause and resume them. They are a profile function in this thread and in
    threads that start later.
    """
    over = False

    def moment(frame: object, event: str, arg: object) -> None:
        if over:
            sys.setprofile(None)  # this thread has outlived the run
        elif event != "call" and pending():
            look()

    before = sys.getprofile(), threading.getprofile() if hasattr(threading, "getprofile") else None

    def undo() -> None:
        nonlocal over
        over = True
        sys.setprofile(before[0] if callable(before[0]) else None)
        threading.setprofile(before[1])

    def pause() -> None:
        if sys.getprofile() is moment:
            sys.setprofile(None)

    def resume() -> None:
        if sys.getprofile() is None and not over:
            sys.setprofile(moment)

    patches.on_undo(undo)
    threading.setprofile(moment)
    sys.setprofile(moment)
    return pause, resume


def _monitor(patches: Patches, pending: Callable[[], int], look: Callable[[], None]) -> _Pair:
    """Install the hooks on Python 3.12 and later.

    Return functions that pause and resume them. They apply to all threads, even to those that run
    already.
    """
    monitoring = sys.monitoring  # type: ignore[attr-defined]  # of 3.12
    tool = next(tool for tool in (_TOOL, 3, 2) if monitoring.get_tool(tool) is None)
    monitoring.use_tool_id(tool, "mlchaos")

    def moment(*_: object) -> None:
        if pending():
            look()

    events = (
        monitoring.events.CALL,
        monitoring.events.C_RETURN,
        monitoring.events.C_RAISE,
        monitoring.events.PY_RETURN,
        monitoring.events.PY_YIELD,
    )
    for event in events:
        monitoring.register_callback(tool, event, moment)

    def undo() -> None:
        if monitoring.get_tool(tool) == "mlchaos":
            monitoring.set_events(tool, 0)
            for event in events:
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)

    def pause() -> None:
        # The events are those of all threads: pause them only if there is none but the watcher.
        if len(thread_frames()) <= 2:
            monitoring.set_events(tool, 0)

    def resume() -> None:
        if monitoring.get_tool(tool) == "mlchaos":
            monitoring.set_events(tool, watched)

    watched = monitoring.events.CALL | monitoring.events.PY_RETURN | monitoring.events.PY_YIELD
    patches.on_undo(undo)
    monitoring.set_events(tool, watched)
    return pause, resume


def _watch_syncs(recorder: InotifyRecorder | PollingRecorder, patches: Patches) -> None:
    """Report ``os.fsync``, ``os.fdatasync`` and ``os.sync`` to the recorder.

    Data that they write back survives a power loss.

    Fidelity: ``fsync`` calls of C++ or Rust are not seen, nor are files that were opened with
    ``O_SYNC`` or ``O_DSYNC``.
    """
    for name in ("fsync", "fdatasync", "sync"):
        original = getattr(os, name, None)
        if original is not None:
            wrapper = (
                _wrap_sync(original, recorder)
                if name == "sync"
                else _wrap_fsync(original, recorder)
            )
            patches.set(os, name, wrapper)
            patches.replace_everywhere(original, wrapper)


def _wrap_sync(
    original: Callable[[], None], recorder: InotifyRecorder | PollingRecorder
) -> Callable[[], None]:
    @functools.wraps(original)
    def sync() -> None:
        original()
        with within(INTERNAL_OPERATION):
            recorder.all_synced()

    return sync


def _wrap_fsync(
    original: Callable[[Any], None], recorder: InotifyRecorder | PollingRecorder
) -> Callable[[Any], None]:
    @functools.wraps(original)
    def sync(fd: Any) -> None:
        original(fd)
        number = fd if isinstance(fd, int) else fd.fileno()
        with within(INTERNAL_OPERATION), contextlib.suppress(OSError):
            recorder.synced(
                recorder.path_of(number)
                if isinstance(recorder, PollingRecorder)
                else os.readlink(f"/proc/self/fd/{number}")
            )

    return sync


@uninterruptible
def cross_device(root: str) -> Iterator[None]:
    """Imitate a directory on a separate filesystem.

    Moves and links across its border fail with ``EXDEV``.

    Fidelity: ``os.rename``, ``os.replace`` and ``os.link`` fail, under whatever name a module has
    them, and so do the functions of the standard library that use them. Renames by C++ or Rust, and
    those relative to a directory descriptor, do not fail.
    """
    with Patches() as patches:
        with patches.together():
            for name in ("rename", "replace", "link"):
                original = getattr(os, name)
                wrapper = _wrap_rename(original, os.path.realpath(root))
                patches.set(os, name, wrapper)
                patches.replace_everywhere(original, wrapper)
        yield


def _wrap_rename(original: Callable[..., None], root: str) -> Callable[..., None]:
    @functools.wraps(original)
    def move(src: Any, dst: Any, *args: object, **keywords: object) -> None:
        if (
            not keywords.get("src_dir_fd")
            and not keywords.get("dst_dir_fd")
            and _below(src, root) != _below(dst, root)
        ):
            raise OSError(EXDEV, os.strerror(EXDEV), os.fspath(src), None, os.fspath(dst))
        original(src, dst, *args, **keywords)

    return move


def _below(path: str | os.PathLike[str], root: str) -> bool:
    where = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))
    return where == root or where.startswith(root + os.sep)

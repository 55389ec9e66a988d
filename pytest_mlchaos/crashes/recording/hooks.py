"""The moments at which a recorder looks: around each call of a C function, in every thread; and a step's begin and end."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from time import process_time  # by name: whoever patches the module's attributes leaves this alone
from typing import Any, TypeAlias

from ...core.interrupts import uninterruptible
from ...engine.activity import is_single_threaded, is_waiting_on_child
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, within
from ...engine.user_code import is_users
from .inotify_recorder import InotifyRecorder
from .polling_recorder import PollingRecorder

__all__ = ["EXDEV", "cross_device", "install_hooks"]

_TOOL = 4  # of sys.monitoring: 0 to 2 and 5 are for debuggers, coverage, profilers and optimisers
EXDEV = 18
_STOP_CHECK_SECONDS = 0.05
"""Seconds between two looks of the watcher thread at whether the run is over: the run's end waits for it."""
_LONG_CALL_SECONDS = 0.01
"""Seconds after which a C function is a long one: what Python code writes is drained before that, at its own moments."""
_CHILD_IDLE_SECONDS = 0.03
"""Seconds without a write after which a child process goes on with something else, and may soon write over the file."""


@uninterruptible
def install_hooks(recorder: InotifyRecorder | PollingRecorder) -> Iterator[None]:
    """Drain the recorder whenever something may have been written: before and after each C function, and where Python functions return.

    What another thread or a child process writes in the meantime is seen then, too.
    """
    drain, pending, busy, owner = recorder.drain, recorder.pending, threading.local(), os.getpid()

    def look() -> None:
        if os.getpid() != owner:
            sys.setprofile(None)  # a process that was forked off: its writes are seen from here
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
        _pause_in_imports(patches, pause, resume)
        with _watcher_thread(recorder, look, busy):
            yield
    with within(INTERNAL_OPERATION):
        drain(closely=True)


@uninterruptible
def _watcher_thread(recorder: InotifyRecorder | PollingRecorder, look: Callable[[], None], busy: threading.local) -> Iterator[None]:
    """A thread that looks while all else is one C function that takes long, and writes several times, as some trainers do; or sleeps.

    Who sleeps may be waiting for a child process, which has the work directory to itself meanwhile.

    What Python code writes is taken in at its own moments, before this thread's patience ends: so its states are the same each time.
    """
    over, me = threading.Event(), os.getpid()

    def watch() -> None:
        busy.on = True  # where every thread is watched, this one's own calls are no moments
        while not over.is_set() and os.getpid() == me:
            if recorder.wait(_STOP_CHECK_SECONDS) and _is_time(recorder, over):
                busy.on = False
                look()
                busy.on = True

    thread = threading.Thread(target=watch, name="mlchaos-watch", daemon=True)
    profile = threading.getprofile() if hasattr(threading, "getprofile") else None
    threading.setprofile(None)  # this one need not watch itself
    thread.start()
    threading.setprofile(profile)
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_time(recorder: InotifyRecorder | PollingRecorder, over: threading.Event) -> bool:
    """Whether to look from beside, now that something has changed."""
    if isinstance(recorder, PollingRecorder) and recorder.has_children():
        return True  # what they have written is soon another thing
    drained, worked, waiting = recorder.drained, process_time(), recorder.pending()
    if over.wait(_LONG_CALL_SECONDS) or recorder.drained != drained or not recorder.wait(0):
        return False  # it was not in the same call all the while
    if process_time() - worked > _LONG_CALL_SECONDS / 4:  # it may as well be waiting for its turn
        return is_single_threaded()
    return is_waiting_on_child() and not over.wait(_CHILD_IDLE_SECONDS) and recorder.pending() == waiting and is_waiting_on_child()


def _pause_in_imports(patches: Patches, pause: Callable[[], None], resume: Callable[[], None]) -> None:
    """Take the hooks away while a library's module is executed.

    Some imports make a million calls (a first optimizer of torch imports its compiler), and none of them writes checkpoints. What an import
    leaves behind in the work directory is seen after it.
    """
    bootstrap: Any = importlib.__dict__["_bootstrap"]  # no public hook surrounds the execution of every module
    load = bootstrap._load_unlocked
    paused = threading.local()

    def _load_unlocked(spec: Any) -> Any:
        if getattr(paused, "on", False) or is_users(str(spec.origin)):
            return load(spec)
        paused.on = True
        pause()
        try:
            return load(spec)
        finally:
            paused.on = False
            resume()

    # Python leaves the frames of importlib out of tracebacks, if nothing is between them.
    _load_unlocked.__code__ = _load_unlocked.__code__.replace(co_filename=load.__code__.co_filename)
    patches.set(bootstrap, "_load_unlocked", _load_unlocked)


_Pair: TypeAlias = tuple[Callable[[], None], Callable[[], None]]


def _profile(patches: Patches, pending: Callable[[], int], look: Callable[[], None]) -> _Pair:
    """Python 3.11: a profile function in this thread, and in those that are started from now on; return what pauses and resumes it."""
    over = False

    def moment(frame: Any, event: str, arg: Any) -> None:
        if over:
            sys.setprofile(None)  # a thread that outlives the run: from here on it is not ours
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
    """From Python 3.12 on: all threads, those that run already too; return what pauses and resumes the events."""
    monitoring = sys.monitoring  # type: ignore[attr-defined]  # of 3.12
    tool = next(tool for tool in (_TOOL, 3, 2) if monitoring.get_tool(tool) is None)
    monitoring.use_tool_id(tool, "mlchaos")

    def moment(*_: Any) -> None:
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
        if len(sys._current_frames()) <= 2:  # the events are those of all threads: this one and the watcher do without
            monitoring.set_events(tool, 0)

    def resume() -> None:
        if monitoring.get_tool(tool) == "mlchaos":
            monitoring.set_events(tool, watched)

    watched = monitoring.events.CALL | monitoring.events.PY_RETURN | monitoring.events.PY_YIELD
    patches.on_undo(undo)
    monitoring.set_events(tool, watched)
    return pause, resume


def _watch_syncs(recorder: InotifyRecorder | PollingRecorder, patches: Patches) -> None:
    """What is written back by ``os.fsync``, ``os.fdatasync`` and ``os.sync`` outlives a power loss.

    Fidelity: what C++ or Rust writes back by itself is not seen, nor are files that were opened with ``O_SYNC`` or ``O_DSYNC``.
    """
    for name in ("fsync", "fdatasync", "sync"):
        original = getattr(os, name, None)
        if original is not None:
            wrapper = _wrap_sync(original, recorder) if name == "sync" else _wrap_fsync(original, recorder)
            patches.set(os, name, wrapper)
            patches.replace_everywhere(original, wrapper)


def _wrap_sync(original: Callable[[], None], recorder: InotifyRecorder | PollingRecorder) -> Callable[[], None]:
    @functools.wraps(original)
    def sync() -> None:
        original()
        with within(INTERNAL_OPERATION):
            recorder.all_synced()

    return sync


def _wrap_fsync(original: Callable[[Any], None], recorder: InotifyRecorder | PollingRecorder) -> Callable[[Any], None]:
    @functools.wraps(original)
    def sync(fd: Any) -> None:
        original(fd)
        number = fd if isinstance(fd, int) else fd.fileno()
        with within(INTERNAL_OPERATION), contextlib.suppress(OSError):
            recorder.synced(recorder.path_of(number) if isinstance(recorder, PollingRecorder) else os.readlink(f"/proc/self/fd/{number}"))

    return sync


@uninterruptible
def cross_device(root: str) -> Iterator[None]:
    """The directory is on a filesystem of its own: what is moved or linked over its border fails with ``EXDEV``.

    Fidelity: ``os.rename``, ``os.replace`` and ``os.link``, under whatever name a module has them, and what the standard library makes of
    them. A rename from C++ or Rust, and one of a directory descriptor, are not disturbed.
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
    def move(src: Any, dst: Any, *args: Any, **keywords: Any) -> None:
        if not keywords.get("src_dir_fd") and not keywords.get("dst_dir_fd") and _below(src, root) != _below(dst, root):
            raise OSError(EXDEV, os.strerror(EXDEV), os.fspath(src), None, os.fspath(dst))
        original(src, dst, *args, **keywords)

    return move


def _below(path: Any, root: str) -> bool:
    where = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))
    return where == root or where.startswith(root + os.sep)

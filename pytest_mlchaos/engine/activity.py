"""Who is at work beside the test: other threads, child processes. Virtual time may not jump over what they do."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
import types
from pathlib import Path
from time import sleep  # the real one

from .user_code import is_users

__all__ = [
    "TOOLS",
    "TOOL_PROCESSES",
    "WAITING",
    "WORLDS",
    "busy_reason",
    "is_alive",
    "is_single_threaded",
    "is_waiting_on_child",
    "list_threads",
    "may_bring_something",
    "package_of",
    "runs_a_program",
]

_PACKAGE_NAME = __name__.partition(".")[0]
WAITING = frozenset(
    ("threading", "queue", "multiprocessing", "concurrent", "subprocess", "selectors", "socket", "socketserver", "ssl", "http", "urllib")
)
"""Modules of the standard library that wait by themselves, and really."""
TOOLS = frozenset({"pytest", "_pytest", "pluggy", "xdist", "execnet", "pytest_timeout", "hypothesis", _PACKAGE_NAME})
"""Packages that are no part of what is tested."""
WAKE_UP_SECONDS = 0.001
"""Seconds for a thread that has just been given something to do to wake up."""
TOOL_PROCESSES: set[int] = set()
"""Child processes of the tool's own."""
WORLDS: set[int] = set()
"""Worlds whose ranks run now: they are children of one of the tool's processes, but what they run is the subject's."""
_TASKS = Path("/proc/self/task")
_WAITS = {"wait", "select", "get", "accept", "_worker", "_wait_for_tstate_lock", "poll", "_poll", "_recv", "recv", "readinto", "join"}

_RESTS = {"wait", "_worker", "worker", "_handle_tasks", "_handle_results", "_wait_for_updates"}
"""In a pool's thread, what it does while there is no work."""
_SELECTS = frozenset({"select", "poll"})
"""In an event loop's thread, the same."""


def busy_reason() -> str:
    """Why time is real while somebody is at work beside this thread, or nothing."""
    return _busy_process() or _busy_thread()


def list_threads() -> list[threading.Thread]:
    """What ``threading.enumerate`` gives, without its lock: whoever is interrupted to look may hold that."""
    return [*list(threading._active.values()), *list(threading._limbo.values())]  # type: ignore[attr-defined]


def is_single_threaded() -> bool:
    """Whether the main thread is the only one that is part of what is tested, and has no child process."""
    others = (thread for thread in list_threads() if thread is not threading.main_thread() and not _is_idle(thread))
    return not any(others) and not _busy_process()


def is_waiting_on_child() -> bool:
    """Whether there is a child process, and all threads of this one but the one that asks sleep: what happens now is the child's doing."""
    me = str(threading.get_native_id())
    try:
        return bool(WORLDS or _busy_process()) and all(_state(task) == b"S" for task in _TASKS.iterdir() if task.name != me)
    except OSError:
        return False


def _state(task: Path) -> bytes:
    """``R`` (runs, or could), ``S`` (sleeps), ``D`` (waits for a disk), ...; a thread that has just ended sleeps."""
    try:
        return (task / "stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return b"S"


def _busy_thread() -> str:
    """Why time is real while a thread of this process is at work, or nothing."""
    others = [thread for thread in list_threads() if thread.ident != threading.get_ident() and not _is_idle(thread)]
    if not others:
        return ""
    sleep(WAKE_UP_SECONDS)
    frames = sys._current_frames()
    busy = next((thread for thread in others if thread.ident in frames and not _waits(thread, frames[thread.ident])), None)
    return f"the thread {busy.name} is at work" if busy is not None else ""


def _is_idle(thread: threading.Thread) -> bool:
    """Whether a thread is never part of what is tested: a tool's, or an event loop's own, which waits for others and is waited for."""
    target = getattr(thread, "_target", None)
    function = getattr(target, "__func__", target)
    return _is_of_tool(thread) or function is asyncio.BaseEventLoop.run_forever


def _is_of_tool(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    package = str(getattr(getattr(target, "__func__", target), "__module__", "")).partition(".")[0]
    return thread.name.startswith("mlchaos") or package in TOOLS


def runs_a_program(ident: int | None) -> str:
    """The name of another thread, if what it does is not just to run an event loop: then the loop's tasks may wait for each other."""
    thread = next((thread for thread in list_threads() if thread.ident == ident), None)
    if ident is None or thread is None or ident == threading.get_ident() or _is_idle(thread):
        return ""
    return thread.name


def may_bring_something() -> bool:
    """Whether a thread or a child process is there that could wake this thread, or does anything at all.

    Idle threads of pools, idle event loops, and threads of tools are not: nothing but new work wakes them.
    """
    frames = sys._current_frames()
    others = [thread for thread in list_threads() if thread.ident != threading.get_ident() and not _is_of_tool(thread)]
    return bool(_busy_process()) or not all(thread.ident in frames and _rests(frames[thread.ident]) for thread in others)


def _rests(frame: types.FrameType) -> bool:
    """Whether a thread waits for new work, with no code of the user's on its stack: in a pool, or in an event loop."""
    if frame.f_code.co_name in _SELECTS:
        return _is_idle_loop(frame)
    if package_of(frame) not in WAITING or frame.f_code.co_name not in _RESTS or _is_woken(frame):
        return False
    outer: types.FrameType | None = frame
    while outer is not None:
        if is_users(outer.f_code.co_filename):
            return False
        outer = outer.f_back
    return True


def _is_idle_loop(frame: types.FrameType | None) -> bool:
    """Return True for an event loop with nothing to run, nothing scheduled and no socket; libraries keep such loops for their calls."""
    while frame is not None:
        loop = frame.f_locals.get("self")
        if frame.f_code.co_name == "run_forever" and isinstance(loop, asyncio.BaseEventLoop):
            sockets = getattr(getattr(loop, "_selector", None), "get_map", lambda: None)()
            waiting = any(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]
            return not loop._ready and not waiting and sockets is not None and len(sockets) <= 1  # type: ignore[attr-defined]  # it wakes itself by one
        frame = frame.f_back
    return False


def _is_woken(frame: types.FrameType) -> bool:
    """Whether a thread has been given work that it has not taken yet: its condition is notified, or its queue holds something."""
    waiter = frame.f_locals.get("waiter")
    if waiter is not None and hasattr(waiter, "locked") and not waiter.locked():
        return True
    held = list(frame.f_locals.values())
    queues = [*held, *(getattr(one, "__self__", None) for one in held)]
    return any(isinstance(one, (queue.Queue, queue.SimpleQueue)) and one.qsize() for one in queues)


def _waits(thread: threading.Thread, frame: types.FrameType) -> bool:
    """Whether a thread stands in a wait of the standard library's: nothing happens before somebody wakes it.

    What a daemon waits for (a server, a monitor) is a call. Any other thread may have been given work that waits for a while: it is
    idle only where the standard library alone, or a tool, is on its stack.
    """
    waits = package_of(frame) in WAITING and frame.f_code.co_name in _WAITS
    packages = set()
    outer: types.FrameType | None = frame
    while outer is not None:
        packages.add(package_of(outer))
        outer = outer.f_back
    of_a_tool = bool(packages & (TOOLS - {_PACKAGE_NAME}))
    return of_a_tool or (waits and (thread.daemon or packages <= sys.stdlib_module_names))


def package_of(frame: types.FrameType) -> str:
    """The top-level package that a frame's code belongs to."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _busy_process() -> str:
    """Why time is real while there are child processes, or nothing (Linux; elsewhere only those that are started in the trial)."""
    for task in _TASKS.glob("*/children") if _TASKS.is_dir() else ():
        with contextlib.suppress(OSError):
            for pid in task.read_text().split():
                if int(pid) not in TOOL_PROCESSES and not _is_tracker(int(pid)) and is_alive(int(pid)):
                    return f"there is a child process ({_name_of(pid)})"
    return ""


def is_alive(pid: int) -> bool:
    """Return True if a process runs."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def _is_tracker(pid: int) -> bool:
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    return tracker is not None and getattr(tracker._resource_tracker, "_pid", None) == pid


def _name_of(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return pid

"""Detect busy threads and child processes. Virtual time must not jump while they are working."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import queue
import sys
import threading
import types
import weakref
from collections.abc import Container, Mapping
from pathlib import Path
from time import sleep  # the real one

from .thread_frames import thread_frames
from .user_code import is_users

with contextlib.suppress(ImportError):  # not on Windows
    from time import clock_gettime_ns, pthread_getcpuclockid

__all__ = [
    "ABANDONED",
    "TOOLS",
    "TOOL_PROCESSES",
    "WAITING",
    "WORLDS",
    "busy_reason",
    "is_alive",
    "is_in_call",
    "is_only_a_loop",
    "is_single_threaded",
    "is_waiting_on_child",
    "list_threads",
    "may_bring_something",
    "package_of",
    "processor_time",
    "processor_times",
    "runs_a_program",
    "threads_in_user_code",
    "unknown_work",
    "waking_reason",
    "working_thread",
]

_PACKAGE_NAME = __name__.partition(".")[0]
WAITING = frozenset(
    (
        "threading",
        "queue",
        "multiprocessing",
        "concurrent",
        "subprocess",
        "selectors",
        "socket",
        "socketserver",
        "ssl",
        "http",
        "urllib",
    )
)
"""Modules of the standard library whose waits are real."""
TOOLS = frozenset(
    {
        "pytest",
        "_pytest",
        "pluggy",
        "xdist",
        "execnet",
        "pytest_timeout",
        "hypothesis",
        _PACKAGE_NAME,
    }
)
"""Packages that are not part of the code under test."""
WAKE_UP_SECONDS = 0.001
"""The seconds that a thread needs to wake up after it has received work."""
MOST_WAKE_UP_LOOKS = 200
"""How often a thread is looked at that could run, but is not let run by the machine."""
TOOL_PROCESSES: set[int] = set()
"""Child processes of the plugin itself."""
ABANDONED: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads of earlier trials that are blocked for ever."""
_WAITED: weakref.WeakKeyDictionary[threading.Thread, int | None] = weakref.WeakKeyDictionary()
"""For how long a thread had run when it was last found waiting."""
WORLDS: set[int] = set()
"""Worlds whose ranks run now.

They are children of a process of the plugin, but they run the subject's code.
"""
_TASKS = Path("/proc/self/task")
_FUTEX = {"x86_64": b"202", "aarch64": b"98"}.get(platform.machine(), b"unknown")
"""The number of the system call in which a thread waits for a lock."""
_WAITS = {
    "wait",
    "select",
    "get",
    "accept",
    "_worker",
    "_wait_for_tstate_lock",
    "poll",
    "_poll",
    "_recv",
    "recv",
    "readinto",
    "join",
}

_RESTS = {"wait", "_worker", "worker", "_handle_tasks", "_handle_results", "_wait_for_updates"}
"""The functions in which a thread of a pool waits for work."""
_SELECTS = frozenset({"select", "poll"})
"""The functions in which the thread of an event loop waits for work."""


def busy_reason() -> str:
    """Return the reason for real time if something else is working, or an empty text."""
    return _busy_process() or _busy_thread()


def waking_reason(members: set[int], *, strict: bool) -> str:
    """Return the reason why a thread outside virtual time may wake one of its threads, or "".

    Args:
        members: The threads in virtual time, which are looked at elsewhere.
        strict: True if idle threads count that wait with a time limit, because some thread waits
            for an event that they may cause.
    """
    found = _busy_process() or _busy_thread(members)
    if found or not strict:
        return found
    frames = thread_frames()
    others = [
        thread
        for thread in list_threads()
        if thread.ident not in members
        and thread.ident != threading.get_ident()
        and not _is_of_tool(thread)
        and thread.ident in frames
    ]
    awake = next((thread for thread in others if not _rests(frames[thread.ident or 0])), None)
    return f"the thread {awake.name} may wake up" if awake is not None else ""


def is_only_a_loop(thread: threading.Thread) -> bool:
    """Return True for a thread of a tool, or one that only runs an event loop."""
    return _is_idle(thread)


def working_thread(threads: list[threading.Thread]) -> threading.Thread | None:
    """Return a thread that can do something before a thread of this process wakes it, or None.

    A thread cannot if it is idle in a wait of the standard library, or blocked in a lock. One that
    only waits for the interpreter runs while this function sleeps.
    """
    if not threads:
        return None
    before = {thread: processor_time(thread) for thread in threads}
    sleep(WAKE_UP_SECONDS)
    frames = thread_frames()
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        still = before[thread] is not None and before[thread] == processor_time(thread)
        task = thread.native_id
        if not still or frame is None or task is None:
            return thread
        if not _sleeps_in_lock(task) and not (_rests(frame) and _state(_TASKS / str(task)) == b"S"):
            return thread
    return None


def processor_time(thread: threading.Thread) -> int | None:
    """Return the nanoseconds for which a thread has run, or None if the system does not tell."""
    try:
        return clock_gettime_ns(pthread_getcpuclockid(thread.ident or 0))
    except (NameError, OSError, OverflowError):
        return None


def is_in_call(thread: threading.Thread) -> bool:
    """Return True if a thread waits in a call of the system other than for a lock."""
    task = thread.native_id
    if task is None or _state(_TASKS / str(task)) == b"R":
        return False
    try:
        return (_TASKS / str(task) / "syscall").read_bytes().split()[:1] not in (
            [_FUTEX],
            [b"running"],
        )
    except OSError:
        return True


def _sleeps_in_lock(task: int) -> bool:
    """Return True if the system shows that a thread sleeps until a lock is released."""
    try:
        where = (_TASKS / str(task) / "syscall").read_bytes()
    except OSError:
        return False
    # The call's number and arguments. The fourth one points to a time limit.
    call = where.split()
    return len(call) > 4 and call[0] == _FUTEX and int(call[4], 16) == 0


def processor_times() -> dict[int, int]:
    """Return the nanoseconds for which each thread has run, by the system's number.

    Threads without Python code are among them. Return none if the system does not tell.
    """
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(_TASKS):
            found[int(name)] = _processor_time_of(int(name))
    return found


def _processor_time_of(task: int) -> int:
    """Return the nanoseconds for which a thread has run, or -1 if it has ended."""
    try:
        # The kernel's number for the clock of a thread (CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED)
        return clock_gettime_ns((~task << 3) | 6)
    except (NameError, OSError):
        return -1


def unknown_work(members: set[int], before: Mapping[int, int]) -> str:
    """Return the reason for real time if a thread without Python code may be at work, or "".

    Such a thread is idle if it waits for a lock, or if it sleeps and has not run in this trial:
    nothing has given it work. A library that an earlier test has used keeps such threads.

    Args:
        members: The system's numbers of threads that need no look, because they took part in the
            test.
        before: What ``processor_times`` returned when the trial began.
    """
    try:
        tasks = [int(name) for name in os.listdir(_TASKS)]
    except OSError:
        return "the threads of libraries cannot be seen on this system"
    known = {*members, *(thread.native_id for thread in list_threads()), *_tools_without_objects()}
    works = any(
        task not in known and not _sleeps_in_lock(task) and not _slept_since(before, task)
        for task in tasks
    )
    return "a thread of a library is at work" if works else ""


def _slept_since(before: Mapping[int, int], task: int) -> bool:
    return (
        task in before
        and _state(_TASKS / str(task)) == b"S"
        and before[task] == _processor_time_of(task)
    )


def _tools_without_objects() -> set[int]:
    """Return the threads of tools that ``threading`` does not know (those of execnet)."""
    known = {thread.ident for thread in list_threads()}
    found = set()
    for ident, frame in thread_frames().items():
        outer: types.FrameType | None = frame if ident not in known else None
        while outer is not None and package_of(outer) not in TOOLS:
            outer = outer.f_back
        if outer is not None:
            # The number of a thread's clock contains the number of the thread
            found.add(~(pthread_getcpuclockid(ident) >> 3))
    return found


def list_threads() -> list[threading.Thread]:
    """Return what ``threading.enumerate`` returns, but without its lock.

    This function may run in a signal handler, and the interrupted code may hold that lock.
    """
    return [*list(threading._active.values()), *list(threading._limbo.values())]  # type: ignore[attr-defined]


def threads_in_user_code() -> dict[threading.Thread, str]:
    """Return the threads that have user code on their stack, each with its innermost line."""
    frames = thread_frames()
    lines = {
        thread: _innermost_line(frames.get(thread.ident or 0))
        for thread in list_threads()
        if not _is_of_tool(thread)
    }
    return {thread: line for thread, line in lines.items() if line}


def _innermost_line(frame: types.FrameType | None) -> str:
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"


def is_single_threaded() -> bool:
    """Return True if only the main thread runs the code under test, without child processes."""
    others = (
        thread
        for thread in list_threads()
        if thread is not threading.main_thread() and not _is_idle(thread)
    )
    return not any(others) and not _busy_process()


def is_waiting_on_child() -> bool:
    """Return True if there is a child process, and all threads but the calling one sleep.

    Then the activity that is going on is the child's.
    """
    me = str(threading.get_native_id())
    try:
        return bool(WORLDS or _busy_process()) and all(
            _state(task) == b"S" for task in _TASKS.iterdir() if task.name != me
        )
    except OSError:
        return False


def _state(task: Path) -> bytes:
    """Return the state of a thread: ``R`` (running), ``S`` (sleeping), ``D`` (disk).

    A thread that has just ended counts as sleeping.
    """
    try:
        return (task / "stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return b"S"


def _busy_thread(members: Container[int | None] = ()) -> str:
    """Return the reason for real time if a thread of this process is working, or an empty text."""
    others = [
        thread
        for thread in list_threads()
        if thread.ident != threading.get_ident()
        and thread.ident not in members
        and not _is_idle(thread)
        and not _still_waits(thread)
    ]
    if not others:
        return ""
    sleep(WAKE_UP_SECONDS)
    _let_run(others)
    before = {thread: processor_time(thread) for thread in others}
    frames = thread_frames()
    for thread in others:
        if thread.ident in frames and not _waits(thread, frames[thread.ident]):
            return f"the thread {thread.name} is busy"
    _WAITED.update(before)
    return ""


def _still_waits(thread: threading.Thread) -> bool:
    """Return True if a thread was found waiting, and nothing has woken it since.

    A thread that is woken can run at once, and shows that it could, even before it is let run.
    """
    waited = _WAITED.get(thread)
    return (
        waited is not None
        and waited == processor_time(thread)
        and _state(_TASKS / str(thread.native_id)) == b"S"
    )


def _let_run(threads: list[threading.Thread]) -> None:
    """Wait until each thread has run that has just been woken. A loaded machine lets it wait."""
    for thread in threads:
        task = _TASKS / str(thread.native_id)
        before = processor_time(thread)
        for _ in range(MOST_WAKE_UP_LOOKS):
            if _state(task) != b"R" or processor_time(thread) != before:
                break
            sleep(WAKE_UP_SECONDS)


def _is_idle(thread: threading.Thread) -> bool:
    """Return True if a thread is never part of the code under test.

    It belongs to a tool, or only runs an event loop, which waits for other threads.
    """
    target = getattr(thread, "_target", None)
    function = getattr(target, "__func__", target)
    return _is_of_tool(thread) or function is asyncio.BaseEventLoop.run_forever


def _is_of_tool(thread: threading.Thread) -> bool:
    if thread in ABANDONED:
        return True
    # A timer (pytest-timeout has one) has a function
    target = getattr(thread, "_target", None) or getattr(thread, "function", None)
    package = str(getattr(getattr(target, "__func__", target), "__module__", "")).partition(".")[0]
    return thread.name.startswith("mlchaos") or package in TOOLS


def runs_a_program(ident: int | None) -> str:
    """Return the name of a thread that does more than run an event loop, or an empty text.

    The tasks of such a loop may wait for each other.
    """
    thread = next((thread for thread in list_threads() if thread.ident == ident), None)
    if ident is None or thread is None or ident == threading.get_ident() or _is_idle(thread):
        return ""
    return thread.name


def may_bring_something() -> bool:
    """Return True if a thread or a child process may still wake this thread, or have an effect.

    Idle threads of pools, idle event loops and threads of tools do not count: only new work wakes
    them. Neither does a thread that waits for a lock without a time limit, such as a worker that
    waits at its queue: only a different thread wakes it.
    """
    frames = thread_frames()
    others = [
        thread
        for thread in list_threads()
        if thread.ident != threading.get_ident() and not _is_of_tool(thread)
    ]
    return bool(_busy_process()) or not all(
        thread.ident in frames
        and (
            _rests(frames[thread.ident])
            or (thread.native_id is not None and _sleeps_in_lock(thread.native_id))
        )
        for thread in others
    )


def _rests(frame: types.FrameType) -> bool:
    """Return True if a thread of a pool or an event loop waits for new work.

    No user code is on its stack.
    """
    if frame.f_code.co_name in _SELECTS:
        return _is_idle_loop(frame)
    if _waits_for_thread(frame):
        return True
    if package_of(frame) not in WAITING or frame.f_code.co_name not in _RESTS or _is_woken(frame):
        return False
    outer: types.FrameType | None = frame
    while outer is not None:
        if is_users(outer.f_code.co_filename):
            return False
        outer = outer.f_back
    return True


def _waits_for_thread(frame: types.FrameType) -> bool:
    """Return True in a wait without an end that a thread began in an earlier trial.

    Only a thread that notifies it can wake it.
    """
    if package_of(frame) != _PACKAGE_NAME or frame.f_code.co_name != "_acquired":
        return False
    lock, wait = frame.f_locals.get("lock"), frame.f_locals.get("wait")
    return lock is not None and lock.locked() and getattr(wait, "deadline", 0) is None


def _is_idle_loop(frame: types.FrameType | None) -> bool:
    """Return True for an event loop without ready or scheduled callbacks and without sockets.

    Libraries keep such loops for their calls.
    """
    while frame is not None:
        loop = frame.f_locals.get("self")
        if frame.f_code.co_name == "run_forever" and isinstance(loop, asyncio.BaseEventLoop):
            sockets = getattr(getattr(loop, "_selector", None), "get_map", lambda: None)()
            waiting = any(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]
            # The loop has one socket to wake itself
            return not loop._ready and not waiting and sockets is not None and len(sockets) <= 1  # type: ignore[attr-defined]
        frame = frame.f_back
    return False


def _is_woken(frame: types.FrameType) -> bool:
    """Return True if a thread has received work that it has not taken yet.

    Its condition is notified, or its queue is not empty.
    """
    waiter = frame.f_locals.get("waiter")
    if waiter is not None and hasattr(waiter, "locked") and not waiter.locked():
        return True
    held = list(frame.f_locals.values())
    queues = [*held, *(getattr(one, "__self__", None) for one in held)]
    return any(isinstance(one, (queue.Queue, queue.SimpleQueue)) and one.qsize() for one in queues)


def _waits(thread: threading.Thread, frame: types.FrameType) -> bool:
    """Return True if a thread does nothing until it is woken, in a wait of the standard library.

    A daemon thread (a server, a monitor) waits for calls. Other threads may be in the middle of
    some work, so they are idle only if their stack holds nothing but the standard library or a
    tool.
    """
    if _waits_for_thread(frame):
        return True
    waits = package_of(frame) in WAITING and frame.f_code.co_name in _WAITS
    packages = set()
    outer: types.FrameType | None = frame
    while outer is not None:
        packages.add(package_of(outer))
        outer = outer.f_back
    packages.discard(_PACKAGE_NAME)  # its wrappers only pass calls on
    of_a_tool = bool(packages & TOOLS)
    return of_a_tool or (waits and (thread.daemon or packages <= sys.stdlib_module_names))


def package_of(frame: types.FrameType) -> str:
    """Return the top-level package of a frame's code."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _busy_process() -> str:
    """Return the reason for real time if there are child processes, or an empty text.

    This works on Linux. On other systems, only processes that start during the trial are detected.
    """
    if _has_no_child():
        return ""
    try:
        tasks = os.listdir(_TASKS)
    except OSError:
        return ""
    for task in tasks:
        with contextlib.suppress(OSError), open(f"{_TASKS}/{task}/children", "rb") as children:
            for pid in children.read().decode().split():
                if (
                    int(pid) not in TOOL_PROCESSES
                    and not _is_tracker(int(pid))
                    and is_alive(int(pid))
                ):
                    return f"there is a child process ({_name_of(pid)})"
    return ""


def _has_no_child() -> bool:
    """Return True if the system says so. This takes a microsecond, and the list of children 30."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    except (AttributeError, OSError):
        return False
    return False


def is_alive(pid: int) -> bool:
    """Return True if a process is running."""
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

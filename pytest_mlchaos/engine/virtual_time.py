"""Provide virtual time for user code: ``time`` and asyncio's event loop.

The functions below replace those of ``time`` and ``datetime.now``, under each name that a module has for them. Each
replacement checks its caller: waits inside the standard library for processes and sockets are real,
so these callers get real time. The duration of such a wait still advances the virtual clock. Waits
for conditions (events, queues, futures) and asyncio's loop jump. Test tools always get real time.

Time jumps only while nothing else is working. The threads that the test starts wait on the same
clock (``thread_waits.py``). A busy thread or a child process makes time real from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import multiprocessing.process
import selectors
import subprocess
import sys
import threading
import time
import types
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any

from ..core.clock import VirtualClock
from .activity import TOOLS, WAITING, busy_reason, package_of, runs_a_program
from .datetimes import patch_datetime
from .module_names import names
from .patching import Patches
from .stand_ins import unbound
from .thread_waits import ThreadWaits

__all__ = ["install", "installed_clock", "settle", "wall"]

_WAITS_OF_THREADS = frozenset({"threading", "queue", "concurrent"})
"""Modules whose waits jump in the threads that a clock governs."""
_REAL_TIME = (WAITING | TOOLS) - _WAITS_OF_THREADS
_OTHER_LOOPS = frozenset({"trio", "curio", "gevent", "eventlet"})
"""Event loops that cannot jump. If one runs, time is real."""

_clock: VirtualClock | None = None
_wall = _counter = 0.0
"""The values of ``time.time`` and ``time.perf_counter`` when the clock started."""
_real: dict[str, Callable[..., Any]] = {
    name: getattr(time, name)
    for name in (
        "sleep",
        "monotonic",
        "monotonic_ns",
        "time",
        "time_ns",
        "perf_counter",
        "perf_counter_ns",
        "localtime",
        "gmtime",
        "ctime",
        "strftime",
    )
}


def _clock_of(caller: types.FrameType) -> VirtualClock | None:
    """Return the clock for the calling code, or None for the real clock."""
    clock = _clock
    if clock is None:
        return None
    package = package_of(caller)
    # A loop in a thread of its own runs in real time.
    if package == "asyncio":
        return clock if clock.is_mine else None
    if package in _WAITS_OF_THREADS:
        return clock if clock.is_mine and not _is_for_tools(caller) else None
    if package in _REAL_TIME:
        return None
    if package in _OTHER_LOOPS:
        clock.become_real(f"the event loop of {package} waits for real")
    elif clock.governs:
        loop = asyncio._get_running_loop()
        if loop is not None and not isinstance(loop, asyncio.BaseEventLoop):
            clock.become_real(f"the event loop {type(loop).__name__} waits for real")
    return clock if clock.is_real or clock.is_mine else None


def _is_for_tools(frame: types.FrameType | None) -> bool:
    """Return True if a tool called these functions of the standard library."""
    while frame is not None and package_of(frame) in _WAITS_OF_THREADS:
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") == ThreadWaits.__module__:
        return False  # the standard library runs the thread
    return package_of(frame) in TOOLS


def _wall_for(caller: types.FrameType) -> float | None:
    """Return the virtual time of day for the calling code, or None for the real one."""
    clock = _clock_of(caller)
    return None if clock is None else _CLOCKS["time"](clock)


def _sleep(seconds: float, /) -> None:
    clock = _clock_of(sys._getframe(1))
    if clock is None or not isinstance(seconds, (int, float)) or not seconds >= 0:
        _real["sleep"](seconds)  # it raises the right error for a wrong argument
    else:
        clock.sleep(seconds)


def _seconds(name: str, shown: Callable[[VirtualClock], float]) -> Callable[[], float]:
    """Return the virtual form of one of ``time``'s clocks.

    ``shown`` computes its value from the clock.
    """
    real = _real[name]

    def read() -> float:
        clock = _clock_of(sys._getframe(1))
        return real() if clock is None else shown(clock)

    return read


def _nanoseconds(name: str, shown: Callable[[VirtualClock], float]) -> Callable[[], int]:
    real = _real[name]

    def read() -> int:
        clock = _clock_of(sys._getframe(1))
        return real() if clock is None else int(shown(clock) * 1e9)

    return read


def _of_now(name: str, place: int) -> Callable[..., Any]:
    """Return the virtual form of a function that shows the time of day by default.

    Args:
        name: The name of the function in ``time``.
        place: The index of the argument that is now if it is missing.
    """
    real = _real[name]

    def show(*args: Any) -> Any:
        if len(args) <= place or args[place] is None:
            now = _wall_for(sys._getframe(1))
            if now is not None:
                args = (*args[:place], _real["localtime"](now) if place else now)
        return real(*args)

    return show


_CLOCKS: dict[str, Callable[[VirtualClock], float]] = {
    "monotonic": lambda clock: clock.now(),
    "time": lambda clock: _wall + clock.passed() + clock.wall_shift,
    "perf_counter": lambda clock: _counter + clock.passed(),
}
_VIRTUAL: dict[str, Callable[..., Any]] = {
    "sleep": _sleep,
    **{name: _seconds(name, shown) for name, shown in _CLOCKS.items()},
    **{f"{name}_ns": _nanoseconds(f"{name}_ns", shown) for name, shown in _CLOCKS.items()},
    **{name: _of_now(name, 0) for name in ("localtime", "gmtime", "ctime")},
    "strftime": _of_now("strftime", 1),
}
_VIRTUAL = {
    name: unbound(functools.wraps(_real[name])(function), _real[name])
    for name, function in _VIRTUAL.items()
}
_FUNCTIONS = frozenset((*_real.values(), *_VIRTUAL.values()))
_KINDS = frozenset(map(type, _FUNCTIONS))


def install(clock: VirtualClock, patches: Patches) -> None:
    """Let user code use ``clock`` until ``patches`` are undone."""
    global _clock, _wall, _counter
    before = _clock, _wall, _counter  # those of the surrounding trial, if there is one

    def uninstall() -> None:
        global _clock, _wall, _counter
        clock.end()
        _clock, _wall, _counter = before
        if _clock is None:
            _names.bind(_VIRTUAL, _real)

    patches.on_undo(uninstall)
    for name, function in _VIRTUAL.items():
        patches.set(time, name, function)
    clock.others = busy_reason
    _clock, _wall, _counter = clock, _real["time"](), _real["perf_counter"]()
    _names.bind(_real, _VIRTUAL)
    patch_datetime(patches, _wall_for)
    waits = ThreadWaits(clock)
    waits.install(patches)
    for cls in {selectors.DefaultSelector, selectors.SelectSelector}:
        patches.set(cls, "select", _jumping(cls.select, clock, waits))
    patches.set(
        threading.Condition, "wait", _condition_wait(threading.Condition.wait, clock, waits)
    )
    patches.set(
        asyncio, "run_coroutine_threadsafe", _begin_now(asyncio.run_coroutine_threadsafe, clock)
    )
    loop = asyncio.BaseEventLoop
    patches.set(loop, "call_soon_threadsafe", _handed_over(loop.call_soon_threadsafe, clock))
    process = multiprocessing.process.BaseProcess
    patches.set(
        process,
        "start",
        _watched(process.start, clock, lambda started: f"the process {started.name} was started"),
    )
    patches.set(
        subprocess.Popen,
        "__init__",
        _watched(subprocess.Popen.__init__, clock, lambda _: "a subprocess was started"),
    )


def installed_clock() -> VirtualClock | None:
    """Return the virtual clock that user code uses, or None."""
    return _clock


def wall() -> float:
    """Return the time of day that user code sees, in seconds since the epoch."""
    return _real["time"]() if _clock is None else _CLOCKS["time"](_clock)


def settle() -> None:
    """Search the modules for names of ``time``'s functions.

    Call it before a process forks others with a virtual clock.
    """
    _names.settle()


class _Names:
    """The names that modules have for the functions of ``time``.

    An example is the result of ``from time import sleep``.
    """

    def __init__(self) -> None:
        self._found: set[tuple[str, str]] = set()
        self._settled = 0

    def settle(self) -> None:
        """Search only later modules from now on.

        In a forked process, a search would copy the memory pages of all others.
        """
        self._found = {
            (at.entry.key, at.name)
            for at in names.find([*_FUNCTIONS])
            if _is_governed(at.entry.key)
        }
        self._settled = len(sys.modules)

    def bind(self, old: dict[str, Callable[..., Any]], new: dict[str, Callable[..., Any]]) -> None:
        """Rebind each name of a function in ``old`` to the function of the same name in ``new``."""
        replacements = {function: new[name] for name, function in old.items()}
        if not self._settled:
            functions = list(replacements)
            for at in names.find(functions):
                if _is_governed(at.entry.key):
                    names.assign(at.module, at.name, replacements[functions[at.place]])
            return
        self._search_later()
        for module, name in self._found:
            held = getattr(sys.modules.get(module), name, None)
            if type(held) in _KINDS and held in replacements:
                setattr(sys.modules[module], name, replacements[held])

    def _search_later(self) -> None:
        later = max(0, len(sys.modules) - self._settled)
        for module, content in list(itertools.islice(reversed(sys.modules.items()), later)):
            # Not an object that only claims to be a module (by __class__).
            if issubclass(type(content), types.ModuleType) and _is_governed(module):
                found = (
                    (name, held)
                    for name, held in list(vars(content).items())
                    if type(held) in _KINDS
                )
                self._found.update((module, name) for name, held in found if held in _FUNCTIONS)


def _is_governed(module: str) -> bool:
    return module == "time" or module.partition(".")[0] not in _REAL_TIME


_names = _Names()


def _jumping(
    original: Callable[..., Any], clock: VirtualClock, waits: ThreadWaits
) -> Callable[..., Any]:
    """Replace a selector's ``select``, so that time jumps.

    It does if an event loop waits only for its next deadline.
    """

    @functools.wraps(original)
    def select(self: Any, timeout: float | None = None) -> Any:
        if (timeout is not None and timeout <= 0) or not clock.governs:
            return original(self, timeout)
        # One file may be registered: the pipe that wakes the loop.
        if package_of(sys._getframe(1)) == "asyncio" and len(self.get_map()) <= 1:
            if waits.others:
                loop = asyncio._get_running_loop()
                return waits.select(functools.partial(original, self), timeout, loop)
            if timeout is not None:
                clock.check()
                if clock.governs:
                    ready = original(self, 0)
                    if not ready:
                        clock.skip(timeout)
                    return ready
        return _wait_on_clock(
            clock, lambda: original(self, timeout), timeout, lambda ready: not ready
        )

    return select


def _wait_on_clock(
    clock: VirtualClock,
    wait: Callable[[], Any],
    timeout: float | None,
    is_over: Callable[[Any], bool],
) -> Any:
    """Wait for real, and advance the clock by the same time.

    If the wait timed out, advance it by exactly ``timeout``.
    """
    start = _real["monotonic"]()
    result = wait()
    if clock.governs:
        clock.skip(
            timeout if timeout is not None and is_over(result) else _real["monotonic"]() - start
        )
    return result


def _condition_wait(
    original: Callable[..., Any], clock: VirtualClock, waits: ThreadWaits
) -> Callable[..., Any]:
    """Replace ``Condition.wait``, which events, queues and futures use, so that time jumps.

    If something outside virtual time may notify the condition, the wait is real, and its duration
    counts.
    """

    @functools.wraps(original)
    def wait(self: Any, timeout: float | None = None) -> Any:
        # A negative time limit is over at once, and a condition that is not owned is refused.
        over = timeout is not None and not timeout > 0
        if not clock.governs or over or not self._is_owned() or _is_for_tools(sys._getframe(1)):
            return original(self, timeout)
        if waits.others:
            return _wait_with_others(self, timeout, waits)
        if timeout is None:
            waits.report_if_alone()
            return original(self)
        if waits.may_jump():
            clock.skip(timeout)
            return original(self, 0)
        return _wait_on_clock(
            clock, lambda: original(self, timeout), timeout, lambda notified: not notified
        )

    return wait


def _wait_with_others(condition: Any, timeout: float | None, waits: ThreadWaits) -> bool:
    """Do what ``Condition.wait`` does, with a wait that other threads know of."""
    waiter = allocate_lock()
    waiter.acquire()
    condition._waiters.append(waiter)
    saved = condition._release_save()
    notified = False
    try:
        notified = waits.wait(waiter, timeout, lambda: waiter not in condition._waiters)
        return notified
    finally:
        condition._acquire_restore(saved)
        if not notified:
            with contextlib.suppress(ValueError):
                condition._waiters.remove(waiter)


def _begin_now(original: Callable[..., Any], clock: VirtualClock) -> Callable[..., Any]:
    """Let a coroutine that is sent to a loop in a different thread begin now.

    The delays of its tasks count from this time. They do not add up with those of other tasks.
    """

    @functools.wraps(original)
    def run_coroutine_threadsafe(coro: object, loop: object) -> Any:
        with clock.beginning_now():
            return original(coro, loop)

    return run_coroutine_threadsafe


def _handed_over(original: Callable[..., Any], clock: VirtualClock) -> Callable[..., Any]:
    """Make time real if a loop in a different thread receives work.

    Its time-outs are real.

    An example is the portal of a test client. If the thread only runs the loop, as for a library's
    own requests, the calling thread waits for the result, and virtual time still works.
    """

    @functools.wraps(original)
    def call_soon_threadsafe(self: object, *args: object, **kwargs: object) -> Any:
        ident = getattr(self, "_thread_id", None)
        if clock.governs and not clock.includes(ident) and (name := runs_a_program(ident)):
            clock.become_real(f"the event loop in the thread {name} waits for real")
        return original(self, *args, **kwargs)

    return call_soon_threadsafe


def _watched(
    original: Callable[..., Any], clock: VirtualClock, why: Callable[[Any], str]
) -> Callable[..., Any]:
    """Make time real when a process starts, because it runs beside the test."""

    @functools.wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        # subprocess.run waits for its process.
        if clock.governs and package_of(sys._getframe(1)) not in (
            __name__.partition(".")[0],
            "subprocess",
        ):
            clock.become_real(why(self))
        return original(self, *args, **kwargs)

    return start

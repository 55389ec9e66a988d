"""A time limit on code that runs in the main thread, interrupting sleeps and locks too."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ..core.interrupts import forget, handle, uninterruptible
from ..errors import SimulatedCrash, TrialTimeout
from .controller import Controller
from .user_code import is_users

__all__ = ["no_time_limit", "time_limit"]


_SIGNAL = getattr(signal, "SIGVTALRM", None)  # nobody else's: SIGALRM belongs to pytest-timeout and to user code
_REPEAT_SECONDS = 1.0
"""Seconds until a test that is still there is interrupted again: its code may have swallowed the first interruption."""


class _Expired(BaseException):
    """Thrown into the code that took too long; no ``except Exception`` catches it."""


class _Watcher:
    """One thread for all trials (starting one takes longer than many a trial): signals the main thread at the deadline."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._wakes: float | None = None  # when the thread looks again by itself
        self._thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Signal after so many seconds, and again each second until ``stop``."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():  # none yet, or this is a forked child
                self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="mlchaos-timeout", daemon=True)
                self._thread.start()
            self._deadline = time.monotonic() + seconds
            if self._wakes is None or self._deadline < self._wakes:
                self._changed.notify()

    def stop(self) -> float | None:
        """No signal is under way once this returns. What was left, in seconds, of a time that had been set."""
        with self._changed:
            left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.001)
            self._deadline = None
            return left

    def _watch(self, main: int) -> None:
        with self._changed:
            while True:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is None or left > 0:
                    self._wakes = self._deadline
                    self._changed.wait(left)
                else:
                    signal.pthread_kill(main, _SIGNAL)  # type: ignore[arg-type]  # there is one, or nobody starts this
                    self._deadline = time.monotonic() + _REPEAT_SECONDS


_watcher = _Watcher()


@uninterruptible
def no_time_limit() -> Iterator[float | None]:
    """The limit that holds around this waits meanwhile; gives the seconds that are left of it."""
    if _SIGNAL is None or threading.current_thread() is not threading.main_thread():
        yield None
        return
    left = _watcher.stop()
    try:
        yield left
    finally:
        if left is not None:
            _watcher.start(left)


@uninterruptible
def time_limit(seconds: float | None, controller: Controller, limited: str = "the trial") -> Iterator[None]:
    """Raise ``TrialTimeout`` in the main thread once the time is over. Limits nest: the outer one waits.

    Code that swallows the interruption is interrupted again each second. A crash in another thread interrupts the main
    thread in the same way: the process is gone. Where there are no such signals (Windows), or
    outside the main thread, there is no limit: a ``pytest-timeout`` still holds.
    """
    if seconds is None or _SIGNAL is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = _watcher.stop()
    running = True
    places: list[str] = []
    told: list[str] = []

    def expired(signum: int, frame: FrameType | None) -> None:
        if running and controller.crash is not None:
            raise SimulatedCrash(str(controller.crash))
        if running:
            places.append(_place(frame))
            raise _Expired

    before, interrupt, limit = handle(_SIGNAL, expired), controller.interrupt, controller.limit
    controller.interrupt = functools.partial(signal.pthread_kill, threading.get_ident(), _SIGNAL)
    controller.limit = seconds, time.monotonic() + seconds
    _watcher.start(seconds)
    try:
        yield
    except _Expired as error:
        told = getattr(error, "__notes__", [])
    finally:
        running = False
        controller.interrupt, controller.limit = interrupt, limit
        _watcher.stop()
        forget(_SIGNAL)
        handle(_SIGNAL, before or signal.SIG_DFL)
        if outer is not None:
            _watcher.start(outer)
    if places:
        place = "; ".join([places[0], *told])
        raise TrialTimeout(f"{limited} took longer than {seconds:g} s (setting timeout); it stood {place}", place) from None


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "nowhere"
    caller: FrameType | None = frame
    while caller is not None and not is_users(caller.f_code.co_filename):
        caller = caller.f_back
    by = f", called by {_describe_frame(caller)}" if caller not in (None, frame) else ""
    return f"in {_describe_frame(frame)}{by}"


def _describe_frame(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else "nowhere"

"""Enforce a time limit on code in the main thread. It also interrupts sleeps and locks."""

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


# Unused by others: SIGALRM belongs to pytest-timeout and to user code.
_SIGNAL = getattr(signal, "SIGVTALRM", None)
_REPEAT_SECONDS = 1.0
"""The seconds until a test that is still running is interrupted again.

Its code may have swallowed the first interruption.
"""


class _Expired(BaseException):
    """Raised in the code that took too long. ``except Exception`` does not catch it."""


class _Watcher:
    """The thread that signals the main thread at the deadline.

    All trials share it, because starting a thread takes longer than many trials.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._wakes: float | None = None  # the time when the thread checks again
        self._thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Signal after this many seconds, and again each second until ``stop``."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                # The first call, or a forked child.
                self._thread = threading.Thread(
                    target=self._watch,
                    args=(threading.get_ident(),),
                    name="mlchaos-timeout",
                    daemon=True,
                )
                self._thread.start()
            self._deadline = time.monotonic() + seconds
            if self._wakes is None or self._deadline < self._wakes:
                self._changed.notify()

    def stop(self) -> float | None:
        """Cancel the signal, and return the seconds that were left.

        No signal arrives after this returns.
        """
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
                    # Only platforms with the signal start this thread
                    signal.pthread_kill(main, _SIGNAL)  # type: ignore[arg-type]
                    self._deadline = time.monotonic() + _REPEAT_SECONDS


_watcher = _Watcher()


@uninterruptible
def no_time_limit() -> Iterator[float | None]:
    """Suspend the current time limit inside this context, and give the seconds that are left."""
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
def time_limit(
    seconds: float | None, controller: Controller, limited: str = "the trial"
) -> Iterator[None]:
    """Raise ``TrialTimeout`` in the main thread after ``seconds``.

    An outer limit is suspended meanwhile.

    Code that swallows the interruption is interrupted again each second. A crash in a different
    thread interrupts the main thread in the same way, because the process has died. Outside the
    main thread, or without such signals (Windows), no limit applies, but a ``pytest-timeout`` still
    works.

    Args:
        seconds: The limit, or None.
        controller: The controller of the trial.
        limited: The name of the limited part, for the message.
    """
    if (
        seconds is None
        or _SIGNAL is None
        or threading.current_thread() is not threading.main_thread()
    ):
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
        raise TrialTimeout(
            f"{limited} took longer than {seconds:g} s (setting timeout). It was {place}", place
        ) from None


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "in unknown code"
    caller: FrameType | None = frame
    while caller is not None and not is_users(caller.f_code.co_filename):
        caller = caller.f_back
    by = f", called by {_describe_frame(caller)}" if caller not in (None, frame) else ""
    return f"in {_describe_frame(frame)}{by}"


def _describe_frame(frame: FrameType | None) -> str:
    return (
        f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        if frame is not None
        else "nowhere"
    )

"""The clocks that a trial can run on."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from time import monotonic, sleep  # by name: whoever patches the module's attributes leaves these alone
from typing import ClassVar, Protocol

__all__ = ["Clock", "RealClock", "VirtualClock"]

_waited_until: ContextVar[float] = ContextVar("mlchaos_waited_until", default=0.0)
"""In a task of a loop in another thread: when, in seconds of the clock, the last of its delays is over."""
TICK_SECONDS = 2.0**-20
"""Seconds (about a microsecond) that pass when virtual time is read: a loop that waits for a deadline comes to its end."""


class Clock(Protocol):
    """Seconds since some start, and ways to let them pass."""

    @property
    def reason(self) -> str:
        """Why a clock that was to be virtual is real; nothing where it is what was asked for."""
        ...

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        ...

    def to_await(self, seconds: float) -> float:
        """Of a delay in a coroutine, the seconds that its event loop has to wait."""
        ...

    def become_real(self, reason: str) -> None:
        """From now on time passes by itself."""
        ...

    def set_alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Call ``ring()`` once so many seconds have passed; gives what takes that back. One alarm at a time."""
        ...


class RealClock:
    """``clock="real"``: an injected delay is really waited for."""

    reason = ""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        sleep(seconds)

    def to_await(self, seconds: float) -> float:
        """All of them."""
        return seconds

    def become_real(self, reason: str) -> None:
        """It is."""

    def set_alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """In a thread of its own."""
        return _timer(seconds, ring)


class VirtualClock:
    """``clock="virtual"``: time passes where code waits, and nowhere else; a wait takes no time.

    It governs the thread that it was made in. Other threads live in real time, and once they are part of what is tested
    (``become_real``) so does this one: then the clock goes on from where it stands.
    """

    furthest: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.reason = ""
        self.others: Callable[[], str] = str
        self.on_sleep: Callable[[], None] = lambda: None
        """Called before code in the governed thread lets time pass."""
        self._thread = threading.get_ident()
        self._passed = 0.0
        self.wall_shift = 0.0
        """Seconds by which what is shown of the time of day is off."""
        self._real_since: float | None = None
        self._alarm: tuple[float, Callable[[], None]] | None = None
        self._stop_timer: Callable[[], None] | None = None
        # a short binary fraction: sums of times round alike in each run; and never before what an earlier clock has shown
        self._start = max(math.ceil(monotonic() * 1024) / 1024, VirtualClock.furthest)

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread is the one that it was made in."""
        return threading.get_ident() == self._thread

    @property
    def is_real(self) -> bool:
        """Whether time passes by itself, by now."""
        return self._real_since is not None

    @property
    def governs(self) -> bool:
        """Whether the calling thread's time is virtual."""
        return not self.is_real and self.is_mine

    def passed(self) -> float:
        """Seconds since the clock was made."""
        if self._real_since is not None:
            return self._passed + (monotonic() - self._real_since)
        self._passed += TICK_SECONDS
        return self._passed

    def now(self) -> float:
        """Seconds, as ``time.monotonic`` gives them."""
        return self._start + self.passed()

    def skip(self, seconds: float) -> None:
        """Let time pass, at once; up to an alarm, if that comes before."""
        if self._alarm is not None and self._passed + seconds >= self._alarm[0]:
            (when, ring), self._alarm = self._alarm, None
            before, self._passed = self._passed, max(self._passed, when)
            ring()
            seconds -= self._passed - before
        self._passed += seconds

    def set_alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Where time jumps over that moment, in the thread that waits; in a thread of its own once time is real."""
        if self.is_real:
            return _timer(seconds, ring)
        self._alarm = self._passed + seconds, ring

        def stop() -> None:
            self._alarm = None
            if self._stop_timer is not None:
                self._stop_timer()

        return stop

    def end(self) -> None:
        """The trial is over: the next clock goes on from here, for what outlives trials has seen this time."""
        VirtualClock.furthest = math.ceil(self.now() * 1024) / 1024

    def check(self) -> None:
        """Time is about to jump: it becomes real if that would jump over somebody's work (``others`` says whose)."""
        if self.governs and (reason := self.others()):
            self.become_real(reason)

    def sleep(self, seconds: float) -> None:
        """Let time pass; at once in the thread that the clock governs. Another thread that waits so is part of what is tested."""
        if not self.is_real and not self.is_mine:
            self.become_real(f"the thread {threading.current_thread().name} waits too")
        if seconds:
            self.check()
        if self.governs:
            self.on_sleep()
            self.skip(seconds)
            seconds = 0  # threads that are no part of this get their turn all the same
        sleep(seconds)

    def to_await(self, seconds: float) -> float:
        """Of a delay in a coroutine, the seconds that its event loop has to wait.

        All of them in the governed thread, whose loop jumps. A loop in a thread of its own has somebody waiting for it: time
        passes for who waits, once for what tasks wait for together.
        """
        if self.is_real or self.governs:
            return seconds
        over = (_waited_until.get() or self._passed) + seconds
        _waited_until.set(over)
        self._passed = max(self._passed, over)
        return 0.0

    @contextlib.contextmanager
    def beginning_now(self) -> Iterator[None]:
        """Tasks of another thread's loop that are made in here begin at this time, and so do the tasks that they make."""
        token = _waited_until.set(self._passed)
        try:
            yield
        finally:
            _waited_until.reset(token)

    def become_real(self, reason: str) -> None:
        """From now on time passes by itself; the first reason is kept."""
        if self._real_since is None:
            self.reason = reason
            self._real_since = monotonic()
            if self._alarm is not None:
                (when, ring), self._alarm = self._alarm, None
                self._stop_timer = _timer(max(0.0, when - self._passed), ring)


def _timer(seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
    """Ring after so many real seconds; gives what takes that back."""
    timer = threading.Timer(seconds, ring)
    timer.name, timer.daemon = "mlchaos-alarm", True
    timer.start()

    def stop() -> None:
        timer.cancel()
        if threading.current_thread() is not timer:
            timer.join()

    return stop

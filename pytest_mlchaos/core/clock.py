"""Define the clocks that a trial can use."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

# Imported by name, so that patches of the module's attributes do not reach them.
from time import monotonic, sleep
from typing import Any, ClassVar, Protocol

from ..errors import BadArgument
from .validation import parse_duration

__all__ = ["Clock", "RealClock", "VirtualClock"]

_waited_until: ContextVar[float] = ContextVar("mlchaos_waited_until", default=0.0)
"""In a task of a loop in a different thread: the end of its last delay, in seconds of the clock."""
TICK_SECONDS = 2.0**-20
"""The seconds (about a microsecond) that pass when virtual time is read.

Without them, a loop that polls the clock until a deadline would never end.
"""


class Clock(Protocol):
    """A source of time, with ways to let time pass."""

    @property
    def reason(self) -> str:
        """The reason why a virtual clock has become real. Empty if it has not."""
        ...

    def now(self) -> float:
        """Return the seconds since an arbitrary start."""
        ...

    def peek(self) -> float:
        """Return the same, without any effect on a virtual clock."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let this number of seconds pass."""
        ...

    def to_await(self, seconds: float) -> float:
        """Return the seconds that the event loop must wait for a delay in a coroutine."""
        ...

    def advance(self, duration: float | str) -> None:
        """Let a duration pass at once, such as ``"5m"``."""
        ...

    def become_real(self, reason: str) -> None:
        """Let time pass by itself from now on."""
        ...

    def set_alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Call ``ring()`` once after this many seconds, and return a function that cancels it.

        There is one alarm at a time.
        """
        ...


class RealClock:
    """The clock for ``clock="real"``: injected delays take real time."""

    reason = ""

    def now(self) -> float:
        """Return the seconds of the monotonic clock."""
        return monotonic()

    def peek(self) -> float:
        """Return the seconds of the monotonic clock."""
        return monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for this many real seconds."""
        sleep(seconds)

    def to_await(self, seconds: float) -> float:
        """Return the whole delay."""
        return seconds

    def advance(self, duration: float | str) -> None:
        """Refuse: real time cannot jump."""
        raise BadArgument(
            'clock.advance failed: the clock must be virtual, got clock="real". Remove that setting'
        )

    def become_real(self, reason: str) -> None:
        """Do nothing: it is real already."""

    def set_alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Start a timer in a thread of its own."""
        return _timer(seconds, ring)


class VirtualClock:
    """The clock for ``clock="virtual"``, on which a wait returns at once.

    Time passes only if code waits.

    It governs the thread that made it, and the threads that this one starts (``members``). Others
    run in real time. If one of these takes part in the test, all threads change to real time
    (``become_real``), and the clock continues from its value.
    """

    furthest: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.reason = ""
        self.others: Callable[[], str] = str
        self.on_sleep: Callable[[], None] = lambda: None
        """A function that is called before code in the governed thread lets time pass."""
        self._thread = threading.get_ident()
        self.members: set[int] = set()
        """The other threads that the clock governs."""
        self.sleep_with_others: Callable[[float], None] | None = None
        """A function that lets time pass for one of several threads."""
        self.wait_with_others: Callable[[Any, float | None, Callable[[], bool]], bool] | None = None
        """A function that lets one of several threads wait for a lock: see ``ThreadWaits.wait``."""
        self.takes_turns = False
        """True if only one of several threads runs at a time, so that their order is always the
        same."""
        self.join_in: Callable[[], None] | None = None
        """A function that takes in the calling thread, which is older than the trial."""
        self.on_stuck: Callable[[], None] | None = None
        """A function that is called if no thread can ever go on. It may raise."""
        self._passed = 0.0
        self.wall_shift = 0.0
        """The seconds by which the displayed time of day is shifted."""
        self._real_since: float | None = None
        self._alarm: tuple[float, Callable[[], None]] | None = None
        self._stop_timer: Callable[[], None] | None = None
        # A multiple of 1/1024 has few binary digits, so sums of times round alike in each run.
        # The start is never before a time that an earlier clock has shown.
        self._start = max(math.ceil(monotonic() * 1024) / 1024, VirtualClock.furthest)

    @property
    def is_mine(self) -> bool:
        """Return True in the threads that the clock governs."""
        return self.includes(threading.get_ident())

    def includes(self, ident: int | None) -> bool:
        """Return True if the clock governs the thread with this identifier."""
        return ident == self._thread or ident in self.members

    @property
    def is_real(self) -> bool:
        """Return True if time passes by itself."""
        return self._real_since is not None

    @property
    def governs(self) -> bool:
        """Return True if the time of the calling thread is virtual."""
        if self._real_since is not None:
            return False
        ident = threading.get_ident()
        return ident == self._thread or ident in self.members

    @contextlib.contextmanager
    def taking_turns(self, on_stuck: Callable[[], None]) -> Iterator[None]:
        """Let one of several threads run at a time. Call ``on_stuck()`` if none can go on."""
        before, self.takes_turns, self.on_stuck = (self.takes_turns, self.on_stuck), True, on_stuck
        try:
            yield
        finally:
            self.takes_turns, self.on_stuck = before

    def passed(self) -> float:
        """Return the seconds since the clock was made."""
        if self._real_since is not None:
            return self._passed + (monotonic() - self._real_since)
        self._passed += TICK_SECONDS
        return self._passed

    def now(self) -> float:
        """Return the seconds, as ``time.monotonic`` does."""
        if self._real_since is not None:
            return self._start + self.passed()
        self._passed += TICK_SECONDS  # an event loop reads the time very often
        return self._start + self._passed

    def peek(self) -> float:
        """Return the seconds. No tick passes."""
        return self.now() if self._real_since is not None else self._start + self._passed

    def skip(self, seconds: float) -> None:
        """Let time jump. If an alarm is set for an earlier moment, call it on the way."""
        if self._alarm is not None and self._passed + seconds >= self._alarm[0]:
            (when, ring), self._alarm = self._alarm, None
            before, self._passed = self._passed, max(self._passed, when)
            ring()
            seconds -= self._passed - before
        self._passed += seconds

    def skip_to(self, moment: float) -> None:
        """Let time jump to a moment, in seconds since the clock was made."""
        self.skip(max(0.0, moment - self._passed))

    def advance(self, duration: float | str) -> None:
        """Let a duration pass at once, such as ``"5m"``, as if the calling code waited for it.

        Deadlines of other threads and of tasks in it are met.
        """
        seconds = parse_duration(duration, "clock.advance: duration")
        if not self.governs:
            why = self.reason or "the calling thread is not part of the test"
            raise BadArgument(
                f"clock.advance failed: the clock must be virtual, but time is real, because {why}"
            )
        self.sleep(seconds)

    def set_alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Call ``ring()`` in the waiting thread when virtual time passes that moment.

        If time is real, call it in a thread of its own.
        """
        if self.is_real:
            return _timer(seconds, ring)
        self._alarm = self._passed + seconds, ring

        def stop() -> None:
            self._alarm = None
            if self._stop_timer is not None:
                self._stop_timer()

        return stop

    def end(self) -> None:
        """End the trial: the next clock starts at this time.

        Objects that outlive a trial have seen this time, and time must not run backwards for them.
        """
        VirtualClock.furthest = math.ceil(self.now() * 1024) / 1024

    def check(self) -> None:
        """Make time real if a jump would skip the work of others. Call this before each jump.

        ``others`` returns a description of such work.
        """
        if self.governs and (reason := self.others()):
            self.become_real(reason)

    def sleep(self, seconds: float) -> None:
        """Let time pass, at once in the thread that the clock governs.

        A different thread that waits here takes part in the test, so time becomes real.
        """
        if not self.is_real and not self.is_mine:
            self.become_real(f"the thread {threading.current_thread().name} waits too")
        if seconds and self.governs and self.members and self.sleep_with_others is not None:
            if threading.get_ident() == self._thread:
                self.on_sleep()
            self.sleep_with_others(seconds)
            return
        if seconds:
            self.check()
        if self.governs:
            self.on_sleep()
            self.skip(seconds)
            seconds = 0  # other threads still get their turn to run
        sleep(seconds)

    def to_await(self, seconds: float) -> float:
        """Return the seconds that the event loop must wait for a delay in a coroutine.

        In the governed thread this is the whole delay, because its loop jumps. A loop in a thread
        of its own does not wait. The governed thread waits for its result, so virtual time advances
        there instead. Tasks that wait at the same time advance it only once.
        """
        if self.is_real or self.governs:
            return seconds
        over = (_waited_until.get() or self._passed) + seconds
        _waited_until.set(over)
        self._passed = max(self._passed, over)
        return 0.0

    @contextlib.contextmanager
    def beginning_now(self) -> Iterator[None]:
        """Let tasks that a loop in a different thread makes in here begin at this time.

        The same holds for the tasks that they make.
        """
        token = _waited_until.set(self._passed)
        try:
            yield
        finally:
            _waited_until.reset(token)

    def become_real(self, reason: str) -> None:
        """Let time pass by itself from now on. Keep the first reason."""
        if self._real_since is None:
            self.reason = reason
            self._real_since = monotonic()
            if self._alarm is not None:
                (when, ring), self._alarm = self._alarm, None
                self._stop_timer = _timer(max(0.0, when - self._passed), ring)


def _timer(seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
    """Call ``ring`` after this many real seconds, and return a function that cancels it."""
    timer = threading.Timer(seconds, ring)
    timer.name, timer.daemon = "mlchaos-alarm", True
    timer.start()

    def stop() -> None:
        timer.cancel()
        if threading.current_thread() is not timer:
            timer.join()

    return stop

"""Let the threads of a test wait on one virtual clock.

A thread that the test starts takes part in virtual time. Its waits with a deadline (``sleep``,
``Condition``, ``Event``, ``Queue``, ``Future``, ``join``, an event loop) are noted here. Once every
thread that takes part waits, nothing can happen before the earliest deadline, so time jumps there.
Of equal deadlines, that of the thread that started first comes first.

If a thread is neither in such a wait nor known to be blocked, it works. The others then wait in
real time.

While a service is under load, threads take turns: a thread that starts or is woken waits until all
others wait. The order is that in which threads started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from time import monotonic, sleep  # by name, so that a virtual clock does not reach them
from typing import Any

from ..core.clock import VirtualClock
from .activity import (
    TOOLS,
    is_in_call,
    is_only_a_loop,
    package_of,
    processor_time,
    processor_times,
    unknown_work,
    waking_reason,
    working_thread,
)
from .patching import Patches

__all__ = ["ThreadWaits"]

FIRST_LOOK_SECONDS = 0.0005
"""The first real wait before a waiting thread looks again if all others wait. It doubles."""
LONGEST_LOOK_SECONDS = 0.008
SLEEP_PATIENCE_SECONDS = 0.25
"""How long a thread may work while others sleep, before time becomes real.

Of a thread that computes, only its processor time counts, because a busy machine may stop it for
any time.
"""
WAIT_PATIENCE_SECONDS = 0.5
"""The same while others wait for it. Meanwhile time passes as in reality."""
TURN_PATIENCE_SECONDS = 0.1
"""How long a thread may wait outside virtual time (for a socket) before turns are given up.

It may wait for a thread whose turn has not come.
"""
TURN_WORK_SECONDS = 2.0
"""The processor time for which a thread may work before turns are given up."""
STUCK_LOOKS = 5
"""How often no thread must be able to go on before they count as stuck."""
LONGEST_STUCK_LOOK_SECONDS = 0.05
LEAST_LOOKS = 10
"""How often other work must be found before it counts."""
LONGEST_PATIENCE_SECONDS = 10.0
"""The same in real time, for a thread that the machine does not let run."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """The reason not to jump now.

    Attributes:
        reason: The text for the report.
        thread: The thread that works, if it takes part in the test.
        by_itself: False if the thread has just been woken, which is not work of its own.
    """

    reason: str
    thread: threading.Thread | None = None
    by_itself: bool = True


@dataclasses.dataclass(eq=False)
class _Member:
    """A thread that takes part."""

    order: int
    thread: threading.Thread
    ident: int | None = None
    on_end: list[Any] = dataclasses.field(default_factory=list)
    """The locks to release when it ends."""


@dataclasses.dataclass(eq=False)
class _Wait:
    """A wait of one thread: until it is woken, or until its deadline in seconds of the clock."""

    order: int
    deadline: float | None
    is_woken: Callable[[], bool]
    wake: Callable[[], object]
    sleeps: bool
    is_turn: bool = False
    expired: bool = False


class ThreadWaits:
    """The threads that share a virtual clock, and their waits."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._main = threading.get_ident()
        self._main_thread = threading.current_thread()
        self._lock = threading.RLock()
        self._started = 0
        self._members: dict[threading.Thread, _Member] = {}
        self._waits: dict[int, _Wait] = {}
        self._mark = 0.0  # the real time up to which a thread's work has passed on the clock
        self._jumped = 0.0  # the real time of the last jump
        self._closed = False
        self._closed_at = 0.0  # the real time
        self._tasks: set[int] = set()  # the system's numbers of all threads that took part
        self._ran_before = processor_times()
        # The processor time of each working thread at the last jump.
        self._worked: dict[threading.Thread, int] = {}
        # What the last looks found: the reason, since when, and how often.
        self._found = ("", 0.0, 0)
        self._turns_given_up = False
        self._stuck = 0  # the number of looks that found no thread that can go on

    def install(self, patches: Patches) -> None:
        """Take in threads that the test starts, until the patches are undone."""
        patches.on_undo(self._close)
        self._clock.sleep_with_others, self._clock.wait_with_others = self.sleep, self.wait
        self._clock.join_in = self._join_in
        thread: Any = threading.Thread
        for name, wrap in (
            ("start", self._starting),
            ("_bootstrap_inner", self._running),
            ("join", self._joining),
        ):
            patches.set(
                thread, name, functools.wraps(getattr(thread, name))(wrap(getattr(thread, name)))
            )

    @property
    def others(self) -> bool:
        """Return True if other threads take part, beside the calling one."""
        me = threading.get_ident()
        return me != self._main or bool(self._members)

    def _close(self) -> None:
        """Let waiting threads go on in real time."""
        self._closed, self._closed_at = True, monotonic()
        self._clock.members.clear()

    # -- threads that come and go ------------------------------------------------------------------

    def _starting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def start(thread: threading.Thread) -> Any:
            clock = self._clock
            takes_part = not self._closed and clock.governs and not is_only_a_loop(thread)
            if takes_part and package_of(sys._getframe(1)) not in TOOLS:
                with self._lock:
                    self._started += 1
                    self._members[thread] = _Member(self._started, thread)
            try:
                return original(thread)
            except BaseException:
                self._members.pop(thread, None)
                raise

        return start

    def _running(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def bootstrap(thread: threading.Thread) -> Any:
            member = self._members.get(thread)
            if member is None:
                return original(thread)
            member.ident = threading.get_ident()
            self._tasks.add(threading.get_native_id())
            self._clock.members.add(member.ident)
            if self._takes_turns:
                self._run_in_turn(member)
            try:
                return original(thread)
            finally:
                self._ended(member)

        return bootstrap

    def _run_in_turn(self, member: _Member) -> None:
        """Let a thread wait for its turn before its own code, but after it counts as started."""
        thread: Any = member.thread
        run = thread.run
        own = vars(thread).get("run")

        def run_in_turn() -> None:
            if own is None:
                del thread.run
            else:
                thread.run = own
            self._take_turn(member.order)
            run()

        thread.run = run_in_turn

    def _ended(self, member: _Member) -> None:
        with self._lock:
            self._members.pop(member.thread, None)
            self._clock.members.discard(member.ident or 0)
            waiting, member.on_end = member.on_end, []
            for lock in waiting:
                _release(lock)
        if not waiting:
            self._jump()

    def _joining(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def join(thread: threading.Thread, timeout: float | None = None) -> Any:
            member = self._members.get(thread)
            mine = member is not None and member.ident == threading.get_ident()
            if not self._clock.governs or member is None or mine or (timeout or 0) < 0:
                return original(thread, timeout)
            lock = _taken_lock()
            with self._lock:
                if thread in self._members:
                    member.on_end.append(lock)
                else:
                    _release(lock)
            # An ended thread has no more to do, but the system may still be removing it.
            ended = self.wait(lock, timeout, lambda: lock not in member.on_end)
            return original(thread) if ended else None

        return join

    # -- waits -------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Let this number of seconds pass for the calling thread."""
        self._until(_taken_lock(), seconds, bool, sleeps=True)

    def wait(self, lock: Any, seconds: float | None, is_woken: Callable[[], bool]) -> bool:
        """Wait until the lock is released, and return True. Return False after the seconds.

        ``is_woken`` returns True from the release on until the thread runs again.
        """
        return self._until(lock, seconds, is_woken, sleeps=False)

    def _until(
        self, lock: Any, seconds: float | None, is_woken: Callable[[], bool], *, sleeps: bool
    ) -> bool:
        wait = self._made(seconds, is_woken, lambda: _release(lock), sleeps=sleeps)
        with self._noted(wait):
            woken = self._acquired(lock, wait)
            if woken and not sleeps:
                self._wait_for_turn(wait.order)
            return woken

    def _acquired(self, lock: Any, wait: _Wait) -> bool:
        """Return True if the lock was released, and False if the deadline has passed."""
        for look in self._looks(wait):
            if lock.acquire(True, -1 if look is None else look):
                with self._lock:
                    return not wait.expired
        with self._lock:  # the deadline has passed, if it was not woken at the same moment
            return bool(lock.acquire(False)) and not wait.expired

    def select(self, poll: Callable[[float | None], Any], seconds: float | None, loop: Any) -> Any:
        """Wait until a selector has events, or the seconds are over. Return the events."""
        wake = getattr(loop, "_write_to_self", bool)
        wait = self._made(seconds, lambda: bool(poll(0)), wake, sleeps=False)
        with self._noted(wait):
            for look in self._looks(wait):
                ready = poll(look)
                if ready and not wait.expired and self._takes_turns:
                    self._wait_for_turn(wait.order)
                    return poll(0) or ready
                if ready or wait.expired:
                    return ready
            return poll(0)

    # -- turns -------------------------------------------------------------------------------------

    @property
    def _takes_turns(self) -> bool:
        clock = self._clock
        return clock.takes_turns and clock.governs and not (self._turns_given_up or self._closed)

    def _take_turn(self, order: int) -> None:
        """Wait until all other threads wait. A lower order comes first."""
        if self._takes_turns:
            with self._noted(self._turn(order, _taken_lock())):
                self._wait_for_turn(order)

    def _join_in(self) -> None:
        """Take in a thread of a pool that an earlier trial has started, because it has work now."""
        thread, clock = threading.current_thread(), self._clock
        if not clock.takes_turns or clock.is_real or self._closed:
            return
        with self._lock:
            self._started += 1
            self._members[thread] = member = _Member(self._started, thread, threading.get_ident())
        self._tasks.add(threading.get_native_id())
        clock.members.add(threading.get_ident())
        self._take_turn(member.order)

    def _wait_for_turn(self, order: int) -> None:
        """Replace the wait of the calling thread by one for its turn."""
        if self._takes_turns and self.others:
            lock = _taken_lock()
            # One assignment, so that no thread finds this one without a wait.
            self._waits[threading.get_ident()] = turn = self._turn(order, lock)
            self._acquired(lock, turn)

    def _turn(self, order: int, lock: Any) -> _Wait:
        return _Wait(order, -math.inf, bool, lambda: _release(lock), sleeps=True, is_turn=True)

    def _gives_up_turns(self, work: _Work, since: float) -> bool:
        """Return True if the turn may never come, because some thread waits outside."""
        with self._lock:
            if work.thread is None:  # for example the threads of a library, which may spin
                limit = WAIT_PATIENCE_SECONDS
            else:
                limit = TURN_PATIENCE_SECONDS if is_in_call(work.thread) else TURN_WORK_SECONDS
            too_long = monotonic() - since > LONGEST_PATIENCE_SECONDS
            self._turns_given_up |= self._work_of(work) > limit or too_long
            return self._turns_given_up

    def _look_if_stuck(self) -> None:
        """Report threads that can never go on. Only the main thread can raise an error of it."""
        report = self._clock.on_stuck
        if report is not None and self._stuck >= STUCK_LOOKS:
            self._stuck = 0
            report()

    def report_if_alone(self) -> None:
        """Report the calling thread as stuck if it waits without an end, and nothing can wake it."""
        report = self._clock.on_stuck
        if report is None:
            return
        for _ in range(STUCK_LOOKS):
            if not self.may_jump():
                return
            sleep(FIRST_LOOK_SECONDS)
        report()

    # -- waits, continued --------------------------------------------------------------------------

    def _made(
        self,
        seconds: float | None,
        is_woken: Callable[[], bool],
        wake: Callable[[], object],
        *,
        sleeps: bool,
    ) -> _Wait:
        member = self._members.get(threading.current_thread())
        deadline = None if seconds is None else self._clock.passed() + seconds
        return _Wait(member.order if member else 0, deadline, is_woken, wake, sleeps)

    @contextlib.contextmanager
    def _noted(self, wait: _Wait) -> Iterator[None]:
        me = threading.get_ident()
        outer = self._waits.get(me)  # that of a signal handler's surroundings
        self._waits[me] = wait
        try:
            yield
        finally:
            if outer is None:
                self._waits.pop(me, None)
            else:
                self._waits[me] = outer

    def _looks(self, wait: _Wait) -> Iterator[float | None]:
        """Yield how long to wait for real until the next look. End at the deadline.

        None is a wait without an end: another thread's wait or end wakes this one.
        """
        began, look = monotonic(), FIRST_LOOK_SECONDS
        self._mark = began if len(self._waits) == 1 else self._mark or began
        while True:
            if self._clock.is_real or self._closed:
                if wait.deadline is None:
                    yield None
                    continue
                left = wait.deadline - self._clock.passed()
                if not self._clock.is_real:  # the trial is over, and its clock stands still
                    left -= monotonic() - self._closed_at
                if left <= 0:
                    return
                yield left
                continue
            work = self._jump()
            if wait.expired:
                yield 0  # it takes what woke it
                return
            if wait.deadline is None:
                if self._clock.on_stuck is None or threading.get_ident() != self._main:
                    yield None
                    continue
                self._look_if_stuck()
                yield look
                look = min(2 * look, LONGEST_STUCK_LOOK_SECONDS)
                continue
            if wait.is_turn:
                if self._turns_given_up or (
                    work is not None and self._gives_up_turns(work, max(began, self._jumped))
                ):
                    return
            elif work is not None and self._passes_for_real(wait, work, max(began, self._jumped)):
                return
            yield look
            look = min(2 * look, LONGEST_LOOK_SECONDS)

    def _passes_for_real(self, wait: _Wait, work: _Work, since: float) -> bool:
        """Let real time pass on the clock while a thread works. Return True at the deadline."""
        with self._lock:
            now = monotonic()
            patience = SLEEP_PATIENCE_SECONDS if wait.sleeps else WAIT_PATIENCE_SECONDS
            if work.thread is None:
                patience = WAIT_PATIENCE_SECONDS
            worked = self._work_of(work)
            if worked > patience or now - since > LONGEST_PATIENCE_SECONDS:
                self._clock.become_real(work.reason)
                return False
            if wait.sleeps or self._takes_turns:
                return False
            self._clock.skip(max(0.0, now - self._mark))
            self._mark = now
            return wait.deadline is not None and self._clock.passed() >= wait.deadline

    def _work_of(self, work: _Work) -> float:
        """Return the seconds that a thread has worked since the last jump.

        Time that is not processor time counts while each look finds it, because a busy machine shows
        a thread in the middle of a short call for any time.
        """
        now = monotonic()
        ran = processor_time(work.thread) if work.thread is not None else None
        in_call = ran is None or (work.thread is not None and is_in_call(work.thread))
        if not in_call or not work.by_itself:
            self._found = ("", now, 0)
            if work.thread is None or ran is None or not work.by_itself:
                return 0.0
            return (ran - self._worked.setdefault(work.thread, ran)) / 1e9
        reason, since, looks = self._found
        if reason != work.reason:
            since, looks = now, 0
        self._found = (work.reason, since, looks + 1)
        return now - since if looks >= LEAST_LOOKS else 0.0

    # -- jumps -------------------------------------------------------------------------------------

    def _jump(self) -> _Work | None:
        """Jump to the earliest deadline if all threads wait. Return who works, or None."""
        with self._lock:
            if self._clock.is_real or self._closed:
                return None
            work = self._work()
            if work is not None:
                self._stuck = 0
                return work
            due = min(
                (wait for wait in list(self._waits.values()) if wait.deadline is not None),
                key=lambda wait: (wait.deadline, wait.order),
                default=None,
            )
            if due is None or due.deadline is None:
                self._stuck += threading.get_ident() == self._main
                return None
            self._stuck = 0
            self._clock.skip_to(due.deadline)
            due.expired = True
            due.wake()
            self._mark = self._jumped = monotonic()
            self._worked.clear()
            self._found = ("", 0.0, 0)
            return None

    def _work(self) -> _Work | None:
        """Return the reason not to jump: who works, or may wake a thread from outside."""
        if self._main not in self._waits:
            return _Work("the main thread is busy", self._main_thread)
        others = [one for one in list(self._members.values()) if one.ident not in self._waits]
        working = working_thread([one.thread for one in others])
        if working is not None:
            return _Work(f"the thread {working.name} is busy", working)
        waits = list(self._waits.items())
        for _, wait in waits:
            if wait.expired or wait.is_woken():
                return _Work("a thread does not wake up", self._main_thread, by_itself=False)
        takes_part = {self._main, *(member.ident or 0 for member in list(self._members.values()))}
        if all(wait.sleeps for _, wait in waits):
            reason = waking_reason(takes_part, strict=False)
        else:
            reason = (
                waking_reason(takes_part, strict=True)
                or unknown_work(self._tasks, self._ran_before)
                or _alarm()
            )
        return _Work(reason) if reason else None

    def may_jump(self) -> bool:
        """Return True if nothing can wake the calling thread, because no other takes part."""
        return not (
            waking_reason({self._main}, strict=True)
            or unknown_work(self._tasks, self._ran_before)
            or _alarm()
        )


def _alarm() -> str:
    """Return the reason for real time if the system will raise a signal for the test."""
    try:
        pending = signal.getitimer(signal.ITIMER_REAL)[0]
        handler = signal.getsignal(signal.SIGALRM)
    except (AttributeError, ValueError):
        return ""
    module = str(getattr(handler, "__module__", "")).partition(".")[0]
    return "an alarm of the system is set" if pending and module not in TOOLS else ""


def _taken_lock() -> Any:
    lock = allocate_lock()
    lock.acquire()
    return lock


def _release(lock: Any) -> None:
    with contextlib.suppress(RuntimeError):  # a notification was faster
        lock.release()

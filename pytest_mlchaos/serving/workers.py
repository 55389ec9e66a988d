"""Serve calls by a number of workers, in the order of their arrival."""

from __future__ import annotations

import collections
import random
import threading
from collections.abc import Callable
from typing import Any

from ..core.clock import Clock, VirtualClock
from ..errors import NeverAnswered

__all__ = ["Ticket", "Workers", "wait_in_thread"]


class Ticket:
    """One call: in the queue until ``started``, then with a worker until it ends."""

    __slots__ = ("arrival", "gone", "holder", "service", "started", "wake", "workers")

    def __init__(
        self, workers: Workers, arrival: float, service: float, wake: Callable[[Ticket], None]
    ) -> None:
        self.workers = workers
        self.arrival = arrival
        self.service = service
        self.wake = wake
        self.started: float | None = None
        self.gone = False
        self.holder: object = None

    @property
    def waits(self) -> bool:
        """Return True while the call has no worker."""
        return self.started is None

    def hold(self, holder: object) -> None:
        """Note the task or thread that holds the worker."""
        self.holder = holder
        self.workers.holders.add(holder)

    def end(self) -> None:
        """Free the worker for the next call, or leave the queue."""
        self.workers.end(self)


class Workers:
    """The workers of one run, and their queue.

    Attributes:
        rng: The random numbers of the service times.
        holders: The tasks and threads that hold a worker.
        calls: The number of calls so far.
        waits: The seconds that each served call has waited.
        max_queue: The largest number of calls that waited at a time.
        refused: The number of calls that found the queue full.
        left: The number of calls that left the queue.
    """

    def __init__(self, workers: int, queue: int | None, rng: random.Random, clock: Clock) -> None:
        self._count = self._free = workers
        self._limit = queue
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._queued = 0
        self._busy = 0.0
        self._first: float | None = None
        self._last = 0.0
        self._running: dict[Ticket, None] = {}
        self.rng = rng
        self.holders: set[object] = set()
        self.calls = self.max_queue = self.refused = self.left = 0
        self.waits: list[float] = []

    def __repr__(self) -> str:
        return f"{self.calls} calls, at most {self.max_queue} waiting, {self.utilisation:.0%} busy"

    @property
    def is_full(self) -> bool:
        """Return True if a further call would be refused."""
        return not self._free and self._limit is not None and self._queued >= self._limit

    def refuse(self) -> None:
        """Count a call that found the queue full."""
        with self._lock:
            self.calls += 1
            self.refused += 1

    def enter(self, service: float, wake: Callable[[Ticket], None]) -> Ticket | None:
        """Take a free worker, or else a place in the queue. Return None if it is full.

        Args:
            service: The service time in seconds.
            wake: A function that is called when a waiting call gets a worker.
        """
        ticket = Ticket(self, self._clock.now(), service, wake)
        with self._lock:
            self.calls += 1
            if self._first is None:
                self._first = ticket.arrival
            if self._free:
                self._free -= 1
                self._start(ticket, ticket.arrival)
            elif self._limit is not None and self._queued >= self._limit:
                self.refused += 1
                return None
            else:
                self._waiting.append(ticket)
                self._queued += 1
                self.max_queue = max(self.max_queue, self._queued)
        return ticket

    def _start(self, ticket: Ticket, now: float) -> None:
        ticket.started = now
        self._running[ticket] = None
        self.waits.append(now - ticket.arrival)

    def end(self, ticket: Ticket) -> None:
        """End a call, and give its worker to the next one in the queue. A second end does nothing."""
        now, woken = self._clock.now(), None
        with self._lock:
            if ticket.gone:
                return
            ticket.gone = True
            if ticket.started is None:
                self._queued -= 1
                self.left += 1
                return
            self._running.pop(ticket)
            self.holders.discard(ticket.holder)
            self._busy += now - ticket.started
            self._last = now
            woken = self._next()
            if woken is None:
                self._free += 1
            else:
                self._queued -= 1
                self._start(woken, now)
        if woken is not None:
            woken.wake(woken)

    def _next(self) -> Ticket | None:
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.gone:
                return ticket
        return None

    @property
    def utilisation(self) -> float:
        """Return the share of the workers' time in use so far."""
        if self._first is None:
            return 0.0
        with self._lock:
            running = [ticket.started or 0.0 for ticket in self._running]
            now = self._clock.now() if running else self._last
            busy = self._busy + sum(now - started for started in running)
            passed = now - self._first
        return busy / (self._count * passed) if passed > 0 else 0.0


def wait_in_thread(clock: Clock, lock: Any, ticket: Ticket, target: str) -> None:
    """Block the calling thread until the lock is released, because a worker is free.

    Raise ``NeverAnswered`` if no other thread could free one.
    """
    if not isinstance(clock, VirtualClock) or not clock.governs:
        lock.acquire()
    elif clock.members and clock.wait_with_others is not None:
        clock.wait_with_others(lock, None, lambda: not ticket.waits)
    else:
        raise NeverAnswered(
            f"a blocking call of {target} waits for a worker, and its own thread holds all of them: "
            f"a coroutine or a generator that cannot go on meanwhile. Give more workers, or call it "
            f"in a thread (asyncio.to_thread)"
        )

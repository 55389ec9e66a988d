"""Detect an app that never answers: nothing can wake it, or it polls forever on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from time import sleep  # the real one
from typing import Any

from ..core.clock import Clock, VirtualClock
from ..engine.activity import may_bring_something, threads_in_user_code
from ..engine.attribution import latest_end
from ..engine.controller import Controller
from ..engine.thread_pools import abandon, have_work

__all__ = ["STUCK", "Patience", "describe_threads", "in_turns"]

STUCK_SECONDS = 600.0
"""Virtual seconds without a finished request, a strike or a delay after which an app is stuck."""
MIN_POLLING_WAITS = 10_000
"""The number of waits in that time that make a polling loop. A few long waits do not."""
STUCK = "nothing is scheduled, and all of its threads wait for each other"
STUCK_LOOKS = 5
"""The number of checks before an app counts as stuck. A thread may be about to wake it."""
LOOK_INTERVAL_SECONDS = 0.002
"""Real seconds between two checks whether anything can wake the app."""


@contextlib.contextmanager
def in_turns(clock: Clock, on_stuck: Callable[[], None]) -> Iterator[None]:
    """Let one of the app's threads run at a time, on a virtual clock.

    ``on_stuck()`` is called if none can go on, and must raise.
    """
    if not isinstance(clock, VirtualClock):
        yield
        return
    with clock.taking_turns(on_stuck):
        yield


def describe_threads(requests: Mapping[int, str]) -> list[str]:
    """Return the lines in which threads are stuck. The process may end without these threads.

    Args:
        requests: The requests in flight, by the identifiers of their threads.
    """
    stuck = threads_in_user_code()
    if threading.main_thread().ident not in requests:
        stuck.pop(threading.main_thread(), None)
    abandon(thread for thread in stuck if thread is not threading.main_thread())
    return [
        f"{requests.get(thread.ident or 0) or f'the thread {thread.name}'} waits in {line}"
        for thread, line in stuck.items()
    ]


class Patience:
    """Watch how an app waits while it handles a load. ``give_up(reason)`` must raise."""

    def __init__(self, controller: Controller, give_up: Callable[[str], None]) -> None:
        self._controller = controller
        self._give_up = give_up
        self._strikes = self._waits = 0
        self._since = math.nan
        self.on_wait: Callable[[], None] = lambda: None

    def progress(self) -> None:
        """Note that a request has begun or ended."""
        self._since = math.nan

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check each time before the loop waits."""
        inner: Any = loop
        # All waits of asyncio's loops go through this method.
        run_once = getattr(loop, "_run_once", None)
        if run_once is None or not hasattr(getattr(loop, "_selector", None), "get_map"):
            return

        def watched() -> None:
            if not inner._ready and not inner._stopping:
                self.on_wait()
                if any(not handle.cancelled() for handle in inner._scheduled):
                    self.waits()
                elif len(inner._selector.get_map()) <= 1 and self._is_stuck(inner):
                    self._give_up(
                        "nothing is scheduled, and no thread, child process or socket could wake it"
                    )
            run_once()

        inner._run_once = watched

    def _is_stuck(self, loop: Any) -> bool:
        """Return True if nothing wakes the loop, now and a moment later. A thread may be about to
        do so.
        """
        for _ in range(STUCK_LOOKS):
            if loop._ready or have_work() or may_bring_something() or loop._ready:
                return False
            sleep(LOOK_INTERVAL_SECONDS)
        return True

    def waits(self) -> None:
        """Note that the app is about to wait for some time."""
        now = self._controller.clock.now()
        strikes = len(self._controller.journal)
        if not (now - self._since >= 0) or strikes != self._strikes:
            self._since, self._strikes, self._waits = now, strikes, 0
        self._waits += 1
        if self._waits > MIN_POLLING_WAITS and now - max(self._since, latest_end()) > STUCK_SECONDS:
            self._give_up(
                f"it has waited {self._waits} times in {now - self._since:.0f} s of virtual time, "
                f"without any progress"
            )

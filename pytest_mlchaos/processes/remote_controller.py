"""Run a trial in a different process, which reports its events to the runner's controller."""

from __future__ import annotations

import functools
import math
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ..core.clock import RealClock
from ..core.points import Points
from ..core.records import Preemption
from ..core.sites import Key
from ..engine.controller import Controller
from ..engine.counters import VisitCounter
from ..engine.patching import Patches
from ..errors import SimulatedCrash
from .child import STACK_SIGNAL, pack_error
from .shared_numbers import PLACES, SharedNumbers

__all__ = ["ReportingClock", "ReportingController", "tell_before_exit"]

Tell = Callable[..., object]
"""A function that sends a message. The message has left this process when it returns."""


REPORTED_DELAY_SECONDS = 0.5
"""Shorter delays matter for no verdict."""


class ReportingClock(RealClock):
    """The real clock of a fresh process. It reports waits of faults to the runner.

    An endless one is a hang. While a process waits, it is not to blame for what it does not do.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def sleep(self, seconds: float) -> None:
        """Wait, and report a long wait."""
        if math.isinf(seconds):
            self._tell("hangs", self.now())
            while True:
                super().sleep(3600)
        if seconds >= REPORTED_DELAY_SECONDS:
            self._tell("delays", self.now() + seconds)
        super().sleep(seconds)

    def freeze(self) -> None:
        """Stop all threads of this process, and report that as a hang."""
        self._tell("hangs", self.now())
        os.kill(os.getpid(), STACK_SIGNAL)  # a stopped process writes no stacks later
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)


class ReportingController(Controller):
    """A controller that reports visits and strikes before they take effect.

    A process reports even its own death.
    """

    def __init__(
        self,
        tell: Tell,
        attributes: Mapping[str, Any],
        *args: Any,
        shared: SharedNumbers | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*args, **keywords)
        # Here the numbers of visits are written, or else each of them is sent.
        self._numbers = None if shared is None else shared.numbers
        self._places: dict[Key, int] = {}
        self.attributes = attributes
        self.own_rank.is_allowed = "rank" not in attributes
        self._send: Tell = tell
        self.points = Points(functools.partial(tell, "point"))

    def _opened(self, key: Key, counter: VisitCounter) -> None:
        if not counter.scheduled and key != "train.step":
            return
        count, place = counter.counting(), self._place_of(key)
        is_first = True

        def advance() -> int:
            nonlocal is_first
            number = count()
            if self._numbers is None or place is None:
                self._send("visit", key, number)
                return number
            self._numbers[place] = number
            if is_first:  # the receiver notes its time
                is_first = False
                self._send("visit", key, number)
            return number

        counter.advance = advance

    def _place_of(self, key: Key) -> int | None:
        """Return the place of a key in the shared numbers, if there is one."""
        if self._numbers is None or len(self._places) == PLACES:
            return None
        if key not in self._places:
            self._places[key] = len(self._places)
            self._send("counted", key, self._places[key])
        return self._places[key]

    def born(self) -> bool:
        """Continue in a forked child, which has its own way to report."""
        self._numbers = None
        return super().born()

    def die(self, crash: SimulatedCrash) -> None:
        """End the process at a moment that is not a visit."""
        self._striking = None
        # The operation that a signal handler interrupted does not happen.
        if self.signalled is not None:
            self._send("failed", self.signalled)
        super().die(crash)

    def preemption_over(self, told: Preemption) -> None:
        """Report the effects of SIGTERM before SIGKILL arrives."""
        self._send("preempted", told)

    def inject(self, error: BaseException) -> None:
        """Record an exception as injected. A crash also ends the process."""
        if self.forks is None or not self.forks.name:
            self.hear()
            if self._striking is not None:
                self._send("failed", self._striking.fault.key)
            if not isinstance(error, Exception):
                self._send("crash", str(error))
        super().inject(error)

    def _relay(self, kind: str, *content: object) -> None:
        if kind != "injected":  # the receiver compares errors itself
            self._send(kind, *content)

    def report(self) -> None:
        """Report everything that has not been reported yet."""
        self.hear()
        failed = {key: counter.failed for key, counter in self._counters.items() if counter.failed}
        self._send(
            "passed",
            self.passed(),
            {
                scheduled.index: scheduled.measures
                for scheduled in self.scheduled
                if scheduled.measures
            },
            failed,
            self.names,
        )
        if self.broken is not None:
            self._send("broken", *pack_error(self.broken))


def tell_before_exit(controller: ReportingController, patches: Patches) -> None:
    """Report before ``os._exit``, which some training scripts call."""
    original, process = os._exit, os.getpid()

    @functools.wraps(original)
    def leave(status: int) -> NoReturn:
        if os.getpid() == process:
            controller.report()
        original(status)

    patches.set(os, "_exit", leave)

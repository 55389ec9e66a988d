"""A trial that goes on in another process: what that tells, as it happens, and how the runner's controller takes it over."""

from __future__ import annotations

import functools
import math
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ..core.clock import RealClock
from ..core.journal import Strike
from ..core.runs import Gradients, Preemption
from ..core.sites import SITES, Key
from ..errors import FaultError, MlchaosError, SimulatedCrash
from .controller import Controller
from .lanes import Lane, Tally
from .patching import Patches
from .processes.child import shipped_error

__all__ = ["Heard", "TellingClock", "TellingController", "absorb", "site_modules", "tell_before_exit"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

Tell = Callable[..., object]
"""Sends a message; it has left this process when this returns."""


class TellingClock(RealClock):
    """The real clock; to wait for ever is to hang, and the runner is told."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def sleep(self, seconds: float) -> None:
        """Wait."""
        if math.isinf(seconds):
            self._tell("hangs", self.now())
            while True:
                super().sleep(3600)
        super().sleep(seconds)


class TellingController(Controller):
    """Tells the runner of visits and strikes before they take effect: a process that dies has told of its death."""

    def __init__(self, tell: Tell, attributes: Mapping[str, Any], *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.attributes = attributes
        self._send: Tell = tell

    def _opened(self, key: Key, lane: Lane) -> None:
        if not lane.plans and key != "train.step":
            return
        count = lane.counting()

        def advance() -> int:
            number = count()
            self._send("visit", key, number)
            return number

        lane.advance = advance

    def die(self, crash: SimulatedCrash) -> None:
        """The process is killed at no visit."""
        self._striking = None
        if self.signalled is not None:  # an operation that waits for a signal's handler does not happen
            self._send("failed", self.signalled)
        super().die(crash)

    def preemption_over(self, told: Preemption) -> None:
        """What became of SIGTERM, before SIGKILL comes."""
        self._send("preempted", told)

    def inject(self, error: BaseException) -> None:
        """Remember that an exception is a fault's doing; a crash ends the process."""
        if self.forks is None or not self.forks.name:
            self.hear()
            if self._striking is not None:
                self._send("failed", self._striking.fault.key)
            if not isinstance(error, Exception):
                self._send("crash", str(error))
        super().inject(error)

    def _relay(self, kind: str, *content: Any) -> None:
        if kind != "injected":  # errors are compared where they arrive
            self._send(kind, *content)

    def report(self) -> None:
        """What the runner has not been told yet."""
        self.hear()
        failed = {key: lane.failed for key, lane in self._lanes.items() if lane.failed}
        self._send("passed", self.passed(), {plan.place: plan.measures for plan in self.plans if plan.measures}, failed, self.names)
        if self.broken is not None:
            self._send("broken", *shipped_error(self.broken))


def tell_before_exit(controller: TellingController, patches: Patches) -> None:
    """Some training scripts end with ``os._exit``."""
    original, process = os._exit, os.getpid()

    @functools.wraps(original)
    def leave(status: int) -> NoReturn:
        if os.getpid() == process:
            controller.report()
        original(status)

    patches.set(os, "_exit", leave)


def site_modules() -> list[str]:
    """What such a process has to import: where sites are armed, and what registers itself with them (the ways to reach a file)."""
    ours = f"{__name__.partition('.')[0]}.sites."
    return sorted({site.arm.__module__ for site in SITES.values()} | {name for name in sys.modules if name.startswith(ours)})


class Heard:
    """What a process has told so far. ``crash``: the words of the crash that ended it."""

    def __init__(self) -> None:
        self.strikes: list[tuple[int, Strike]] = []
        self.eligible: dict[int, list[int]] = {}
        self.measures: dict[int, dict[str, int]] = {}
        self.passed: dict[Key, int] = {}
        self.failures: dict[Key, int] = {}
        self.names: dict[str, dict[str, None]] = {}
        self.broken: MlchaosError | None = None
        self.injected: list[tuple[str, str]] = []
        self.preempted: Preemption | None = None
        self.gradients: Sequence[Gradients] = ()
        self.crash: str | None = None
        self.unusable: str | None = None
        self.halted: float | None = None

    def take(self, kind: str, *content: Any) -> None:
        """One message."""
        getattr(self, f"_on_{kind}")(*content)

    def _on_visit(self, key: Key, number: int) -> None:
        self.passed[key] = number

    def _on_strike(self, place: int, strike: Strike) -> None:
        self.strikes.append((place, strike))

    def _on_failed(self, key: Key) -> None:
        self.failures[key] = self.failures.get(key, 0) + 1

    def _on_injected(self, kind: str, text: str) -> None:
        self.injected.append((kind, text))

    def _on_crash(self, text: str) -> None:
        self.crash = text

    def _on_eligible(self, place: int, visit: int) -> None:
        self.eligible.setdefault(place, []).append(visit)

    def _on_measured(self, measures: dict[int, dict[str, int]]) -> None:
        for place, sizes in measures.items():
            self.measures.setdefault(place, {}).update(sizes)

    def _on_passed(
        self, passed: dict[Key, int], measures: dict[int, dict[str, int]], failed: dict[Key, int], names: dict[str, dict[str, None]]
    ) -> None:
        self.passed.update(passed)
        self.measures.update(measures)
        self.failures, self.names = failed, names

    def _on_broken(self, text: str, data: bytes | None) -> None:
        error = pickle.loads(data) if data else None
        self.broken = error if isinstance(error, MlchaosError) else FaultError(text)

    def _on_preempted(self, told: Preemption) -> None:
        self.preempted = told

    def _on_gradients(self, gradients: Sequence[Gradients]) -> None:
        self.gradients = gradients

    def _on_unusable(self, text: str) -> None:
        self.unusable = text

    def _on_hangs(self, when: float) -> None:
        self.halted = when

    def tally(self) -> Tally:
        """How far it has come, and what struck in it."""
        struck: dict[int, int] = {}
        for place, _ in self.strikes:
            struck[place] = struck.get(place, 0) + 1
        return Tally(dict(self.passed), struck)


def absorb(controller: Controller, heard: Heard, rank: int | None = None, *, ended: bool = True) -> None:
    """Take over what happened in a process; visits are counted on by the next one. ``ended``: the process has ended."""
    for place, strike in heard.strikes:
        plan = controller.plans[place]
        plan.total += 1
        plan.strikes.append((rank, strike.visit))
        controller.journal.append(strike if rank is None else strike.of_rank(rank))
    if ended:
        controller.journal.end_process()
    for place, visits in heard.eligible.items():
        controller.plans[place].eligible = sorted({*controller.plans[place].eligible, *visits})
    for place, measures in heard.measures.items():
        for name, size in measures.items():
            known = controller.plans[place].measures
            known[name] = max(size, known.get(name, 0))
    for site, names in heard.names.items():
        controller.names.setdefault(site, {}).update(names)
    if heard.broken is not None:
        controller.broken = controller.broken or heard.broken

"""Hand the result of one of the fixture's methods to the test, with what struck in it."""

from __future__ import annotations

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import perf_counter
from typing import TypeVar

from ..core.clock import VirtualClock
from ..core.results import HandedResult, Result, record_result
from ..core.sites import Key
from ..engine.controller import Controller

__all__ = ["Part"]

R = TypeVar("R", bound=Result)


class Part:
    """Record what strikes while a method of the fixture runs a subject.

    If ``outer`` is given, the subject of that method makes the call. No fault strikes there, and
    the outer method's result is judged instead of this one.
    """

    def __init__(
        self,
        controller: Controller,
        what: str,
        *,
        each: bool = False,
        looked: bool = False,
        outer: str = "",
    ) -> None:
        self._controller = controller
        self._outer = outer
        self._strikes, self._visits = len(controller.journal), self._visited()
        self._start = perf_counter()
        self._calls = controller.calls()
        self._what, self._each, self._looked = what, each, looked

    def hand_over(self, result: R) -> R:
        """Return a result to the test, which must judge it."""
        controller, struck = self._controller, len(self._controller.journal) - self._strikes
        handed = HandedResult(
            self._what,
            self._each,
            quiet=controller.idle,
            decides=controller.decides and (bool(controller.journal) or not controller.scheduled),
            struck=struck > 0,
            looked=self._looked,
            passed=any(count > self._visits[key] for key, count in self._visited().items()),
            number=len(controller.results),
        )
        calls = controller.calls()
        made = {target: number - self._calls.get(target, 0) for target, number in calls.items()}
        handed.calls_elsewhere, self._calls = lambda: controller.counted, calls
        if result._calls_made is None:
            result._calls_made = made
        if not self._outer:
            is_virtual = isinstance(controller.clock, VirtualClock) and not controller.clock.reason
            record_result(result, handed, struck, self._start, is_virtual=is_virtual)
        result._handed = handed
        if self._outer:
            result._handed.quiet = f"no fault strikes inside the subject of {self._outer}"
            result._handed.cure = "Call assert_finished() or assert_in_sync() there, or return what the ranks returned"
        else:
            controller.results.append(result._handed)
        return result

    def _visited(self) -> dict[Key, int]:
        """Return how many times the sites of the declared faults were visited, in all processes."""
        controller = self._controller
        processes = [
            controller.passed(),
            *(tally.passed for tally in controller.elsewhere.values()),
        ]
        return {
            scheduled.fault.key: sum(passed.get(scheduled.fault.key, 0) for passed in processes)
            for scheduled in controller.scheduled
        }

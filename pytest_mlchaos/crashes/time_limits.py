"""How long resumed runs may take: the first that hangs takes its whole time, later ones that hang in the same place do not."""

from __future__ import annotations

import re

from .model import RunResult, Tree
from .runners import OnStep, Runner

__all__ = ["TimeLimits"]

MIN_TIMEOUT_SECONDS = 1.0
"""Seconds that a run may take at least."""
LONGEST_RUN_FACTOR = 5
"""How many times as long as the longest run that ended it may take."""


class TimeLimits:
    """The time limit of one runner's runs. ``full``: seconds; ``longest``: the longest run that came to its end so far."""

    def __init__(self, full: float, longest: float) -> None:
        self._full = full
        self._longest = longest
        self._places: set[str] = set()

    @property
    def short(self) -> float:
        """Seconds for a run that is expected to hang."""
        return min(self._full, max(MIN_TIMEOUT_SECONDS, LONGEST_RUN_FACTOR * self._longest))

    def resume(self, runner: Runner, tree: Tree, number: int, on_step: OnStep | None) -> RunResult:
        """Make a run from that content. One that is cut short elsewhere than earlier ones hung is made again, in full."""
        if self._places:
            runner.limit(self.short)
            try:
                ran = runner.resume(tree, number, on_step)
            finally:
                runner.limit(self._full)
            if ran.hung is None or _place(ran.hung) in self._places:
                ran.cut = None if ran.hung is None else self.short
                return self._seen(ran)
        return self._seen(runner.resume(tree, number, on_step))

    def _seen(self, ran: RunResult) -> RunResult:
        if ran.hung is None:
            self._longest = max(self._longest, ran.duration)
        else:
            self._places.add(_place(ran.hung))
        return ran


def _place(hung: str) -> str:
    """The place without its line: a loop that waits stands in one line or another."""
    return re.sub(r"\d+", "", hung)

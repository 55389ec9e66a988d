"""Limit the duration of resumed runs.

The first run that hangs gets the full time, later ones in the same place do not.
"""

from __future__ import annotations

import re

from .model import RunResult, Tree
from .run import OnStep
from .runners import Runner

__all__ = ["TimeLimits"]

MIN_TIMEOUT_SECONDS = 1.0
"""The shortest time limit for a run that is expected to hang."""
LONGEST_RUN_FACTOR = 5
"""A run that is expected to hang may take this many times as long as the longest run that ended."""


class TimeLimits:
    """The time limits of one runner.

    ``full`` is the limit in seconds. ``longest`` is the duration of the longest run that ended so
    far.
    """

    def __init__(self, full: float, longest: float) -> None:
        self._full = full
        self._longest = longest
        self._places: set[str] = set()

    @property
    def short(self) -> float:
        """Return the seconds for a run that is expected to hang."""
        return min(self._full, max(MIN_TIMEOUT_SECONDS, LONGEST_RUN_FACTOR * self._longest))

    def resume(self, runner: Runner, tree: Tree, number: int, on_step: OnStep | None) -> RunResult:
        """Make a run from that content.

        A run that is cut short in a new place is made again with the full limit.

        Args:
            runner: Makes the run.
            tree: The content to start from.
            number: The number of the run.
            on_step: Called after each step.
        """
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
    """Return the place without line numbers, because a waiting loop may be at any of its lines."""
    return re.sub(r"\d+", "", hung)

"""The test that explores: its name, its budget and its reports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from ..core.shards import Shard
from .report import CrashReport

__all__ = ["TestInfo", "either_over"]


@dataclasses.dataclass(frozen=True)
class TestInfo:
    """The test that explores.

    Attributes:
        test: The test's id, as it is typed on the command line.
        keep: The folder for copies of the states that a report names.
        bundle: The path for a copy of the state that the reproduction line names.
        folder: The test's folder.
        limit: Returns the limit of its explorations in words, or an empty text for the setting
            ``budget``.
        began: The start of the test's first exploration, in a list. All explorations of a test
            share the budget.
        explored: The reports of its explorations. That of an interrupted one is partial.
        shard: The shard whose part of the states it tries, or None for all states.
    """

    test: str = ""
    keep: Path | None = None
    bundle: Path | None = None
    folder: Path | None = None
    limit: Callable[[], str] = str
    began: list[float] = dataclasses.field(default_factory=list)
    explored: list[CrashReport] = dataclasses.field(default_factory=list)
    shard: Shard | None = None

    def is_over(self, budget: float | None) -> Callable[[], bool]:
        """Return a function that returns True after ``budget`` seconds of this test's explorations."""
        if not self.began:
            self.began.append(perf_counter())
        end = math.inf if budget is None else self.began[0] + budget
        return lambda: perf_counter() > end


def either_over(
    of_the_test: Callable[[], bool], start: float, budget: float | None
) -> Callable[[], bool]:
    """Return a function that returns True once one of the two budgets is used up."""
    if budget is None:
        return of_the_test
    return lambda: of_the_test() or perf_counter() > start + budget

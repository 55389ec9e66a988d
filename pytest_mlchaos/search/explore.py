"""Exploration: Hypothesis proposes schedules and shrinks the failing ones; trials are run outside of it, once each."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..core.schedule import Schedule
from ..core.settings import Settings
from ..engine.patching import Patches
from .minimise import minimise
from .space import Space

__all__ = ["Cause", "Failure", "SearchResult", "explore"]

PROPOSALS_PER_TRIAL = 4
"""Hypothesis may propose a schedule again; only distinct ones count as trials, so it is asked for more."""
MAX_SHRINKING_TRIALS = 200
"""Trials for shrinking beside ``max_trials``, at most."""


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why a trial failed, in so far as two failures are the same: the exception's type and the place in the user's code.

    ``gravity``: 0 is the worst, and is reported first.
    """

    kind: str
    place: str
    summary: str = dataclasses.field(compare=False)
    gravity: int = dataclasses.field(default=2, compare=False)


@dataclasses.dataclass
class Failure:
    """The trials that failed for one cause."""

    cause: Cause
    count: int
    smallest: Schedule

    @property
    def summary(self) -> str:
        """The cause in a line."""
        return self.cause.summary


@dataclasses.dataclass
class SearchResult:
    """What came of it: trials run, and the failures, the worst kind first; of one kind, the smallest schedule first."""

    trials: int
    failures: list[Failure]
    out_of_budget: bool
    untried: list[str] = dataclasses.field(default_factory=list)
    """Where no fault was tried because the trials, or the time, were used up."""


class _SearchOver(BaseException):
    """Ends Hypothesis' search: the trials, or the time, are used up."""


class _TrialFailed(Exception):
    """Raised for Hypothesis, which tells failures apart by their type: one subclass a cause."""


class _Memory:
    """Runs each distinct schedule once, and keeps what came out."""

    def __init__(self, trial: Callable[[Schedule], Cause | None], settings: Settings) -> None:
        self._trial = trial
        self._results: dict[str, Cause | None] = {}
        self.tried: list[Schedule] = []
        self.ended_early = False
        self._budget = settings.budget
        self._deadline: float | None = None
        self._limit = settings.max_trials
        self.failures: dict[Cause, Failure] = {}
        self.out_of_budget = False

    def __call__(self, schedule: Schedule) -> Cause | None:
        key = schedule.line
        if key not in self._results:
            if self._exhausted():
                self.ended_early = True
                raise _SearchOver
            self.tried.append(schedule)
            self._results[key] = self._note(schedule, self._trial(schedule))
        return self._results[key]

    @property
    def trials(self) -> int:
        return len(self._results)

    def _exhausted(self) -> bool:
        if self._budget is not None and self._deadline is None:
            self._deadline = time.monotonic() + self._budget
        late = self._deadline is not None and time.monotonic() > self._deadline
        self.out_of_budget = self.out_of_budget or late
        return late or len(self._results) >= self._limit + (MAX_SHRINKING_TRIALS if self.failures else 0)

    def _note(self, schedule: Schedule, cause: Cause | None) -> Cause | None:
        if cause is not None:
            known = self.failures.setdefault(cause, Failure(cause, 0, schedule))
            known.count += 1
            if schedule.weight < known.smallest.weight:
                known.smallest = schedule
        return cause


def explore(space: Space, trial: Callable[[Schedule], Cause | None], settings: Settings, name: str) -> SearchResult:
    """Try schedules of ``space``; ``trial`` runs one and says why it failed, or None.

    What ``trial`` raises ends the exploration. ``name`` identifies the test in Hypothesis' example database.
    """
    memory = _Memory(trial, settings)
    with contextlib.suppress(_SearchOver):
        _sweep(space, memory, settings)
        if not memory.failures:
            _search(space, memory, settings, name)
    with contextlib.suppress(_SearchOver):
        for cause, failure in list(memory.failures.items()):
            failure.smallest = minimise(failure.smallest, space, functools.partial(_fails, memory, cause))
    failures = sorted(memory.failures.values(), key=lambda failure: (failure.cause.gravity, failure.smallest.weight))
    return SearchResult(memory.trials, failures, memory.out_of_budget, space.untried(memory.tried) if memory.ended_early else [])


def _sweep(space: Space, memory: _Memory, settings: Settings) -> None:
    """Cover the visits; after a failure go on for a while, for there may be another cause."""
    kinds = len({probe.fault._origin for probe in space.probes if probe.is_open})
    end: float = math.inf
    for number, schedule in enumerate(space.sweep(settings.max_trials * (6 if kinds == 1 else 4) // 10), 1):
        if memory(schedule) is not None and math.isinf(end):
            end = max(10, 2 * number)
        if number >= end:
            return


def _fails(memory: _Memory, cause: Cause, schedule: Schedule) -> bool:
    return memory(schedule) == cause


@contextlib.contextmanager
def _by_the_seed_alone() -> Iterator[None]:
    """Keep Hypothesis from drawing constants that it finds in the modules that happen to be loaded.

    They make bugs in parsers easier to find, but one seed would try other schedules in a worker, or with one test selected.
    """
    provider: Any = None
    with contextlib.suppress(ImportError):  # older releases have no such part
        provider = importlib.import_module("hypothesis.internal.conjecture.providers").HypothesisProvider
    with Patches() as patches:
        if hasattr(provider, "_maybe_draw_constant"):
            patches.set(provider, "_maybe_draw_constant", lambda *args, **kwargs: None)
        yield


def _search(space: Space, memory: _Memory, settings: Settings, name: str) -> None:
    import hypothesis

    types: dict[Cause, type[_TrialFailed]] = {}

    def check(schedule: Schedule) -> None:
        cause = memory(schedule)
        if cause is not None:
            raise types.setdefault(cause, type("_Failed", (_TrialFailed,), {}))

    check.__name__ = check.__qualname__ = re.sub(r"\W", "_", name)  # the key in the example database
    profile = hypothesis.settings.default or hypothesis.settings()
    options: dict[str, Any] = {"database": None, "derandomize": False} if settings.seed is not None else {}
    configured = hypothesis.settings(
        max_examples=settings.max_trials * PROPOSALS_PER_TRIAL,
        deadline=None,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[phase for phase in profile.phases if phase is not hypothesis.Phase.explain],
        **options,
    )(hypothesis.given(space.strategy())(check))
    if settings.seed is not None:
        configured = hypothesis.seed(settings.seed)(configured)
    try:
        with _by_the_seed_alone():
            configured()
    except* (_TrialFailed, hypothesis.errors.HypothesisException):
        pass  # the failures are in memory; that Hypothesis could not repeat one is for the last, real run to say

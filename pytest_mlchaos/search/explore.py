"""Search for failing schedules.

Hypothesis proposes and shrinks them, and each distinct one runs as one trial.
"""

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

from ..core.progress import report_step
from ..core.schedule import Schedule
from ..core.settings import Settings
from ..core.shards import Shard
from ..engine.patching import Patches
from .minimise import minimise
from .space import Space

__all__ = ["Cause", "Failure", "SearchResult", "explore"]

PROPOSALS_PER_TRIAL = 4
"""The number of proposals for each trial.

Only distinct schedules count as trials, and Hypothesis may propose one again.
"""
MAX_SHRINKING_TRIALS = 200
"""The maximum number of trials for shrinking, in addition to ``max_trials``."""


@dataclasses.dataclass(frozen=True)
class Cause:
    """The cause of a failure.

    Two failures are the same if the exception's type and the line of user code are the same.

    Attributes:
        kind: The type of the exception.
        place: The line of user code.
        summary: One line for the report.
        gravity: 0 for the worst failures, which are reported first.
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
        """Return the cause in one line."""
        return self.cause.summary


@dataclasses.dataclass
class SearchResult:
    """The result of a search.

    Attributes:
        trials: The number of trials.
        failures: The failures, the worst first, then the smallest schedule first.
        out_of_budget: True if the time was over.
    """

    trials: int
    failures: list[Failure]
    out_of_budget: bool
    untried: list[str] = dataclasses.field(default_factory=list)
    """Descriptions of the visits without a strike, because the trials or the time were used up."""
    shrinking: bool = False
    """True if the search had begun to look for smaller schedules."""


class _SearchOver(BaseException):
    """Raised to end Hypothesis's search, because the trials or the time are used up."""


class _TrialFailed(Exception):
    """Raised for Hypothesis, which distinguishes failures by their type.

    Each cause has a subclass.
    """


class _Memory:
    """Run each distinct schedule once, and store the result."""

    def __init__(
        self, trial: Callable[[Schedule], Cause | None], settings: Settings, space: Space, unit: str
    ) -> None:
        self._trial = trial
        self._unit = unit
        self._space = space
        self._results: dict[str, Cause | None] = {}
        self.tried: list[Schedule] = []
        self.ended_early = False
        self.shrinking = False
        self._budget = settings.budget
        self._deadline: float | None = None
        self._limit = settings.max_trials
        self._total = int(min(self._limit, space.size()))
        self.failures: dict[Cause, Failure] = {}
        self.out_of_budget = False
        self.elsewhere: list[Schedule] = []
        """The schedules of the sweep that other shards try."""

    def allow(self, trials: int) -> None:
        """Allow so many trials from now on, before shrinking."""
        self._limit = self.trials + trials

    def __call__(self, schedule: Schedule) -> Cause | None:
        key = schedule.line
        if key not in self._results:
            if self._exhausted():
                self.ended_early = True
                raise _SearchOver
            self.tried.append(schedule)
            self._results[key] = self._note(schedule, self._trial(schedule))
            self._show()
        return self._results[key]

    def _show(self) -> None:
        bad = sum(failure.count for failure in self.failures.values())
        # How many more trials shrinking needs is not known.
        total = self._total if self.trials <= self._total else 0
        report_step(self._unit, self.trials, total, bad, "shrinking" if self.shrinking else "")

    def result(self) -> SearchResult:
        """Return what was found so far."""
        failures = sorted(
            self.failures.values(),
            key=lambda failure: (failure.cause.gravity, failure.smallest.weight),
        )
        tried = [*self.tried, *self.elsewhere]
        untried = self._space.untried(tried) if self.ended_early else []
        return SearchResult(self.trials, failures, self.out_of_budget, untried, self.shrinking)

    @property
    def trials(self) -> int:
        return len(self._results)

    def _exhausted(self) -> bool:
        if self._budget is not None and self._deadline is None:
            self._deadline = time.monotonic() + self._budget
        late = self._deadline is not None and time.monotonic() > self._deadline
        self.out_of_budget = self.out_of_budget or late
        return late or len(self._results) >= self._limit + (
            MAX_SHRINKING_TRIALS if self.failures else 0
        )

    def _note(self, schedule: Schedule, cause: Cause | None) -> Cause | None:
        if cause is not None:
            known = self.failures.setdefault(cause, Failure(cause, 0, schedule))
            known.count += 1
            if schedule.weight < known.smallest.weight:
                known.smallest = schedule
        return cause


def explore(
    space: Space,
    trial: Callable[[Schedule], Cause | None],
    settings: Settings,
    name: str,
    *,
    unit: str = "schedules",
    interrupted: Callable[[SearchResult], None] | None = None,
    shard: Shard | None = None,
) -> SearchResult:
    """Try schedules of ``space``, and shrink those that fail.

    Args:
        space: The schedules.
        trial: A function that runs a schedule, and returns the cause of its failure or None. Its
            exceptions end the search.
        settings: The settings of the test.
        name: The name of the test in Hypothesis's example database.
        unit: The name of a trial in the progress line.
        interrupted: Receives what was found so far if Ctrl-C ends the search.
        shard: Try only the part of this shard: its schedules of the sweep, and with a seed of its
            own its share of the others. All shards shrink what fails in them.

    Returns:
        The number of trials, and the failures.
    """
    memory = _Memory(trial, settings, space, unit)
    try:
        with contextlib.suppress(_SearchOver):
            if shard is None:
                _sweep(space, memory, settings)
            else:
                _sweep_part(space, memory, settings, shard)
            known = memory.trials + len(memory.elsewhere)
            if not memory.failures and known < space.size():
                _search(space, memory, settings, name, shard)
        memory.shrinking = True
        with contextlib.suppress(_SearchOver):
            for cause, failure in list(memory.failures.items()):
                failure.smallest = minimise(
                    failure.smallest, space, functools.partial(_fails, memory, cause)
                )
    except KeyboardInterrupt:
        if interrupted is not None:
            interrupted(memory.result())
        raise
    return memory.result()


def _sweep(space: Space, memory: _Memory, settings: Settings) -> None:
    """Cover the visits.

    Continue for some trials after a failure, because there may be a second cause.
    """
    end: float = math.inf
    limit = _sweep_limit(space, settings)
    if space.covers:
        limit = settings.max_trials + 1  # one more, so that what is left is reported
    for number, schedule in enumerate(space.sweep(limit), 1):
        if memory(schedule) is not None and math.isinf(end):
            end = max(10, 2 * number)
        if number >= end:
            return


def _sweep_part(space: Space, memory: _Memory, settings: Settings, shard: Shard) -> None:
    """Cover the part of the visits that belongs to a shard.

    The limits are those of the whole sweep. What is left of them for random schedules is divided.
    """
    limit = settings.max_trials if space.covers else _sweep_limit(space, settings)
    schedules = list(space.sweep(limit + 1 if space.covers else limit))
    memory.allow(len(schedules))  # the shards' parts differ in size, and none may be cut off
    memory.ended_early = space.covers and len(schedules) > limit
    schedules = schedules[:limit]
    mine = [one for one in schedules if shard.owns(one.line)]
    memory.elsewhere = [one for one in schedules if not shard.owns(one.line)]
    end: float = math.inf
    for number, schedule in enumerate(mine, 1):
        if memory(schedule) is not None and math.isinf(end):
            end = max(10, 2 * number)
        if number >= end:
            break
    rest = max(0, settings.max_trials - len(schedules))
    memory.allow(math.ceil(rest * len(shard.indexes) / shard.count))


def _sweep_limit(space: Space, settings: Settings) -> int:
    kinds = len({probe.fault._origin for probe in space.probes if probe.is_open})
    return settings.max_trials * (6 if kinds == 1 else 4) // 10


def _fails(memory: _Memory, cause: Cause, schedule: Schedule) -> bool:
    return memory(schedule) == cause


def _seed_of(shard: Shard, settings: Settings, name: str) -> int | None:
    """Return the seed of a shard's search. None if Hypothesis draws each shard's at random."""
    import hypothesis
    from hypothesis import core

    # ``--hypothesis-seed`` and derandomized profiles would give all shards the same schedules.
    forced = getattr(core, "global_force_seed", None)
    profile = hypothesis.settings.default
    if settings.seed is None and forced is None and not (profile and profile.derandomize):
        return None
    return shard.seed_for(settings.seed, forced, name)


@contextlib.contextmanager
def _notes_shrinking(memory: _Memory) -> Iterator[None]:
    """Note in ``memory`` when Hypothesis shrinks. It has no public way to ask for its phase."""
    shrinker: Any = None
    with contextlib.suppress(ImportError):
        shrinker = importlib.import_module("hypothesis.internal.conjecture.shrinker").Shrinker
    original: Any = getattr(shrinker, "shrink", None)

    def shrink(self: Any) -> Any:
        memory.shrinking = True
        return original(self)

    with Patches() as patches:
        if original is not None:
            patches.set(shrinker, "shrink", shrink)
        yield


@contextlib.contextmanager
def _by_the_seed_alone() -> Iterator[None]:
    """Keep Hypothesis from drawing constants that it finds in the imported modules.

    They help to find bugs in parsers. But with them, the same seed would try different schedules in
    an xdist worker, or with one test selected.
    """
    provider: Any = None
    with contextlib.suppress(ImportError):  # older releases do not have it
        provider = importlib.import_module(
            "hypothesis.internal.conjecture.providers"
        ).HypothesisProvider
    with Patches() as patches:
        if hasattr(provider, "_maybe_draw_constant"):
            patches.set(provider, "_maybe_draw_constant", lambda *args, **kwargs: None)
        yield


def _search(
    space: Space, memory: _Memory, settings: Settings, name: str, shard: Shard | None
) -> None:
    import hypothesis

    seed = settings.seed if shard is None else _seed_of(shard, settings, name)

    types: dict[Cause, type[_TrialFailed]] = {}

    def check(schedule: Schedule) -> None:
        cause = memory(schedule)
        if cause is not None:
            raise types.setdefault(cause, type("_Failed", (_TrialFailed,), {}))

    # The key in the example database.
    check.__name__ = check.__qualname__ = re.sub(r"\W", "_", name)
    profile = hypothesis.settings.default or hypothesis.settings()
    options: dict[str, Any] = {"database": None, "derandomize": False} if seed is not None else {}
    configured = hypothesis.settings(
        max_examples=settings.max_trials * PROPOSALS_PER_TRIAL,
        deadline=None,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[phase for phase in profile.phases if phase is not hypothesis.Phase.explain],
        **options,
    )(hypothesis.given(space.strategy())(check))
    if seed is not None:
        configured = hypothesis.seed(seed)(configured)
    try:
        with _by_the_seed_alone(), _notes_shrinking(memory):
            configured()
    except* (_TrialFailed, hypothesis.errors.HypothesisException):
        # The failures are in memory. If Hypothesis could not repeat one, the last run of the
        # smallest schedule shows it.
        pass

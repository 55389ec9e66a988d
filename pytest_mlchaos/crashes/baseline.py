"""Make the golden run of an exploration, twice.

The runs take place in this process if the subject is deterministic there, else in fresh ones.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..core.privacy import error_text
from ..errors import BadArgument, GoldenRunFailed, MlchaosError, NonDeterministicSubject
from ..runs.traces import Divergence
from .model import CrashOutcome, CrashState, RunResult, Tree
from .progress import Progress
from .runners import GoldenRun, Runner
from .saves import Saves
from .time_limits import TimeLimits
from .together import GoldenFacts

__all__ = ["Baseline", "Judge", "RunnerChoice", "establish_baseline", "replicate_baseline"]

MIN_TIMEOUT_SECONDS = 30.0
"""A resumed run may take at least this long. Some programs wait up to 30 s for a dead process's
lock."""
GOLDEN_DURATION_FACTOR = 10
"""A resumed run may take this many times as long as the golden run, in addition."""


class Judge(Protocol):
    """Compares runs with the golden run. ``verdicts.CrashJudge`` implements it."""

    @property
    def steps(self) -> int:
        """Return the number of steps of the golden run."""
        ...

    @property
    def notes(self) -> list[str]:
        """Return notes on files that were not compared."""
        ...

    def differs(self, ran: RunResult) -> Divergence | None:
        """Return how a second complete run differs from the golden run, or None."""
        ...

    def agrees(self, ran: RunResult) -> bool:
        """Return True if a complete run in a different process has as many steps and the same
        result."""
        ...

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """Return the verdict on one resumed run alone."""
        ...

    @property
    def facts(self) -> GoldenFacts:
        """Return the facts of the golden run for the verdict on all runs."""
        ...

    @property
    def divides(self) -> bool:
        """Return True if shards can divide the states: the journal has all that verdicts need."""
        ...

    def wanted(self, outcomes: Sequence[CrashOutcome]) -> Tree | None:
        """Return a directory from which a run is needed to judge these, or None."""
        ...

    def learn(self, tree: Tree, ran: RunResult) -> None:
        """Take the run from a directory that was wanted."""
        ...

    def alone(self, outcome: CrashOutcome) -> CrashOutcome:
        """Return an outcome with what is known without the runs from other states."""
        ...

    def with_facts(
        self, outcomes: Sequence[CrashOutcome], start: Tree, saves: Saves
    ) -> list[CrashOutcome]:
        """Return the outcomes, each with the facts that the verdict on all runs needs."""
        ...

    def finish(
        self,
        outcomes: Sequence[CrashOutcome],
        start: Tree | None = None,
        saves: Saves | None = None,
    ) -> list[CrashOutcome]:
        """Return the verdicts on all runs, in order of time, after comparing them with each other."""
        ...

    def undecided(
        self, outcomes: Sequence[CrashOutcome], *, is_whole: bool = False
    ) -> list[CrashOutcome]:
        """Return the failures that a further run could turn into recoveries.

        ``is_whole`` says that all states were tried.
        """
        ...

    def again(self, outcome: CrashOutcome, rtol: float, atol: float) -> CrashOutcome:
        """Judge a divergence again with these tolerances."""
        ...

    def follow(self, outcome: CrashOutcome, state: CrashState) -> CrashOutcome:
        """Return the outcome of a state from which a run goes as the one of this outcome did."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerChoice:
    """The runners that the options allow.

    Attributes:
        in_process: Makes a runner in this process, or None if ``isolation=`` forbids it.
        in_subprocess: Makes a runner in fresh processes, or None if ``isolation=`` forbids it.
        judge: Makes a judge from the golden run.
        root: The work directory.
        timeout: The seconds for one run, or None for a limit that depends on the golden run.
        most: The largest limit for one run without a ``timeout``.
        progress: The phases of the exploration.
    """

    in_process: Callable[[], Runner] | None
    in_subprocess: Callable[[], Runner] | None
    judge: Callable[[RunResult], Judge]
    root: Path | str
    timeout: float | None
    most: float = math.inf
    progress: Progress = dataclasses.field(default_factory=Progress)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A golden run and a second one that agrees with it.

    Attributes:
        runner: Makes the runs.
        golden: The recorded golden run.
        second: The second run.
        judge: Compares runs with the golden run.
        time_limits: The limits of resumed runs.
        why: The reason for fresh processes, if this process was the first choice.
        rerun_in_subprocess: Makes the baseline again in fresh processes, if they are allowed.
        subprocess_runner: Makes single runs in fresh processes, if they are allowed.
    """

    runner: Runner
    golden: GoldenRun
    second: RunResult
    judge: Judge
    time_limits: TimeLimits
    why: str = ""
    rerun_in_subprocess: Callable[[], Baseline] | None = None
    subprocess_runner: Callable[[], Runner] | None = None


def establish_baseline(choice: RunnerChoice) -> Baseline:
    """Return a baseline in this process, or in fresh ones if the subject needs them.

    A subject needs fresh processes if it is not deterministic in one process, or if it leaves
    something running.

    Raises:
        NonDeterministicSubject: It is not deterministic in fresh processes either.
    """
    if choice.in_process is None:
        assert choice.in_subprocess is not None
        return _run_twice(choice, choice.in_subprocess())
    here, failure = choice.in_process(), None
    try:
        golden = _golden(choice, here)
        if (
            golden.kept
            and not golden.running
            and (apart := _begin_in_subprocess(choice, here, golden)) is not None
        ):
            return apart
        baseline = _run_twice(choice, here, golden)
        if not baseline.golden.running:
            return baseline if choice.in_subprocess is None else _checkable(choice, baseline)
        why = f"it leaves {baseline.golden.running[0]} running"
        if choice.in_subprocess is None:
            raise _left_running(baseline.golden)
    except NonDeterministicSubject as error:
        if choice.in_subprocess is None:
            error.add_note(
                "mlchaos: state that it keeps in the process may be the reason: "
                "isolation='process' makes each run in a fresh process"
            )
            raise
        why, failure = (
            f"in one process, a second run differs from the first (step {error.step}: "
            f"{error.component})",
            error,
        )
    try:
        here.leave(here.start)
        return dataclasses.replace(_run_twice(choice, choice.in_subprocess()), why=why)
    except (BadArgument, MlchaosError) as error:
        if failure is None or isinstance(error, (NonDeterministicSubject, GoldenRunFailed)):
            raise
        failure.add_note(
            f"mlchaos: state that it keeps in the process may be the reason. Fresh processes would "
            f"show it, but they failed: {error}"
        )
        raise failure from None


def _begin_in_subprocess(choice: RunnerChoice, here: Runner, golden: GoldenRun) -> Baseline | None:
    """Return a baseline in fresh processes, because the subject leaves a value in a module.

    The next run in this process would find that value. Return None if fresh processes fail.
    """
    if choice.in_subprocess is None:
        return None
    why = f"it leaves a value in {golden.kept[0]}, where the next run would find it"
    try:
        here.leave(here.start)
        return dataclasses.replace(_run_twice(choice, choice.in_subprocess()), why=why)
    except MlchaosError:  # for example, the subject cannot be pickled
        return None


def _checkable(choice: RunnerChoice, baseline: Baseline) -> Baseline:
    """Add the callables that repeat runs in fresh processes."""
    return dataclasses.replace(
        baseline,
        rerun_in_subprocess=functools.partial(_rerun_in_subprocess, choice, baseline),
        subprocess_runner=functools.partial(_subprocess_runner, choice, baseline.golden),
    )


def _subprocess_runner(choice: RunnerChoice, golden: GoldenRun) -> Runner:
    assert choice.in_subprocess is not None
    runner = choice.in_subprocess()
    runner.limit(_limit(choice, golden))
    runner.follow = not golden.ran.trace.steps
    return runner


def _rerun_in_subprocess(choice: RunnerChoice, here: Baseline) -> Baseline:
    assert choice.in_subprocess is not None
    here.runner.leave(here.golden.start)
    return _run_twice(choice, choice.in_subprocess())


def replicate_baseline(first: Baseline, choice: RunnerChoice) -> Baseline:
    """Make the golden run again in a separate directory, for a parallel worker."""
    assert choice.in_subprocess is not None
    runner = choice.in_subprocess()
    golden = _golden(choice, runner)
    runner.limit(_limit(choice, golden))
    runner.follow = not golden.ran.trace.steps
    return Baseline(
        runner, golden, first.second, choice.judge(golden.ran), _time_limits(choice, golden)
    )


def _run_twice(choice: RunnerChoice, runner: Runner, golden: GoldenRun | None = None) -> Baseline:
    golden = golden or _golden(choice, runner)
    runner.limit(_limit(choice, golden))
    runner.follow = not golden.ran.trace.steps
    judge = choice.judge(golden.ran)
    with choice.progress.doing("in the second golden run"):
        second = runner.resume(golden.start or {}, 1, None)
        divergence = judge.differs(second)
    if divergence is not None:
        raise NonDeterministicSubject(
            _not_deterministic(divergence), step=divergence.step, component=divergence.component
        )
    if runner.is_fresh and golden.running:
        raise _left_running(golden)
    return Baseline(runner, golden, second, judge, _time_limits(choice, golden))


def _golden(choice: RunnerChoice, runner: Runner) -> GoldenRun:
    """Make the golden run. It must end, write something, and take a step if it trains."""
    with choice.progress.doing("in the golden run"):
        golden = runner.golden(None)
    ran = golden.ran
    if ran.error is not None:
        raise GoldenRunFailed(
            f"the subject fails without any fault: {error_text(ran.error)}"
        ) from ran.error
    if ran.hung is not None:
        raise GoldenRunFailed(
            f"the subject did not end in time without any fault: it was {ran.hung}. Raise the "
            f"limit: timeout='10m'"
        )
    if not any(change.kind not in ("synced", "folder") for change in golden.changes):
        raise BadArgument(
            f"mlchaos.explore_crashes: the subject wrote nothing below its work directory "
            f"({choice.root}), so a crash leaves no state "
            "to resume from. Does it save its checkpoints elsewhere? It is called as "
            "subject(workdir, *args)"
        )
    if ran.trace.passes and not ran.trace.steps:
        raise BadArgument(
            f"mlchaos.explore_crashes: the subject made {ran.trace.passes} forward passes in "
            f"training and took no step, so there is "
            "nothing to lose. Is its number of steps 0, or its loader empty?"
        )
    return golden


def _limit(choice: RunnerChoice, golden: GoldenRun) -> float:
    return choice.timeout or min(
        choice.most, MIN_TIMEOUT_SECONDS + GOLDEN_DURATION_FACTOR * golden.ran.duration
    )


def _time_limits(choice: RunnerChoice, golden: GoldenRun) -> TimeLimits:
    return TimeLimits(_limit(choice, golden), golden.ran.duration)


def _left_running(golden: GoldenRun) -> BadArgument:
    return BadArgument(
        f"mlchaos.explore_crashes: the subject returned and left {', '.join(golden.running[:3])} "
        f"running: end what it starts (join it, "
        "shut it down) before it returns"
    )


def _not_deterministic(divergence: Divergence) -> str:
    return (
        f"two runs of the subject differ though nothing crashed; first at {divergence}. Seed what "
        f"is random (python, NumPy, torch), and "
        "return no times or ids. Or allow the difference: explore_crashes(..., rtol=..., atol=...)"
    )

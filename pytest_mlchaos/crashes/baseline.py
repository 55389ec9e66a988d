"""Where the runs of an exploration are made: in this process where that tells the truth, else in fresh ones."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..core.privacy import error_text
from ..errors import BadArgument, GoldenRunFailed, MlchaosError, NonDeterministicSubject
from ..runs.traces import Divergence, Trace
from .model import CrashOutcome, CrashState, RunResult
from .progress import Progress
from .runners import GoldenRun, Runner
from .time_limits import TimeLimits

__all__ = ["Baseline", "Judge", "RunnerChoice", "establish_baseline", "replicate_baseline"]

MIN_TIMEOUT_SECONDS = 30.0
"""Seconds that a resumed run may take at least: some programs wait so long for a lock that a dead process has left."""
GOLDEN_DURATION_FACTOR = 10
"""How many times as long as the golden run it may take besides."""


class Judge(Protocol):
    """What an exploration needs to know of a run; ``oracles`` has one."""

    @property
    def steps(self) -> int:
        """Of the golden run."""
        ...

    @property
    def notes(self) -> list[str]:
        """What was not compared, in words."""
        ...

    def differs(self, ran: RunResult) -> Divergence | None:
        """How a second run of the whole, from the start, differs from the golden one."""
        ...

    def agrees(self, ran: RunResult) -> bool:
        """Return True if another run of the whole, in another process, did as much and ended as the golden one."""
        ...

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """The verdict on a resumed run, taken by itself."""
        ...

    def finish(self, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
        """The verdicts on all, in the order of time: what they say of each other."""
        ...

    def undecided(self, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
        """Return the failures among finished outcomes that the outcome of a further state could turn into recoveries."""
        ...

    def again(self, outcome: CrashOutcome, rtol: float, atol: float) -> CrashOutcome:
        """A divergence, judged anew by other tolerances."""
        ...

    def matching(self, trace: Trace) -> int:
        """How many of a resumed run's last steps were the golden run's."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerChoice:
    """Where runs may be made, in the words of ``isolation=``; ``timeout``: seconds for one run, None for what it needs.

    ``most``: seconds that one run may take at most without a ``timeout``.
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
    """The golden run, and a second one that agrees with it. ``why``: why they were made in fresh processes, if they were to be here."""

    runner: Runner
    golden: GoldenRun
    second: RunResult
    judge: Judge
    time_limits: TimeLimits
    why: str = ""
    rerun_in_subprocess: Callable[[], Baseline] | None = None
    """Begins anew in fresh processes, where that may be."""
    subprocess_runner: Callable[[], Runner] | None = None
    """Makes single runs in fresh processes, where that may be."""


def establish_baseline(choice: RunnerChoice) -> Baseline:
    """Where the subject is deterministic, and leaves nothing running: in this process, or in fresh ones.

    Raises ``NonDeterministicSubject`` where it is so in neither.
    """
    if choice.in_process is None:
        assert choice.in_subprocess is not None
        return _run_twice(choice, choice.in_subprocess())
    here, failure = choice.in_process(), None
    try:
        golden = _golden(choice, here)
        if golden.kept and not golden.running and (apart := _begin_in_subprocess(choice, here, golden)) is not None:
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
                "mlchaos: state that it keeps in the process may be the reason: isolation='process' makes each run in a fresh process"
            )
            raise
        why, failure = f"in one process, a second run differs from the first (step {error.step}: {error.component})", error
    try:
        here.leave(here.start)
        return dataclasses.replace(_run_twice(choice, choice.in_subprocess()), why=why)
    except (BadArgument, MlchaosError) as error:
        if failure is None or isinstance(error, (NonDeterministicSubject, GoldenRunFailed)):
            raise
        failure.add_note(
            f"mlchaos: state that it keeps in the process may be the reason. Fresh processes would show it, but they failed: {error}"
        )
        raise failure from None


def _begin_in_subprocess(choice: RunnerChoice, here: Runner, golden: GoldenRun) -> Baseline | None:
    """Begin in fresh processes, as a run binds a name of a module anew: in this process, the next would find that. None if it cannot."""
    if choice.in_subprocess is None:
        return None
    why = f"it leaves a value in {golden.kept[0]}, where the next run would find it"
    try:
        here.leave(here.start)
        return dataclasses.replace(_run_twice(choice, choice.in_subprocess()), why=why)
    except MlchaosError:  # for example, it cannot be sent there
        return None


def _checkable(choice: RunnerChoice, baseline: Baseline) -> Baseline:
    """It, with the ways to see if fresh processes come to the same verdicts."""
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
    """The golden run once more, in another directory, for runs that are made at the same time."""
    assert choice.in_subprocess is not None
    runner = choice.in_subprocess()
    golden = _golden(choice, runner)
    runner.limit(_limit(choice, golden))
    runner.follow = not golden.ran.trace.steps
    return Baseline(runner, golden, first.second, choice.judge(golden.ran), _time_limits(choice, golden))


def _run_twice(choice: RunnerChoice, runner: Runner, golden: GoldenRun | None = None) -> Baseline:
    golden = golden or _golden(choice, runner)
    runner.limit(_limit(choice, golden))
    runner.follow = not golden.ran.trace.steps
    judge = choice.judge(golden.ran)
    with choice.progress.doing("in the second golden run"):
        second = runner.resume(golden.start or {}, 1, None)
        divergence = judge.differs(second)
    if divergence is not None:
        raise NonDeterministicSubject(_not_deterministic(divergence), step=divergence.step, component=divergence.component)
    if runner.is_fresh and golden.running:
        raise _left_running(golden)
    return Baseline(runner, golden, second, judge, _time_limits(choice, golden))


def _golden(choice: RunnerChoice, runner: Runner) -> GoldenRun:
    """The golden run, which must come to its end, and write something."""
    with choice.progress.doing("in the golden run"):
        golden = runner.golden(None)
    ran = golden.ran
    if ran.error is not None:
        raise GoldenRunFailed(f"the subject fails without any fault: {error_text(ran.error)}") from ran.error
    if ran.hung is not None:
        raise GoldenRunFailed(f"the subject did not end in time without any fault: it was {ran.hung}. Raise the limit: timeout='10m'")
    if not any(change.kind not in ("synced", "folder") for change in golden.changes):
        raise BadArgument(
            f"mlchaos.explore_crashes: the subject wrote nothing below its work directory ({choice.root}), so a crash leaves no state "
            "to resume from. Does it save its checkpoints elsewhere? It is called as subject(workdir, *args)"
        )
    if ran.trace.passes and not ran.trace.steps:
        raise BadArgument(
            f"mlchaos.explore_crashes: the subject made {ran.trace.passes} forward passes in training and took no step, so there is no "
            "progress to lose. Is its number of steps 0, or its loader empty?"
        )
    return golden


def _limit(choice: RunnerChoice, golden: GoldenRun) -> float:
    return choice.timeout or min(choice.most, MIN_TIMEOUT_SECONDS + GOLDEN_DURATION_FACTOR * golden.ran.duration)


def _time_limits(choice: RunnerChoice, golden: GoldenRun) -> TimeLimits:
    return TimeLimits(_limit(choice, golden), golden.ran.duration)


def _left_running(golden: GoldenRun) -> BadArgument:
    return BadArgument(
        f"mlchaos.explore_crashes: the subject returned and left {', '.join(golden.running[:3])} running: end what it starts (join it, "
        "shut it down) before it returns"
    )


def _not_deterministic(divergence: Divergence) -> str:
    return (
        f"two runs of the subject differ though nothing crashed; first at {divergence}. Seed what is random (python, NumPy, torch), and "
        "return no times or ids. Or allow the difference: explore_crashes(..., rtol=..., atol=...)"
    )

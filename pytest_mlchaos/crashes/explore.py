"""Resume from every crash state of the golden run."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence

from ..core.interrupts import deferred
from ..core.validation import did_you_mean
from ..errors import BadArgument, MlchaosError
from ..processes.subprocess_runner import fresh_processes
from ..runs.traces import Trace
from .baseline import Baseline, Judge
from .model import CrashOutcome, CrashState, RunResult
from .progress import Progress
from .run import Stop
from .saves import with_saves
from .states import CrashStates

__all__ = [
    "Exploration",
    "ExplorationOptions",
    "confirm_in_subprocess",
    "explore",
    "path_to",
    "states_of",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplorationOptions:
    """Options of the search.

    Attributes:
        torn_writes: True to include files that are cut while they are written in place.
        power: True to include states after a power loss.
        horizon: The number of matching steps after which a resumed run is ended, or None.
        depth: The number of crashes in a row.
        only: The id of the only state to try.
        lenient: True if a missing state ``only`` is not an error.
        progress: The phases of the exploration.
        is_over: Returns True after the time budget. No further run is started then.
    """

    torn_writes: bool = True
    power: bool = False
    horizon: int | None = None
    depth: int = 1
    only: str | None = None
    lenient: bool = False

    progress: Progress = dataclasses.field(default_factory=Progress)
    is_over: Callable[[], bool] = lambda: False


@dataclasses.dataclass(frozen=True)
class Exploration:
    """The result of a search.

    Attributes:
        states: The crash states.
        outcomes: One outcome for each state that was tried.
        untried: The states that the budget left out.
        unlisted: The number of states for which the budget left out second crashes.
        unchecked: The reason why runs in fresh processes could not confirm these, or an empty text.
        unseen: The number of changes with an unseen content, one number per call that made several.
    """

    states: Sequence[CrashState]
    outcomes: Sequence[CrashOutcome]
    untried: Sequence[CrashState] = ()
    unlisted: int = 0
    unchecked: str = ""
    unseen: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class HorizonReached:
    """End a run after it has matched the golden run for ``horizon`` steps.

    The remaining steps must match, too.
    """

    judge: Judge
    horizon: int

    def __call__(self, trace: Trace) -> None:
        if self.judge.matching(trace) >= self.horizon:
            raise Stop


def explore(workers: Sequence[Baseline], options: ExplorationOptions) -> Exploration:
    """Resume from every crash state.

    Args:
        workers: One baseline per parallel worker, each with its own directory. The states are
            divided among them.
        options: The options of the search.
    """
    first = workers[0]
    makers = [
        CrashStates(baseline.runner.contents, torn=options.torn_writes, power=options.power)
        for baseline in workers
    ]
    known: set[frozenset[object]] = set()
    states, *others = [
        maker.states(
            baseline.golden.start,
            baseline.golden.changes,
            known if baseline is first else set(),
            steps=baseline.judge.steps,
        )
        for maker, baseline in zip(makers, workers, strict=True)
    ]
    wanted = (
        states if options.only is None else path_to(states, options.only, lenient=options.lenient)
    )
    by_name = [{state.id: state for state in found} for found in others]
    seen = {"start#0": first.second}
    outcomes = _resume_all(workers, wanted, by_name, options, seen)
    if (
        options.only is not None
        and ">" not in options.only
        and any(_needs_others(outcome) for outcome in outcomes)
    ):
        judged = with_saves(
            first.golden, first.judge.finish(_resume_all(workers, states, by_name, options, seen))
        )
        return Exploration(
            wanted,
            [outcome for outcome in judged if outcome.state.id == options.only],
            unseen=first.golden.unseen,
        )
    unlisted, unseen = 0, list(first.golden.unseen)
    for level in range(1, max(options.depth, 1 + (options.only or "").count(">"))):
        deeper: list[CrashState] = []
        for index, state in enumerate(wanted):
            if options.is_over():
                unlisted += len(wanted) - index
                break
            with options.progress.doing(f"looking for second crashes after {state.id}"):
                deeper += _behind(first, makers[0], state, known, unseen)
        if options.only is not None:
            deeper, outcomes = path_to(deeper, options.only, level, lenient=options.lenient), []
        outcomes += _resume_all(workers[:1], deeper, [], options, {})
        states, wanted = [*states, *deeper], deeper
    judged = with_saves(first.golden, first.judge.finish(outcomes))
    found = _sorted_out(states if options.only is None else wanted, judged, first.judge, unlisted)
    return dataclasses.replace(found, unseen=unseen)


def _sorted_out(
    states: Sequence[CrashState], outcomes: Sequence[CrashOutcome], judge: Judge, unlisted: int
) -> Exploration:
    """Return the exploration.

    If states were left out, drop the outcomes that only those could decide.
    """
    if len(outcomes) < len(states):
        unsure = {outcome.state.id for outcome in judge.undecided(outcomes)}
        outcomes = [outcome for outcome in outcomes if outcome.state.id not in unsure]
    tried = {outcome.state.id for outcome in outcomes}
    return Exploration(
        states, outcomes, [state for state in states if state.id not in tried], unlisted
    )


def _needs_others(outcome: CrashOutcome) -> bool:
    """Return True if the run may have begun from scratch.

    Only the runs from all states show if there was a checkpoint to resume from.
    """
    return outcome.verdict == "recovered" and not outcome.resumed_at


def confirm_in_subprocess(
    workers: Sequence[Baseline], found: Exploration, options: ExplorationOptions
) -> tuple[Baseline, Exploration]:
    """Confirm results of one process with runs in fresh processes.

    A process that goes on is not equivalent to a killed one. Its PID exists and its locks are held,
    so a run may fail for that reason alone. It also keeps state in instances, classes and caches,
    so a run may resume from state that a new process would not have. One example of each kind is
    run in a fresh process. If a verdict differs, all states are explored again in fresh processes.

    Args:
        workers: The baselines. The first one made the runs.
        found: The results in this process.
        options: The options of the search.

    Returns:
        The baseline and the exploration that count. If the subject cannot run in a fresh process,
        ``unchecked`` has the reason.
    """
    baseline = workers[0]
    if baseline.rerun_in_subprocess is None or baseline.subprocess_runner is None:
        return baseline, found
    try:
        different = _different(baseline, found, options)
        if different is None:
            return baseline, found
        fresh = baseline.rerun_in_subprocess()
        if not baseline.judge.agrees(fresh.golden.ran):
            raise MlchaosError("there the subject has a different result, even without a crash")
        return dataclasses.replace(fresh, why=different), explore([fresh], options)
    except _BudgetExceeded:
        return baseline, dataclasses.replace(found, unchecked="the setting budget ran out")
    except MlchaosError as error:
        return baseline, dataclasses.replace(found, unchecked=_why_not(error))


def _why_not(error: MlchaosError) -> str:
    """Return the error's first line, without the names of internal objects if pickling failed."""
    text = str(error).partition("\n")[0]
    _, sent, reason = text.partition("cannot be sent to a fresh process: ")
    return f"the subject and its arguments cannot be sent there: {reason}" if sent else text


class _BudgetExceeded(Exception): ...


def _different(baseline: Baseline, found: Exploration, options: ExplorationOptions) -> str | None:
    """Return in words the first example whose verdict differs in a fresh process, or None."""
    assert baseline.subprocess_runner is not None
    baseline.runner.leave(baseline.golden.start)
    examples = _examples(found.outcomes)
    runner = baseline.subprocess_runner() if examples else baseline.runner
    for number, outcome in enumerate(examples, 2):
        # An unconfirmed failure is not a finding, so this run is made whatever the budget.
        if outcome.verdict == "recovered" and options.is_over():
            raise _BudgetExceeded
        if outcome.verdict == "hung":
            # In a fresh process it hangs too, or ends as quickly as the others.
            runner.limit(baseline.time_limits.short)
        with options.progress.doing(
            f"checking crash state {outcome.state.id} again in a fresh process"
        ):
            there = baseline.judge.outcome(
                outcome.state, runner.resume(outcome.state.tree, number, None)
            )
        if _comparable(there) != _comparable(outcome):
            here, fresh = _in_words(outcome), _in_words(there)
            return f"in one process for all runs, {outcome.state.id} {here}; in a fresh process it {fresh}"
    return None


def _examples(outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Return one outcome of each kind of failure, then some recoveries.

    The recoveries are the first, the last, and one per kind of state.
    """
    failed: dict[tuple[str, str], CrashOutcome] = {}
    recovered: dict[str, CrashOutcome] = {}
    for outcome in outcomes:
        if outcome.verdict != "recovered":
            kind = type(outcome.error).__name__ if outcome.error is not None else ""
            failed.setdefault((outcome.verdict, kind), outcome)
        else:
            # The last of its kind has the most saved work.
            recovered[_kind(outcome.state)] = outcome
    good = [outcome for outcome in outcomes if outcome.verdict == "recovered"]
    several = {
        outcome.state.id: outcome for outcome in (*good[:1], *good[-1:], *recovered.values())
    }
    return [*failed.values(), *several.values()]


def _kind(state: CrashState) -> str:
    """Return what happened to the file, without names and numbers.

    Examples are ``cut at``, ``just renamed`` and ``complete``.
    """
    return " ".join(state.what.replace(state.path, "").split()[:2])


def _comparable(outcome: CrashOutcome) -> tuple[object, ...]:
    """Return what must be equal in a fresh process.

    This is the verdict on this run alone, the step from which it resumed, and the files that it
    completed.
    """
    verdict = outcome.verdict
    if verdict == "restarted":
        # This verdict depends on all runs together, as does the meaning of markers.
        verdict = "recovered" if outcome.divergence is None else "diverged"
    # Files are judged after all runs.
    is_of_files = outcome.divergence is not None and outcome.divergence.component == "files"
    if verdict == "diverged" and (outcome.markers or is_of_files):
        verdict = "recovered"
    if verdict in ("failed", "hung"):
        return (verdict,)
    return verdict, outcome.resumed_at, frozenset(path for path, _ in outcome.completed)


def _in_words(outcome: CrashOutcome) -> str:
    where = f" from step {outcome.resumed_at}" if outcome.resumed_at is not None else ""
    words = {
        "recovered": f"recovers{where}",
        "diverged": f"diverges{where}",
        "failed": "fails",
        "hung": "hangs",
    }
    return words.get(outcome.verdict, f"resumes{where}" if where else "begins from scratch")


def states_of(baseline: Baseline, options: ExplorationOptions) -> list[CrashState]:
    """Return the states of the golden run."""
    maker = CrashStates(baseline.runner.contents, torn=options.torn_writes, power=options.power)
    return maker.states(
        baseline.golden.start, baseline.golden.changes, set(), steps=baseline.judge.steps
    )


def _resume_all(
    workers: Sequence[Baseline],
    states: Sequence[CrashState],
    others: Sequence[Mapping[str, CrashState]],
    options: ExplorationOptions,
    known: Mapping[str, RunResult],
) -> list[CrashOutcome]:
    """Return an outcome for each state that the budget allows, in their order.

    The workers run in parallel.
    """
    found: list[CrashOutcome | None] = [None] * len(states)
    failures: list[BaseException] = []
    stop = threading.Event()

    def work(worker: int) -> None:
        baseline = workers[worker]
        on_step = (
            None if options.horizon is None else HorizonReached(baseline.judge, options.horizon)
        )
        try:
            for index in range(len(states)):
                mine = states[index] if not worker else others[worker - 1].get(states[index].id)
                if mine is None or _owner(states[index], index, workers, others) != worker:
                    continue
                ran = known.get(mine.id) if not worker else None
                if stop.is_set() or (ran is None and options.is_over()):
                    return
                phase = f"resuming from crash state {mine.id}, number {index + 1} of {len(states)}"
                with options.progress.doing(phase, mine.id):
                    ran = ran or baseline.time_limits.resume(
                        baseline.runner, mine.tree, index + 2, on_step
                    )
                    found[index] = baseline.judge.outcome(states[index], ran)
        except BaseException as error:  # noqa: BLE001  # raised again in the main thread
            failures.append(error)
            stop.set()

    threads = [
        threading.Thread(target=work, args=(worker,), name=f"mlchaos-job-{worker}")
        for worker in range(1, len(workers))
    ]
    try:
        for thread in threads:
            thread.start()
        work(0)
    except BaseException as error:  # noqa: BLE001  # raised again below
        failures.append(error)
    finally:
        with deferred():
            if failures:
                stop.set()
            if not all(isinstance(failure, Exception) for failure in failures):
                fresh_processes().stop()  # an interruption: do not wait for runs in progress
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
    if failures:
        raise failures[0]
    return [outcome for outcome in found if outcome is not None]


def _owner(
    state: CrashState,
    index: int,
    workers: Sequence[Baseline],
    others: Sequence[Mapping[str, CrashState]],
) -> int:
    """Return the worker that resumes from a state. Workers take turns.

    The first worker takes states that did not occur in a later worker's golden run.
    """
    worker = index % len(workers)
    return worker if worker == 0 or state.id in others[worker - 1] else 0


def _behind(
    baseline: Baseline,
    maker: CrashStates,
    state: CrashState,
    known: set[frozenset[object]],
    unseen: list[int],
) -> list[CrashState]:
    """Return the states that a second crash leaves, in the run that resumes from this state.

    Append the numbers of changes that were not seen to ``unseen``.
    """
    again = baseline.runner.golden(state.tree)
    unseen += again.unseen
    at = max(0, baseline.judge.steps - len(again.ran.trace.steps))
    return [
        dataclasses.replace(
            one,
            id=f"{state.id}>{one.id}",
            step=at + one.step,
            until=at + one.until,
            what=f"{one.what} (in the run that resumes from {state.id})",
        )
        for one in maker.states(
            None, again.changes, known, steps=len(again.ran.trace.steps), parent=state.id
        )
    ]


def path_to(
    states: Sequence[CrashState], name: str, level: int = 0, *, lenient: bool = False
) -> list[CrashState]:
    """Return the state of that name, or the one that leads to it.

    The name ``a>b`` is state b of the run that resumes from state a.

    Args:
        states: The states to search.
        name: The state's id.
        level: The number of ``>`` to follow in the id.
        lenient: True to return an empty list for a missing state.

    Raises:
        BadArgument: The state does not exist.
    """
    wanted = ">".join(name.split(">")[: level + 1])
    for state in states:
        if state.id == wanted:
            return [state]
    if lenient:
        return []
    close = did_you_mean(wanted, [state.id for state in states])
    raise BadArgument(
        f"crash: state must be one of the {len(states)} crash states of this run, got "
        f"{wanted!r}{close}"
    )

"""Resume from every crash state of the golden run."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

from ..core.shards import Shard
from ..core.validation import did_you_mean
from ..errors import BadArgument, MlchaosError
from .baseline import Baseline, Judge
from .model import CrashOutcome, CrashState, File, RunResult, Tree
from .progress import Progress
from .recording.content_store import ContentStore
from .saves import Saves
from .states import CrashStates
from .sweep import ExplorationOptions, kind_of, resume_all

__all__ = [
    "Exploration",
    "confirm_in_subprocess",
    "explore",
    "partial_exploration",
    "path_to",
    "states_of",
]

COMPARED_RUN = 2
"""The number of a run with which others are compared, after the two golden runs (0 and 1)."""
MAX_LOCK_BYTES = 1 << 12
"""A file of at most this size may be a lock, which names a process."""


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
        doubts: The reasons why states were run in full that would have followed or ended early.
        part: The outcomes of a shard: the verdict on each run alone, with its facts.
        own: The names of the states that belong to the shard.
        deeper: Those of the states that a second crash leaves.
        fresh: The reason why the runs were made again in fresh processes: a verdict differed there.
    """

    states: Sequence[CrashState]
    outcomes: Sequence[CrashOutcome]
    untried: Sequence[CrashState] = ()
    unlisted: int = 0
    unchecked: str = ""
    unseen: Sequence[int] = ()
    doubts: Sequence[str] = ()
    part: Sequence[CrashOutcome] = ()
    own: frozenset[str] = frozenset()
    deeper: Sequence[CrashState] = ()
    fresh: str = ""


def explore(workers: Sequence[Baseline], options: ExplorationOptions) -> Exploration:
    """Resume from every crash state.

    Args:
        workers: One baseline per parallel worker, each with its own directory. The states are
            divided among them.
        options: The options of the search.
    """
    first = workers[0]
    options.progress.begin(first)
    makers = [
        CrashStates(baseline.runner.contents, torn=options.torn_writes, power=options.power)
        for baseline in workers
    ]
    known: set[frozenset[object]] = set()
    states, *others = [
        _all_states(maker, baseline, known if baseline is first else set())
        for maker, baseline in zip(makers, workers, strict=True)
    ]
    wanted = (
        states if options.only is None else path_to(states, options.only, lenient=options.lenient)
    )
    by_name = [{state.id: state for state in found} for found in others]
    start = {"start#0": first.second} if first.golden.resumes_alike else {}
    own: frozenset[str] = frozenset()
    if options.shard is not None:
        own = _own_states(options.shard, states, divides=first.judge.divides)
        options = dataclasses.replace(options, own=own)
    search = _Search(workers, by_name, options, start)
    if options.only is not None and ">" not in options.only:
        return _only(search, states, wanted)
    outcomes = search.resume(wanted)
    unlisted, unseen, later = 0, list(first.golden.unseen), []
    for level in range(1, max(options.depth, 1 + (options.only or "").count(">"))):
        deeper: list[CrashState] = []
        if options.own is not None and level == 1:
            # A second crash belongs to the shard of the first one.
            wanted = [state for state in wanted if state.id in options.own]
        for index, state in enumerate(wanted):
            if options.is_over():
                unlisted += len(wanted) - index
                break
            with options.progress.doing(f"looking for second crashes after {state.id}"):
                deeper += _behind(first, makers[0], state, known, unseen)
        if options.only is not None:
            deeper, outcomes = path_to(deeper, options.only, level, lenient=options.lenient), []
        if options.max_states is not None:
            search.options = dataclasses.replace(
                options, max_states=max(0, options.max_states - len(outcomes))
            )
        outcomes += search.resume(deeper, alone=True)
        states, wanted = [*states, *deeper], deeper
        later += deeper
    judged, doubts = search.judge(outcomes)
    found = _sorted_out(states if options.only is None else wanted, judged, first.judge, unlisted)
    if options.own is None:
        return dataclasses.replace(found, unseen=unseen, doubts=doubts)
    part = search.with_facts() if first.judge.divides else judged
    own |= {state.id for state in later}
    return dataclasses.replace(
        found, unseen=unseen, doubts=doubts, part=part, own=own, deeper=later
    )


def _own_states(shard: Shard, states: Sequence[CrashState], *, divides: bool) -> frozenset[str]:
    """Return the names of the states of a shard. If they cannot be divided, one shard has all."""
    names = [state.id for state in states]
    if divides:
        return frozenset(filter(shard.owns, names))
    return frozenset(names if shard.owns("\n".join(names)) else ())


def _only(
    search: _Search, states: Sequence[CrashState], wanted: Sequence[CrashState]
) -> Exploration:
    """Try one state. If its verdict depends on the runs from the others, try all."""
    outcomes = search.resume(wanted)
    if any(_needs_others(outcome) for outcome in search.alone(outcomes)):
        outcomes = search.resume(states)
    judged, doubts = search.judge(outcomes)
    ids = {state.id for state in wanted}
    return Exploration(
        wanted,
        [outcome for outcome in judged if outcome.state.id in ids],
        unseen=search.first.golden.unseen,
        doubts=doubts,
    )


class _Search:
    """Resumes from states, and judges the outcomes.

    If a check shows that an outcome does not follow from another, or that a run must not end early,
    all states concerned are run in full.
    """

    def __init__(
        self,
        workers: Sequence[Baseline],
        others: Sequence[Mapping[str, CrashState]],
        options: ExplorationOptions,
        known: Mapping[str, RunResult],
    ) -> None:
        self.first = workers[0]
        self.options = options
        self._workers = workers
        self._others = others
        self._known = known
        self._alone: Sequence[CrashOutcome] = ()

    def resume(self, states: Sequence[CrashState], *, alone: bool = False) -> list[CrashOutcome]:
        """Return the outcomes of the states that the budget allows, in the order of time.

        ``alone`` leaves all of them to the first worker.
        """
        if alone:
            mine = dataclasses.replace(self.options, own=None)
            return resume_all(self._workers[:1], states, [], mine, {})
        return resume_all(self._workers, states, self._others, self.options, self._known)

    def judge(self, outcomes: Sequence[CrashOutcome]) -> tuple[list[CrashOutcome], list[str]]:
        """Return the verdicts, and the doubts that made it run states in full."""
        self._compare(outcomes)
        judged, doubts = _judged(self.first, outcomes), []
        for doubt in (_doubtful_ends, _doubtful_follows):
            why, again = doubt(judged)
            if not again:
                continue
            doubts.append(why)
            self.options = dataclasses.replace(
                self.options,
                max_states=None,
                horizon=None,
                exhaustive=self.options.exhaustive or doubt is _doubtful_follows,
            )
            mine = [state for state in again if state.parent is None]
            more = [state for state in again if state.parent is not None]
            new = [*self.resume(mine), *self.resume(more, alone=True)]
            by_id = {outcome.state.id: outcome for outcome in new}
            redone = {state.id for state in again}
            outcomes = [
                by_id.get(outcome.state.id, outcome)
                for outcome in outcomes
                if outcome.state.id not in redone or outcome.state.id in by_id
            ]
            self._compare(outcomes)
            judged = _judged(self.first, outcomes)
        self._alone = outcomes
        return judged, doubts

    def alone(self, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
        """Return the outcomes with what the judge knows of each without the others."""
        self._compare(outcomes)
        return [self.first.judge.alone(outcome) for outcome in outcomes]

    def _compare(self, outcomes: Sequence[CrashOutcome]) -> None:
        """Make the runs that the judge needs, whatever the budget: without them it knows nothing."""
        first = self.first
        while (tree := first.judge.wanted(outcomes)) is not None:
            with self.options.progress.doing("resuming from the end of a step, for comparison"):
                first.judge.learn(
                    tree, first.time_limits.resume(first.runner, tree, COMPARED_RUN, None)
                )

    def with_facts(self) -> list[CrashOutcome]:
        """Return the verdict on each run alone, with what the other shards need to know of it."""
        return self.first.judge.with_facts(self._alone, *_start_and_saves(self.first))


def _judged(first: Baseline, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    return first.judge.finish(outcomes, *_start_and_saves(first))


def _start_and_saves(first: Baseline) -> tuple[Tree, Saves]:
    return first.golden.start or {}, Saves(first.golden.changes, first.golden.end)


def _doubtful_ends(judged: Sequence[CrashOutcome]) -> tuple[str, list[CrashState]]:
    """Return the states whose runs ended early, if a run that could have done so went wrong.

    The first part is the reason, in words.
    """
    wrong = next(
        (
            outcome
            for outcome in judged
            if outcome.could_end_early and outcome.verdict not in ("recovered", "restarted")
        ),
        None,
    )
    if wrong is None:
        return "", []
    early = [outcome.state for outcome in judged if outcome.ended_early]
    why = (
        f"no run was ended early: the run from {wrong.state.id} went as the run without a crash "
        f"does, and {_in_words(wrong)} later"
    )
    return why, early


def _doubtful_follows(judged: Sequence[CrashOutcome]) -> tuple[str, list[CrashState]]:
    """Return the states that were not run, if a check shows that they may go a different way.

    The first part is the reason, in words.
    """
    by_id = {outcome.state.id: outcome for outcome in judged}
    for outcome in judged:
        source = by_id.get(outcome.checks or "")
        if source is not None and _differ(outcome, source):
            why = (
                f"all states were run: the run from {outcome.state.id} found all that the run from "
                f"{source.state.id} had read, and {_in_words(outcome)}, while that one "
                f"{_in_words(source)}"
            )
            return why, [one.state for one in judged if one.follows is not None]
    return "", []


def _differ(one: CrashOutcome, other: CrashOutcome) -> bool:
    """Return True if two runs went different ways."""
    # A run that ended early has fewer steps than one that went on.
    same_end = one.ended_early == other.ended_early
    return _facts(one) != _facts(other) or (same_end and one.steps != other.steps)


def _facts(outcome: CrashOutcome) -> tuple[object, ...]:
    """Return what is equal for two runs that cannot tell their states apart."""
    found = outcome.divergence
    return (
        "recovered" if outcome.verdict == "restarted" else outcome.verdict,
        outcome.resumed_at,
        len(outcome.completed),  # their names and bytes may be random
        type(outcome.error).__name__,
        outcome.place,
        None if found is None else (found.step, found.component),
    )


def _sorted_out(
    states: Sequence[CrashState], outcomes: Sequence[CrashOutcome], judge: Judge, unlisted: int
) -> Exploration:
    """Return the exploration.

    If runs were left out, drop the outcomes that only those could decide.
    """
    is_whole = len(outcomes) == len(states)
    unsure = {outcome.state.id for outcome in judge.undecided(outcomes, is_whole=is_whole)}
    outcomes = [outcome for outcome in outcomes if outcome.state.id not in unsure]
    tried = {outcome.state.id for outcome in outcomes}
    return Exploration(
        states, outcomes, [state for state in states if state.id not in tried], unlisted
    )


def partial_exploration(progress: Progress) -> Exploration | None:
    """Return what an interrupted exploration has found, or None if it tried no state.

    An outcome is left out if only a run that was not made could confirm it.
    """
    first, outcomes = progress.baseline, progress.outcomes
    if first is None or not outcomes:
        return None
    states = list(progress.states.values())
    tried = [outcomes[state.id] for state in states if state.id in outcomes]
    judged = _judged(first, tried)
    doubtful = {
        state.id for doubt in (_doubtful_ends, _doubtful_follows) for state in doubt(judged)[1]
    }
    sure = [outcome for outcome in judged if outcome.state.id not in doubtful]
    found = _sorted_out(states, sure, first.judge, 0)
    unchecked = "" if first.runner.is_fresh else "the exploration was interrupted"
    return dataclasses.replace(found, unseen=first.golden.unseen, unchecked=unchecked)


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
        again = dataclasses.replace(explore([fresh], options), fresh=different)
        return dataclasses.replace(fresh, why=different), again
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
    for outcome in examples:
        named = _names_this_process(outcome, baseline.runner.contents)
        if named:
            # It would fail in a fresh process as well, because this one lives.
            return f"{outcome.state.id} fails, and {named} names this process, which is not killed"
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


def _names_this_process(outcome: CrashOutcome, contents: ContentStore) -> str:
    """Return the file with the id of this process, if a run from the state failed, or ''."""
    if outcome.verdict not in ("failed", "hung"):
        return ""
    pattern = re.compile(rb"(?<!\d)%d(?!\d)" % os.getpid())
    for path, node in outcome.state.tree.items():
        if (
            isinstance(node, File)
            and node.content.size <= MAX_LOCK_BYTES
            and pattern.search(b"".join(contents.blocks(node.content)))
        ):
            return path
    return ""


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
            recovered[kind_of(outcome.state)] = outcome
    good = [outcome for outcome in outcomes if outcome.verdict == "recovered"]
    several = {
        outcome.state.id: outcome for outcome in (*good[:1], *good[-1:], *recovered.values())
    }
    return [*failed.values(), *several.values()]


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
    return _all_states(maker, baseline, set())


def _all_states(
    maker: CrashStates, baseline: Baseline, known: set[frozenset[object]]
) -> list[CrashState]:
    golden, steps = baseline.golden, baseline.judge.steps
    if golden.orders:
        return maker.of_ranks(golden.start or {}, golden.orders, known, steps=steps)
    return maker.states(golden.start, golden.changes, known, steps=steps)


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
    steps = len(again.ran.trace.steps)
    at = max(0, baseline.judge.steps - steps)
    found = (
        maker.of_ranks(None, again.orders, known, steps=steps, parent=state.id)
        if again.orders
        else maker.states(None, again.changes, known, steps=steps, parent=state.id)
    )
    return [
        dataclasses.replace(
            one,
            id=f"{state.id}>{one.id}",
            step=at + one.step,
            until=at + one.until,
            what=f"{one.what} (in the run that resumes from {state.id})",
        )
        for one in found
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

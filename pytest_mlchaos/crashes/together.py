"""Judge all resumed runs together: what one run shows depends on the others.

This works on plain data (``RunFacts``, and ``GoldenFacts`` of the golden run), so the shards of an
exploration can be judged together on a machine that made none of the runs.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Sequence

from ..runs.traces import Divergence
from .compare_files import EndRules
from .model import CrashOutcome, EndDifference, RunFacts
from .resumption import mark_restarted, never_resumes
from .saves import with_saves

__all__ = ["GoldenFacts", "finish", "from_scratch", "undecided"]

NO_FACTS = RunFacts()


@dataclasses.dataclass(frozen=True, slots=True)
class GoldenFacts:
    """The facts of a golden run that the verdict on all runs together needs. They are plain data.

    Attributes:
        steps: The number of its steps.
        saved: The files from which a later run could resume.
        completed: The files that it completed, in order, with digests of their contents.
        rules: The rule that says which files are compared.
        is_final: True if one shard has tried all states, because their verdicts need values that
            no journal has. Then nothing is left to judge.
    """

    steps: int
    saved: tuple[str, ...]
    completed: tuple[tuple[str, bytes], ...]
    rules: EndRules
    is_final: bool = False


def finish(
    golden: GoldenFacts, outcomes: Sequence[CrashOutcome]
) -> tuple[list[CrashOutcome], list[str]]:
    """Return the verdicts on all runs, in order of time, and notes on files that do not count.

    Args:
        golden: The facts of the golden run.
        outcomes: The verdict on each run alone, with its facts.
    """
    if golden.is_final:
        return list(outcomes), []
    read = frozenset().union(*(outcome.read or () for outcome in outcomes))
    expected: list[EndDifference] = []
    judged = []
    for outcome in _judged_markers(outcomes):
        found = None
        if outcome.verdict == "recovered":
            facts = outcome.facts or NO_FACTS
            found, more = golden.rules.first(golden.steps, facts.differences, read)
            expected += more
        judged.append(_with_files(outcome, found))
    notes = _notes(expected)
    if never_resumes(golden.saved, golden.steps, judged):
        return with_saves(mark_restarted(golden.saved, judged)), notes
    progress = (
        [outcome.resumed_at for outcome in judged]
        if golden.steps
        else _progress_by_files(golden.completed, [outcome.completed for outcome in judged])
    )
    return with_saves(list(from_scratch(judged, progress))), notes


def undecided(outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
    """Return the failures that the outcome of a further state could turn into recoveries.

    In these, only markers differ, and one of the markers was seen at one step only. Or no run has
    resumed so far.
    """
    pairs = _marker_pairs(outcomes)
    return [
        one
        for one in outcomes
        if one.from_scratch
        or (one.verdict == "diverged" and any(len(pairs[name]) == 1 for name in one.markers))
    ]


def _notes(expected: Sequence[EndDifference]) -> list[str]:
    """Return one note for each log, the last one, and one for each numbered directory."""
    notes: dict[str, str] = {}
    for one in expected:
        if one.continued:
            notes.setdefault(one.continued, one.continued)
        else:
            notes.pop(f"log {one.path}", None)
            notes[f"log {one.path}"] = one.log
    return list(notes.values())


def _with_files(outcome: CrashOutcome, found: Divergence | None) -> CrashOutcome:
    return (
        outcome
        if found is None
        else dataclasses.replace(outcome, verdict="diverged", divergence=found)
    )


# -- markers: entries that show where a run resumed ------------------------------------------------


def _judged_markers(outcomes: Sequence[CrashOutcome]) -> Iterator[CrashOutcome]:
    """Yield the outcomes. One that differs in markers alone has recovered.

    A marker must equal the step from which the run resumed, or be in one ratio to it in all runs.
    """
    tell = {name for name, found in _marker_pairs(outcomes).items() if _in_ratio(found)}
    for outcome in outcomes:
        if outcome.markers and outcome.markers.keys() <= tell:
            outcome = dataclasses.replace(outcome, verdict="recovered", divergence=None, value=None)
        yield outcome


def _marker_pairs(outcomes: Sequence[CrashOutcome]) -> dict[str, set[tuple[int, int]]]:
    """Return for each marker the distinct pairs of resumed step and value."""
    pairs: dict[str, set[tuple[int, int]]] = {}
    for outcome in outcomes:
        for name, number in outcome.markers.items():
            pairs.setdefault(name, set()).add((outcome.resumed_at or 0, number))
    return pairs


def _in_ratio(pairs: set[tuple[int, int]]) -> bool:
    """Return True if all pairs are equal numbers, or if several pairs have one ratio."""
    (step, number), *_ = pairs
    same = all(one * number == other * step for one, other in pairs)
    return same and (step == number or len(pairs) > 1)


# -- began from scratch ----------------------------------------------------------------------------


def _progress_by_files(
    golden: Sequence[tuple[str, bytes]], runs: Sequence[Sequence[tuple[str, bytes]]]
) -> list[int | None]:
    """Return how far each run had come when it resumed.

    This is the position in the golden run of the first file that the run rewrote with the same
    content. Files that every run writes, such as a configuration, show nothing. Neither do files
    that the golden run writes twice. The result is None for a run that wrote nothing.
    """
    told = [set(run) for run in runs if run]
    always = set.intersection(*told) if told else set()
    places = {
        item: index
        for index, item in enumerate(golden)
        if golden.count(item) == 1 and item not in always
    }
    order = {item: rank for rank, item in enumerate(sorted(places, key=places.__getitem__))}
    return [
        _first_of_the_rest({order[item] for item in run if item in order}, len(order))
        for run in runs
    ]


def _first_of_the_rest(written: set[int], count: int) -> int | None:
    """Return the first position if the run wrote every file from there to the last, else None.

    Files that differ in each run show nothing.
    """
    first = min(written, default=count)
    return first if written and len(written) == count - first else None


def from_scratch(
    outcomes: Sequence[CrashOutcome], progress: Sequence[int | None]
) -> Iterator[CrashOutcome]:
    """Yield the outcomes, with ``restarted`` for runs that lost a complete checkpoint.

    Such a run begins from scratch although a run from an earlier state did not. For the states of a
    second crash, the earlier states are the one from which the run resumed, and those before it.
    """
    resumed: dict[str | None, list[tuple[int, CrashOutcome]]] = {None: []}
    then: dict[str | None, list[tuple[int, CrashOutcome]]] = {}
    for outcome, reached in zip(outcomes, progress, strict=True):
        parent = outcome.state.parent
        earlier = resumed.setdefault(parent, list(then.get(parent, ())))
        before = _furthest(earlier, outcome)
        if reached == 0 and before is not None and outcome.verdict == "recovered":
            where = f"step {before.resumed_at}" if before.resumed_at is not None else "a checkpoint"
            detail = f"although a checkpoint had been complete before: {before.state.id} ({before.state.what}) resumed from {where}"
            outcome = dataclasses.replace(outcome, verdict="restarted", detail=detail)
        elif reached and outcome.verdict not in ("failed", "hung"):
            if not outcome.state.cut:  # one process: all earlier states are before this one
                earlier[:] = [max([*earlier, (reached, outcome)], key=operator.itemgetter(0))]
            else:
                earlier.append((reached, outcome))
        then[outcome.state.id] = list(earlier)
        yield outcome


def _furthest(
    resumed: Sequence[tuple[int, CrashOutcome]], outcome: CrashOutcome
) -> CrashOutcome | None:
    """Return the outcome that resumed from the latest step, of those before this state.

    With several ranks, a state is before a different one if no rank was further.
    """
    cut = outcome.state.cut
    best: tuple[int, CrashOutcome] | None = None
    for reached, one in resumed:
        is_before = all(mine <= theirs for mine, theirs in zip(one.state.cut, cut, strict=True))
        if is_before and (best is None or reached > best[0]):
            best = (reached, one)
    return None if best is None else best[1]

"""Judge each resumed run by the golden run, then all runs together."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.privacy import error_text
from ..errors import BadArgument
from ..oracles.state import first_difference
from ..runs.diagnosis import align, first_divergence, lost_generator
from ..runs.traces import Divergence
from .compare_files import Endings
from .model import CrashOutcome, CrashState, RunResult, Tree
from .resumption import mark_restarted, never_resumes

__all__ = ["CrashJudge", "from_scratch"]


class CrashJudge:
    """Judges resumed runs by the golden run: by the returned value and the trained parameters.

    The files at the end count if there is neither.
    """

    def __init__(
        self,
        golden: RunResult,
        *,
        rtol: float = 0.0,
        atol: float = 0.0,
        compare: Sequence[str] | None = None,
    ) -> None:
        self._golden = golden
        self._rtol = rtol
        self._atol = atol
        self._endings = Endings(golden, compare)
        self._second: RunResult | None = None
        if golden.value is None and not golden.trace.final and not golden.files:
            raise BadArgument(
                "mlchaos.explore_crashes: there is nothing to judge: the subject returned None, "
                "took no optimizer step of torch and "
                "left no file. Return the final state from it (model.state_dict(), the step, the "
                "metrics)"
            )

    @property
    def steps(self) -> int:
        """Return the number of steps of the golden run."""
        return len(self._golden.trace.steps)

    def differs(self, ran: RunResult) -> Divergence | None:
        """Return how a second complete run differs from the golden run, or None.

        Files that differ are left out of later comparisons if only files are compared.
        """
        if ran.error is not None or ran.hung is not None:
            how = (
                f"raised {error_text(ran.error)}"
                if ran.error
                else f"did not end: it was {ran.hung}"
            )
            return Divergence(len(ran.trace.steps), "returned value", f"the second run {how}")
        self._second = ran
        self._endings.narrow(ran)
        found = self._difference(ran.value, ran)
        if found is None:
            return self._endings.difference(self.steps, ran)
        return first_divergence(self._golden.trace, ran.trace, 0) or found

    @property
    def notes(self) -> list[str]:
        """Return notes on files that were not compared."""
        return self._endings.notes

    def agrees(self, ran: RunResult) -> bool:
        """Return True if a complete run in a different process has as many steps and the same
        result."""
        whole = ran.error is None and ran.hung is None and len(ran.trace.steps) == self.steps
        return (
            whole
            and self._difference(ran.value, ran) is None
            and self._endings.difference(self.steps, ran) is None
        )

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """Return the verdict on one resumed run alone."""
        at = self._resumed_at(ran)
        recovery = ran.trace.steps[0].began if ran.trace.steps else None
        found = CrashOutcome(
            state,
            "recovered",
            resumed_at=at,
            recovery_time=recovery,
            duration=ran.duration,
            output=ran.output,
            place=ran.place,
            completed=ran.completed,
            read=ran.read,
            steps=len(ran.trace.steps),
            ended_early=ran.trace.stopped,
            could_end_early=ran.trace.matched_from is not None and not ran.trace.stopped,
        )
        if ran.hung is not None:
            early = (
                ""
                if ran.cut is None
                else f"stopped early, after {ran.cut:.1f} s, where an earlier run hung"
            )
            return dataclasses.replace(
                found, verdict="hung", error=TimeoutError(f"it was {ran.hung}"), detail=early
            )
        if ran.error is not None:
            return dataclasses.replace(found, verdict="failed", error=ran.error)
        found = dataclasses.replace(found, lost_steps=self._lost(found, state))
        if ran.trace.stopped:
            return found
        found = dataclasses.replace(found, left=ran.files, texts=ran.texts)
        difference = self._difference(ran.value, ran)
        if difference is None:
            return found
        divergence = (
            first_divergence(self._golden.trace, ran.trace, at)
            if self.steps
            else lost_generator(self._golden.trace, ran.trace)
        )
        divergence = divergence or difference
        diverged = dataclasses.replace(
            found, verdict="diverged", divergence=divergence, value=ran.value
        )
        markers = _markers(ran.value, self._golden.value) if at else {}
        if markers and self._difference(_without(ran.value, markers), ran) is None:
            return dataclasses.replace(diverged, markers=markers)
        return diverged

    def _lost(self, outcome: CrashOutcome, state: CrashState) -> int | None:
        """Return the steps that a run from this state takes again."""
        if not self.steps:
            return None
        again = outcome.steps - (self.steps - state.until)
        return max(0, again if outcome.resumed_at is None else state.until - outcome.resumed_at)

    def follow(self, outcome: CrashOutcome, state: CrashState) -> CrashOutcome:
        """Return the outcome of a state from which a run goes as the one of this outcome did."""
        ends = outcome.verdict not in ("failed", "hung")
        return dataclasses.replace(
            outcome,
            state=state,
            follows=outcome.state.id,
            lost_steps=self._lost(outcome, state) if ends else outcome.lost_steps,
        )

    def wanted(self, outcomes: Sequence[CrashOutcome]) -> Tree | None:
        """Return None, because the golden run is enough to judge all others."""
        return None

    def learn(self, tree: Tree, ran: RunResult) -> None:
        """Ignore a run. None is wanted."""

    def finish(self, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
        """Return the verdicts on all runs, in order of time, after comparing them with each other."""
        judged = [
            _with_files(*pair)
            for pair in self._endings.judged(self.steps, list(_judged_markers(outcomes)))
        ]
        if never_resumes(self._golden, self._second, judged):
            return mark_restarted(self._golden, judged)
        progress = (
            [o.resumed_at for o in judged]
            if self.steps
            else _progress_by_files(self._golden.completed, [o.completed for o in judged])
        )
        return list(from_scratch(judged, progress))

    def undecided(
        self, outcomes: Sequence[CrashOutcome], *, is_whole: bool = False
    ) -> list[CrashOutcome]:
        """Return the failures that a further run could turn into recoveries.

        In these, only markers differ, and one of the markers was seen at one step only. Or no run
        has resumed so far. ``is_whole`` says that all states were tried.
        """
        if is_whole:
            return []
        pairs = _marker_pairs(outcomes)
        return [
            o
            for o in outcomes
            if o.from_scratch
            or (o.verdict == "diverged" and any(len(pairs[name]) == 1 for name in o.markers))
        ]

    def again(self, outcome: CrashOutcome, rtol: float, atol: float) -> CrashOutcome:
        """Judge a divergence again with these tolerances."""
        if outcome.verdict != "diverged" or (
            outcome.divergence is not None and outcome.divergence.component == "files"
        ):
            return outcome
        if (
            first_difference(
                outcome.value, self._golden.value, rtol=rtol, atol=atol, through_files=True
            )
            is not None
        ):
            return outcome
        return dataclasses.replace(outcome, verdict="recovered", divergence=None)

    def _resumed_at(self, ran: RunResult) -> int | None:
        if not self.steps or (
            not ran.trace.steps and (ran.error is not None or ran.hung is not None)
        ):
            return None
        return align(self._golden.trace, ran.trace)

    # -- the same end ------------------------------------------------------------------------------

    def _difference(self, value: object, ran: RunResult) -> Divergence | None:
        """Return how the returned value or the trained parameters differ, or None."""
        golden = self._golden
        words = first_difference(
            value,
            golden.value,
            rtol=self._rtol,
            atol=self._atol,
            name="returned value",
            through_files=True,
        )
        if words is not None:
            return Divergence(self.steps, "returned value", words)
        trained = golden.trace.final.get("parameters"), ran.trace.final.get("parameters")
        if None not in trained and trained[0] != trained[1] and not (self._rtol or self._atol):
            return Divergence(self.steps, "parameters", "the trained parameters differ at the end")
        return None


def _with_files(outcome: CrashOutcome, found: Divergence | None) -> CrashOutcome:
    return (
        outcome
        if found is None
        else dataclasses.replace(outcome, verdict="diverged", divergence=found)
    )


# -- markers: entries that show where a run resumed ------------------------------------------------


def _markers(value: Any, golden: object, path: str = "") -> dict[str, int]:
    """Return the whole numbers that are 0 in the golden run's value and greater here.

    An example is the epoch at which a run started.
    """
    if isinstance(golden, Mapping) and isinstance(value, Mapping):
        inside = [(f"{path}[{key!r}]", value[key], golden[key]) for key in golden if key in value]
    elif (
        isinstance(golden, (list, tuple))
        and isinstance(value, (list, tuple))
        and len(value) == len(golden)
    ):
        inside = [
            (f"{path}[{index}]", *pair)
            for index, pair in enumerate(zip(value, golden, strict=True))
        ]
    else:
        is_one = type(golden) is int and type(value) is int and golden == 0 < value
        return {path: value} if is_one else {}
    return {
        name: number
        for where, mine, theirs in inside
        for name, number in _markers(mine, theirs, where).items()
    }


def _without(value: Any, markers: Mapping[str, int], path: str = "") -> Any:
    """Return the value with its markers set to 0, as in the golden run."""
    if path in markers:
        return 0
    if isinstance(value, Mapping) and any(name.startswith(path) for name in markers):
        return {key: _without(held, markers, f"{path}[{key!r}]") for key, held in value.items()}
    if type(value) in (list, tuple) and any(name.startswith(path) for name in markers):
        return type(value)(
            _without(held, markers, f"{path}[{index}]") for index, held in enumerate(value)
        )
    return value


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

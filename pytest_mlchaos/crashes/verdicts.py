"""Judge each resumed run by the golden run, then all runs together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.privacy import error_text
from ..errors import BadArgument
from ..oracles.state import first_difference
from ..runs.diagnosis import align, first_divergence, lost_generator
from ..runs.traces import Divergence
from .compare_files import Endings
from .model import CrashOutcome, CrashState, RunFacts, RunResult, Tree
from .resumption import had_save, has_resumed
from .saves import Saves
from .together import GoldenFacts, finish, undecided

__all__ = ["CrashJudge"]


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
        self._notes: list[str] = []
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
        return self._notes

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

    @property
    def divides(self) -> bool:
        """Return True if shards can divide the states: the journal has all that verdicts need."""
        return True

    def wanted(self, outcomes: Sequence[CrashOutcome]) -> Tree | None:
        """Return None, because the golden run is enough to judge all others."""
        return None

    def learn(self, tree: Tree, ran: RunResult) -> None:
        """Ignore a run. None is wanted."""

    def alone(self, outcome: CrashOutcome) -> CrashOutcome:
        """Return an outcome with what is known without the runs from other states."""
        return outcome

    @property
    def facts(self) -> GoldenFacts:
        """Return the facts of the golden run for the verdict on all runs."""
        golden = self._golden
        rules, final = self._endings.rules, not self.divides
        return GoldenFacts(self.steps, golden.saved, golden.completed, rules, final)

    def with_facts(
        self, outcomes: Sequence[CrashOutcome], start: Tree, saves: Saves
    ) -> list[CrashOutcome]:
        """Return the outcomes, each with the facts that the verdict on all runs needs.

        Args:
            outcomes: The verdict on each run alone.
            start: The directory's content before the golden run.
            saves: The saves of the golden run.
        """
        return [
            dataclasses.replace(
                outcome,
                facts=RunFacts(
                    self._endings.differences(outcome),
                    had_save(self._golden, outcome),
                    has_resumed(self._golden, self._second, outcome, start),
                    *saves.facts(outcome.state),
                ),
            )
            for outcome in outcomes
        ]

    def finish(
        self,
        outcomes: Sequence[CrashOutcome],
        start: Tree | None = None,
        saves: Saves | None = None,
    ) -> list[CrashOutcome]:
        """Return the verdicts on all runs, in order of time, after comparing them with each other.

        Args:
            outcomes: The verdict on each run alone.
            start: The directory's content before the golden run. By default that of ``start#0``.
            saves: The saves of the golden run, by default none.
        """
        if start is None:
            first = (one.state.tree for one in outcomes if one.state.id == "start#0")
            start = next(first, {})
        told = self.with_facts(outcomes, start, saves or Saves(()))
        judged, self._notes = finish(self.facts, told)
        return judged

    def undecided(
        self, outcomes: Sequence[CrashOutcome], *, is_whole: bool = False
    ) -> list[CrashOutcome]:
        """Return the failures that a further run could turn into recoveries.

        In these, only markers differ, and one of the markers was seen at one step only. Or no run
        has resumed so far. ``is_whole`` says that all states were tried.
        """
        return [] if is_whole else undecided(outcomes)

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

"""Judge resumed worlds of ranks by the golden one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...oracles.state import first_difference
from ...runs.diagnosis import first_divergence
from ...runs.traces import Divergence, Trace
from ..model import CrashOutcome, CrashState, RunResult, tree_key
from ..resumption import mark_restarted, never_resumes
from ..verdicts import CrashJudge, from_scratch

__all__ = ["ResizedWorldJudge", "WorldJudge"]


class WorldJudge(CrashJudge):
    """Judges all ranks of a world together, and names the rank that went wrong first."""

    def __init__(self, golden: RunResult, **options: Any) -> None:
        super().__init__(golden, **options)
        self._unrepeated: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """Return notes on files that were not compared, and on failures that did not repeat."""
        found = [f"{way} (from {state})" for way, state in self._unrepeated.items()]
        if not found:
            return super().notes
        return [
            *super().notes,
            f"a world failed once, and not when it was run again from the same files, so the crash "
            f"alone is not the cause: it {'; it '.join(found[:3])}",
        ]

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """Return the verdict on one resumed world alone."""
        if ran.unrepeated is not None:
            self._unrepeated.setdefault(ran.unrepeated, state.id)
        found = super().outcome(state, ran)
        if ran.rank is not None:
            return dataclasses.replace(found, rank=ran.rank)
        if found.divergence is None:
            return found
        ranks = _first_ranks(self._golden.traces, ran.traces, found.resumed_at, found.divergence)
        if not ranks or len(ranks) == len(ran.traces):
            return found
        names = f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks))}"
        detail = f"in {names}" + (f"; {found.divergence.detail}" if found.divergence.detail else "")
        return dataclasses.replace(
            found,
            rank=ranks[0],
            divergence=dataclasses.replace(found.divergence, detail=detail),
        )


def _first_ranks(
    golden: Sequence[Trace], traces: Sequence[Trace], at: int | None, found: Divergence
) -> list[int]:
    """Return the ranks whose own steps first differ where those of the world do."""
    if len(golden) != len(traces) or at is None:
        return []
    own = [first_divergence(*pair, at) for pair in zip(golden, traces, strict=True)]
    return [
        rank
        for rank, one in enumerate(own)
        if one is not None and (one.step, one.component) == (found.step, found.component)
    ]


class ResizedWorldJudge(WorldJudge):
    """Judges worlds that resume with a different number of ranks.

    Their ends differ from the golden one by design: each rank has other data. So they are compared
    with the ends of the worlds of that size that resume from a whole save (the directory when the
    next step began), or from the start. A crash must not lead to a different end.

    Fidelity: if all worlds of that size end wrongly, this is not seen. Without steps of torch, only
    errors and hangs are.
    """

    def __init__(self, golden: RunResult, **options: Any) -> None:
        super().__init__(_of_rank_0(golden), **options)

    def differs(self, ran: RunResult) -> Divergence | None:
        """Return how a second complete run differs from the golden run, or None."""
        return super().differs(_of_rank_0(ran))

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """Return the verdict on one resumed world alone: whether it has ended."""
        found = super().outcome(state, _of_rank_0(ran))
        if found.verdict in ("failed", "hung"):
            return found
        end = (ran.value, ran.trace.final.get("parameters"))
        return dataclasses.replace(
            found, verdict="recovered", divergence=None, value=end, markers={}, left=None
        )

    def finish(self, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
        """Return the verdicts on all worlds, after comparing them with each other."""
        known = [outcome.value for outcome in outcomes if self._is_whole(outcome)]
        judged = [self._compared(outcome, known) for outcome in outcomes]
        if not self.steps:
            return judged
        if never_resumes(self._golden, self._second, judged):
            return mark_restarted(self._golden, judged)
        return list(from_scratch(judged, [outcome.resumed_at for outcome in judged]))

    def undecided(self, outcomes: Sequence[CrashOutcome]) -> list[CrashOutcome]:
        """Return the failures that the outcome of a further state could turn into recoveries."""
        # A state that was not tried may end as these do, and may be a whole save.
        return [one for one in outcomes if one.from_scratch or one.verdict == "diverged"]

    def _is_whole(self, outcome: CrashOutcome) -> bool:
        return outcome.verdict == "recovered" and (
            tree_key(outcome.state.tree) in self._golden.complete
        )

    def _compared(self, outcome: CrashOutcome, known: Sequence[Any]) -> CrashOutcome:
        if not self.steps or outcome.verdict != "recovered" or not known:
            return outcome
        mine = outcome.value
        if any(self._is_same(mine, theirs) for theirs in known):
            return outcome
        detail = "no world of this size ends so if it resumes from a whole save"
        found = Divergence(self.steps, "returned value", detail)
        return dataclasses.replace(outcome, verdict="diverged", divergence=found)

    def _is_same(self, one: Any, other: Any) -> bool:
        exact = not (self._rtol or self._atol)
        if exact and one[1] != other[1]:
            return False
        return first_difference(one[0], other[0], rtol=self._rtol, atol=self._atol) is None


def _of_rank_0(ran: RunResult) -> RunResult:
    """Return a run with the steps of rank 0 alone, which worlds of each size have."""
    return dataclasses.replace(ran, trace=ran.traces[0]) if ran.traces else ran

"""Judge resumed worlds of ranks by the golden one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ...runs.diagnosis import first_divergence
from ...runs.traces import Divergence, Trace
from ..model import CrashOutcome, CrashState, RunResult
from ..verdicts import CrashJudge

__all__ = ["WorldJudge"]


class WorldJudge(CrashJudge):
    """Judges all ranks of a world together, and names the rank that went wrong first."""

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """Return the verdict on one resumed world alone."""
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

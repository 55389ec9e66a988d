"""Judge resumed worlds of ranks by the golden one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from ...errors import NonDeterministicSubject
from ...oracles.state import first_difference
from ...runs.diagnosis import first_divergence
from ...runs.traces import Divergence, Trace
from ..model import CrashOutcome, CrashState, RunResult, StepEnd, Tree, tree_key
from ..resumption import mark_restarted, never_resumes
from ..saves import Saves, with_saves
from ..together import from_scratch
from ..verdicts import CrashJudge

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
        detail = f"in {_names(ranks)}"
        detail += f"; {found.divergence.detail}" if found.divergence.detail else ""
        return dataclasses.replace(
            found,
            rank=ranks[0],
            divergence=dataclasses.replace(found.divergence, detail=detail),
        )


def _names(ranks: Sequence[int]) -> str:
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks))}"


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


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    """How a world of a different size ended.

    Attributes:
        value: The returned values.
        trace: The steps of all ranks together.
        traces: The steps of each rank.
        steps: The steps that rank 0 took.
    """

    value: Any
    trace: Trace
    traces: tuple[Trace, ...]
    steps: int

    @staticmethod
    def of(ran: RunResult) -> _End:
        return _End(ran.value, ran.trace, ran.traces, len(ran.traces[0].steps))


class ResizedWorldJudge(WorldJudge):
    """Judges worlds that resume with a different number of ranks.

    Their ends differ from the golden one by design: each rank has other data. So they are compared
    with worlds of their own size that resume from a whole save: from the directory at the start,
    when all ranks had ended a step, or at the end. Such worlds are run when they are needed
    (``wanted``), those of the steps around a crash state first. Before one is blamed, the world
    from the start runs twice, to show that such worlds are deterministic.

    A save may be complete and replaced within one step, for example if a thread writes it. No whole
    save shows how a world that resumes from it ends. Then all worlds with this number of steps must
    end alike.

    Fidelity: if all worlds of that size end wrongly, this is not seen. Without steps of torch, only
    errors and hangs are.
    """

    def __init__(self, golden: RunResult, **options: Any) -> None:
        super().__init__(_of_rank_0(golden), **options)
        self._whole = {tree_key(one.tree): one for one in reversed(golden.step_ends)}
        self._ends: dict[frozenset[object], _End | None] = {}
        """The ends of the worlds that resumed from whole saves, or None if they failed."""
        self._is_repeated = False
        """True if a second world from the start has shown that its end does not vary."""

    def differs(self, ran: RunResult) -> Divergence | None:
        """Return how a second complete run differs from the golden run, or None."""
        return super().differs(_of_rank_0(ran))

    def outcome(self, state: CrashState, ran: RunResult) -> CrashOutcome:
        """Return the verdict on one resumed world alone: whether it has ended."""
        found = super().outcome(state, _of_rank_0(ran))
        if found.verdict in ("failed", "hung"):
            return found
        return dataclasses.replace(
            found,
            verdict="recovered",
            divergence=None,
            resumed_at=None,
            lost_steps=None,
            value=_End.of(ran),
            markers={},
            left=None,
        )

    # -- whole saves -------------------------------------------------------------------------------

    def wanted(self, outcomes: Sequence[CrashOutcome]) -> Tree | None:
        """Return a whole save from which a world must resume to judge these, or None."""
        if not self.steps:
            return None
        self._take(outcomes)
        judged = [outcome for outcome in outcomes if outcome.verdict == "recovered"]
        for outcome in judged:
            for one in self._nearest(outcome.state):
                if self._is_known(outcome):
                    break
                if tree_key(one.tree) not in self._ends:
                    return one.tree
        start = self._start()
        if not judged or start is None:
            return None
        first = self._ends.get(tree_key(start))
        if first is None:
            return None if tree_key(start) in self._ends else start
        is_blamed = any(not self._has_peer(outcome.value) for outcome in judged)
        return start if is_blamed and not self._is_repeated else None

    def learn(self, tree: Tree, ran: RunResult) -> None:
        """Take the end of a world that resumed from a whole save.

        Raises:
            NonDeterministicSubject: A second world from the same save ended differently.
        """
        key = tree_key(tree)
        end = _End.of(ran) if ran.error is None and ran.hung is None else None
        first = self._ends.setdefault(key, end)
        if first is end:
            return
        self._is_repeated = True
        if first is None or end is None or not self._is_same(first, end):
            raise NonDeterministicSubject(
                f"two worlds of a different size (resume_ranks=) differ though nothing crashed, "
                f"while those of {len(self._golden.traces)} ranks are equal. Seed what is random, "
                f"or allow the difference: explore_crashes(..., rtol=..., atol=...)",
                step=0,
                component="returned value",
            )

    def _take(self, outcomes: Sequence[CrashOutcome]) -> None:
        """Take the ends of crash states that are whole saves."""
        for outcome in outcomes:
            key = tree_key(outcome.state.tree)
            if key in self._whole and outcome.state.parent is None and not outcome.follows:
                end = outcome.value if outcome.verdict == "recovered" else None
                self._ends.setdefault(key, end)

    def _start(self) -> Tree | None:
        ends = self._golden.step_ends
        return ends[0].tree if ends else None

    def _nearest(self, state: CrashState) -> list[StepEnd]:
        """Return the whole saves: the last one before a state, the first one after it, the rest."""
        whole = list(reversed(self._whole.values()))
        before = [one for one in whole if one.step < state.step]
        after = [one for one in whole if one.step >= state.step]
        return [*before[-1:], *after[:1], *reversed(before[:-1]), *after[1:]]

    def _peers(self, end: _End) -> list[_End]:
        """Return the ends of worlds from whole saves that took as many steps."""
        return [one for one in self._ends.values() if one is not None and one.steps == end.steps]

    def _has_peer(self, end: _End) -> bool:
        known = (one for one in self._ends.values() if one is not None)
        return any(self._is_same(end, one) for one in known)

    def _is_known(self, outcome: CrashOutcome) -> bool:
        """Return True if no further whole save is needed to judge this end.

        Either there is an equal end, or the worlds from the steps around it were run, and one of
        those took as many steps and ended differently.
        """
        if self._has_peer(outcome.value):
            return True
        around = self._nearest(outcome.state)[:2]
        are_run = all(tree_key(one.tree) in self._ends for one in around)
        return are_run and bool(self._peers(outcome.value))

    # -- verdicts ----------------------------------------------------------------------------------

    @property
    def divides(self) -> bool:
        """Return False: ends are compared with those of other worlds, whose values stay here."""
        return False

    def finish(
        self,
        outcomes: Sequence[CrashOutcome],
        start: Tree | None = None,
        saves: Saves | None = None,
    ) -> list[CrashOutcome]:
        """Return the verdicts on all worlds, after comparing them with those from whole saves."""
        if self.steps:
            self._take(outcomes)
            usual = self._usual(outcomes)
            outcomes = [self._compared(self._placed(outcome), usual) for outcome in outcomes]
        told = self.with_facts(outcomes, start or {}, saves or Saves(()))
        if not self.steps:
            return with_saves(told)
        if never_resumes(self._golden.saved, self.steps, told):
            return with_saves(mark_restarted(self._golden.saved, told))
        return with_saves(list(from_scratch(told, [one.resumed_at for one in told])))

    def undecided(
        self, outcomes: Sequence[CrashOutcome], *, is_whole: bool = False
    ) -> list[CrashOutcome]:
        """Return the failures that a further run could turn into recoveries.

        ``is_whole`` says that all states were tried.
        """
        return [
            outcome
            for outcome in outcomes
            if (outcome.from_scratch and not is_whole)
            or (outcome.verdict == "diverged" and not self._is_decided(outcome, is_whole))
        ]

    def _is_decided(self, outcome: CrashOutcome, is_whole: bool) -> bool:
        if self._is_known(outcome):
            return True
        return is_whole and self._ends.keys() >= self._whole.keys()

    def alone(self, outcome: CrashOutcome) -> CrashOutcome:
        """Return an outcome with what is known without the runs from other states."""
        if not self.steps or outcome.verdict != "recovered" or not self._is_known(outcome):
            return outcome
        return self._compared(self._placed(outcome), ())

    def _placed(self, outcome: CrashOutcome) -> CrashOutcome:
        """Add the step from which a world resumed, counted as a world of this size does."""
        start = self._start()
        first = None if start is None else self._ends.get(tree_key(start))
        if outcome.verdict != "recovered" or first is None:
            return outcome
        at = first.steps - outcome.value.steps
        if at < 0:
            return outcome
        lost = max(0, outcome.state.until - at) if first.steps == self.steps else None
        return dataclasses.replace(outcome, resumed_at=at, lost_steps=lost)

    def _compared(self, outcome: CrashOutcome, usual: Sequence[_End]) -> CrashOutcome:
        if outcome.verdict != "recovered" or self._has_peer(outcome.value):
            return outcome
        peers = self._peers(outcome.value)
        if peers:
            return self._diverged(outcome, peers, "resumes from a whole save")
        mine = outcome.value.steps
        alike = [end for end in usual if end.steps == mine]
        if any(self._is_same(outcome.value, end) for end in alike):
            return outcome
        return self._diverged(outcome, alike, f"takes {mine} steps")

    def _usual(self, outcomes: Sequence[CrashOutcome]) -> list[_End]:
        """Return for each number of steps that no whole save leads to how most worlds end."""
        classes: dict[int, list[_End]] = {}
        for outcome in outcomes:
            if outcome.verdict == "recovered" and not self._peers(outcome.value):
                classes.setdefault(outcome.value.steps, []).append(outcome.value)
        return [max(alike, key=functools.partial(self._count, alike)) for alike in classes.values()]

    def _count(self, ends: Sequence[_End], one: _End) -> int:
        return sum(self._is_same(one, other) for other in ends)

    def _diverged(self, outcome: CrashOutcome, peers: Sequence[_End], how: str) -> CrashOutcome:
        mine, words = outcome.value, f"no world of this size ends so if it {how}"
        rank, found = None, None
        if peers:
            found = first_divergence(peers[0].trace, mine.trace, 0)
        if found is None:
            found = Divergence(self.steps, "returned value", words)
        else:
            ranks = _first_ranks(peers[0].traces, mine.traces, 0, found)
            is_part = 0 < len(ranks) < len(mine.traces)
            rank = ranks[0] if is_part else None
            parts = [f"in {_names(ranks)}"] if is_part else []
            parts += [found.detail] if found.detail else []
            step = found.step + (outcome.resumed_at or 0)
            found = dataclasses.replace(found, step=step, detail="; ".join([*parts, words]))
        return dataclasses.replace(outcome, verdict="diverged", divergence=found, rank=rank)

    def again(self, outcome: CrashOutcome, rtol: float, atol: float) -> CrashOutcome:
        """Judge a divergence again with these tolerances."""
        if outcome.verdict != "diverged":
            return outcome
        for end in self._ends.values():
            if end is not None and (
                first_difference(outcome.value.value, end.value, rtol=rtol, atol=atol) is None
            ):
                return dataclasses.replace(outcome, verdict="recovered", divergence=None)
        return outcome

    def _is_same(self, one: _End, other: _End) -> bool:
        exact = not (self._rtol or self._atol)
        if exact and one.trace.final.get("parameters") != other.trace.final.get("parameters"):
            return False
        return first_difference(one.value, other.value, rtol=self._rtol, atol=self._atol) is None


def _of_rank_0(ran: RunResult) -> RunResult:
    """Return a run with the steps of rank 0 alone, which worlds of each size have."""
    return dataclasses.replace(ran, trace=ran.traces[0]) if ran.traces else ran

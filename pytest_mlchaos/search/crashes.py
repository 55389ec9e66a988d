"""The exploration of crash states: one golden run that is recorded, and a resumed run from every state that it went through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from ..core.crashes import CrashOutcome, CrashState, Divergence, Ran, Trace
from ..core.values import did_you_mean
from ..engine.crashes.hosts import Golden, InProcess
from ..engine.crashes.runs import Stop
from ..errors import BadArgument, GoldenRunFailed
from .crash_states import CrashStates

__all__ = ["Exploration", "Judge", "Plan", "explore", "recorded_golden", "second_run"]
__tracebackhide__ = True  # a failure shows the user's code, not ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be explored: see ``mlchaos.explore_crashes``. ``only``: the one state that is wanted."""

    torn_writes: bool = True
    power: bool = False
    horizon: int | None = None
    depth: int = 1
    only: str | None = None


class Judge(Protocol):
    """What an exploration needs to know of a run; ``oracles`` has one."""

    def differs(self, ran: Ran) -> Divergence | None:
        """How a second run of the whole, from the start, differs from the golden one."""
        ...

    def outcome(self, state: CrashState, ran: Ran) -> CrashOutcome:
        """The verdict on a resumed run. Called in the order of time."""
        ...

    def matching(self, trace: Trace) -> int:
        """How many of a resumed run's last steps were the golden run's."""
        ...


@dataclasses.dataclass(frozen=True)
class Exploration:
    """What was found: the golden run, and an outcome for each state."""

    golden: Golden
    states: Sequence[CrashState]
    outcomes: Sequence[CrashOutcome]


def recorded_golden(host: InProcess) -> Golden:
    """The golden run, which must come to its end, and write something."""
    golden = host.golden(None)
    ran = golden.ran
    if ran.error is not None:
        words = str(ran.error).partition("\n")[0]
        raise GoldenRunFailed(f"the subject fails without any fault: {type(ran.error).__name__}: {words}") from ran.error
    if ran.hung is not None:
        raise GoldenRunFailed(f"the subject did not end in time without any fault; it stood {ran.hung}: raise timeout=")
    return golden


def explore(host: InProcess, golden: Golden, second: Ran, judge: Judge, plan: Plan) -> Exploration:
    """Resume from every crash state of a golden run. ``second``: the run from the first of them."""
    maker = CrashStates(host.contents, torn=plan.torn_writes, power=plan.power)
    known: set[frozenset[object]] = set()
    states = maker.states(golden.start, golden.changes, known)
    if plan.only is not None:
        states = [_wanted(states, plan.only)]
    outcomes = list(_resumed(host, states, judge, plan, {"start#0": second}))
    for _ in range(1, plan.depth):
        deeper = [further for state in states for further in _behind(host, maker, state, known)]
        outcomes += _resumed(host, deeper, judge, plan)
        states = [*states, *deeper]
    return Exploration(golden, states, outcomes)


def _resumed(
    host: InProcess, states: Sequence[CrashState], judge: Judge, plan: Plan, known: Mapping[str, Ran] = MappingProxyType({})
) -> Iterator[CrashOutcome]:
    on_step = _until_settled(judge, plan.horizon)
    for number, state in enumerate(states, 2):
        yield judge.outcome(state, known.get(state.id) or host.resume(state.tree, number, on_step))


def _until_settled(judge: Judge, horizon: int | None) -> Callable[[Trace], None]:
    def on_step(trace: Trace) -> None:
        if horizon is not None and judge.matching(trace) >= horizon:
            raise Stop

    return on_step


def _behind(host: InProcess, maker: CrashStates, state: CrashState, known: set[frozenset[object]]) -> list[CrashState]:
    """The states that a second crash would leave, in the run that resumes from this one."""
    again = host.again(state.tree)
    return [
        dataclasses.replace(one, id=f"{state.id}>{one.id}", what=f"{one.what}, in the run that resumes from {state.id}")
        for one in maker.states(None, again.changes, known, state.id)
    ]


def _wanted(states: Sequence[CrashState], name: str) -> CrashState:
    for state in states:
        if state.id == name:
            return state
    close = did_you_mean(name, [state.id for state in states])
    raise BadArgument(f"crash: expected state to be one of the {len(states)} that this run goes through but got {name!r}{close}")


def second_run(host: InProcess, golden: Golden) -> Ran:
    """The whole once more, from the start: what a crash before anything was written leads to, and whether the subject is deterministic."""
    return host.resume(golden.start or {}, 1, lambda trace: None)

"""Report the part of an exploration that one shard has tried."""

from __future__ import annotations

import dataclasses

from ..core.shard_entries import Part
from ..core.shards import Shard
from .baseline import Baseline
from .budget import LeftOut, kinds_of
from .explore import Exploration
from .parts import ShardPart

__all__ = ["own_share", "part_of"]


def own_share(found: Exploration) -> Exploration:
    """Return the results for the states of a shard alone, as if there were no others."""
    own = [state for state in found.states if state.id in found.own]
    tried = {outcome.state.id for outcome in found.part}
    untried = [state for state in own if state.id not in tried]
    return dataclasses.replace(found, states=own, outcomes=found.part, untried=untried)


def part_of(
    found: Exploration,
    baseline: Baseline,
    shard: Shard,
    left_out: LeftOut | None,
    root: str,
    *,
    require_all: bool,
) -> ShardPart:
    """Return what the journal of a shard says about its part.

    Args:
        found: The results of this shard.
        baseline: The golden run.
        shard: The shard.
        left_out: Those of its own states that it did not try.
        root: The work directory.
        require_all: True if all states must be tried.
    """
    own = own_share(found)
    deeper = {state.id for state in found.deeper}
    part = Part(
        number=0,
        shard=str(shard),
        states=tuple(state.id for state in found.states if state.id not in deeper),
        deeper=tuple(state.id for state in found.deeper),
        untried=tuple(state.id for state in own.untried),
        untried_kinds=left_out.untried_kinds if left_out is not None else (),
        tried_kinds=kinds_of([outcome.state for outcome in found.part]),
        limit=left_out.text if left_out is not None else "",
        require_all=require_all,
        fresh=found.fresh,
        doubts=tuple(found.doubts),
        unseen=tuple(found.unseen),
    )
    files = frozenset(baseline.golden.ran.files)
    return ShardPart(
        part=part, golden=baseline.judge.facts, files=files, outcomes=found.part, root=root
    )

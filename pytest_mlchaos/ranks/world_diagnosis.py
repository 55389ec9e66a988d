"""Diagnose why a world ended in a different state.

Find the first step and the first component in which the traces of its ranks differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..runs.diagnosis import SETTINGS, align, first_divergence
from ..runs.traces import Divergence, Trace

__all__ = ["Traces", "from_each_other", "from_golden"]

Traces = Mapping[int, Trace]
"""The steps of each rank's last attempt, by its number."""


def from_golden(golden: Traces, ranks: Traces) -> str:
    """Return the ranks that first differ from their golden runs, with a line for each cause.

    Return "" if the steps show none. Ranks exchange gradients, so any later difference in any rank
    may be a consequence.
    """
    found: dict[int, Divergence] = {}
    for rank, trace in ranks.items():
        expected = golden.get(rank)
        if expected is not None and expected.steps and trace.steps:
            divergence = first_divergence(expected, trace, align(expected, trace))
            if divergence is not None:
                found[rank] = divergence
    first = min((divergence.step for divergence in found.values()), default=0)
    causes: dict[Divergence, list[int]] = {}
    for rank, divergence in found.items():
        if divergence.step == first:
            causes.setdefault(divergence, []).append(rank)
    return "".join(
        f"  {_name_ranks(numbers)}: {_describe(divergence)}\n"
        for divergence, numbers in causes.items()
    )


def from_each_other(ranks: Traces, one: int, other: int) -> str:
    """Return a line about the first step at which the parameters of two ranks differ, or its cause.

    Data, random numbers and buffers differ between ranks by design. Sharded states differ from the
    start. Return "" if the steps show nothing.
    """
    mine, theirs = ranks.get(one), ranks.get(other)
    if mine is None or theirs is None or not mine.steps or not theirs.steps:
        return ""
    if len(mine.steps) != len(theirs.steps):
        return (
            f"  they took {len(mine.steps)} and {len(theirs.steps)} steps in their last attempt\n"
        )
    states = [
        (here.digests, there.digests) for here, there in zip(mine.steps, theirs.steps, strict=True)
    ]
    states.append((mine.final, theirs.final))
    apart = _first(states, "parameters")
    if apart is None:
        return ""
    if not apart:
        return "  they first differ before the first step: parameters\n"
    cause = next(
        (name for name in (*SETTINGS, "optimizer state") if _first(states, name) == apart - 1), ""
    )
    if cause:
        return f"  they first differ at step {apart - 1}: {cause}\n"
    return f"  they first differ after step {apart - 1}: parameters\n"


def _first(
    states: Sequence[tuple[Mapping[str, bytes], Mapping[str, bytes]]], name: str
) -> int | None:
    """Return the first index at which a component differs."""
    pairs = enumerate((here.get(name), there.get(name)) for here, there in states)
    return next((place for place, pair in pairs if None not in pair and pair[0] != pair[1]), None)


def _name_ranks(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    return f"ranks {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _describe(divergence: Divergence) -> str:
    detail = f" ({divergence.detail})" if divergence.detail else ""
    return f"{divergence.component}, first at step {divergence.step}{detail}"

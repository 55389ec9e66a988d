"""Define the states of a rank after each step, as digests, and where those of two ranks part."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

__all__ = ["BUFFERS", "GENERATORS", "Key", "Parting", "StepStates", "equal_keys", "partings"]

BUFFERS = "buffers"
GENERATORS = "generator"


class Key(NamedTuple):
    """A part of the state that is digested by itself.

    Attributes:
        component: ``parameters``, ``optimizer state``, ``buffers`` or ``generator``.
        name: The name of the tensor or of the generator.
        piece: The piece of a sharded tensor that the rank holds. Empty for a whole tensor.
    """

    component: str
    name: str
    piece: str = ""


@dataclasses.dataclass(slots=True)
class StepStates:
    """The digests of the state after each step, and at the end.

    Attributes:
        layouts: The different lists of keys. Optimizers that take turns have one each.
        steps: For each step, and for the end, the number of its layout, and a digest for each key.
        is_complete: False if there were too many digests to keep. Later steps are missing.
    """

    layouts: list[tuple[Key, ...]] = dataclasses.field(default_factory=list)
    steps: list[tuple[int, array[int]]] = dataclasses.field(default_factory=list)
    is_complete: bool = True

    def when(self, step: int) -> str:
        """Return in words when this state was."""
        return f"after step {step}" if step < len(self.steps) - 1 else "at the end"

    def items(self, step: int) -> Iterator[tuple[Key, int]]:
        """Yield the keys of a step with their digests."""
        layout, digests = self.steps[step]
        return zip(self.layouts[layout], digests, strict=True)


class Parting(NamedTuple):
    """A part of the state in which two ranks differ: its first step, and the last one."""

    key: Key
    first: int
    last: int
    when: str


def partings(one: StepStates, other: StepStates) -> list[Parting]:
    """Return where two ranks differ, in the order of the steps and of the keys.

    What only one of them holds, for example its own piece of a sharded tensor, is not compared.
    """
    found: dict[Key, Parting] = {}
    for step, (mine, theirs) in enumerate(zip(one.steps, other.steps, strict=False)):
        if mine == theirs and one.layouts[mine[0]] == other.layouts[theirs[0]]:
            continue
        held = dict(other.items(step))
        for key, digest in one.items(step):
            if held.get(key, digest) != digest:
                known = found.get(key, Parting(key, step, step, one.when(step)))
                found[key] = known._replace(last=step)
    return sorted(found.values(), key=lambda parting: parting.first)


def equal_keys(states: Sequence[StepStates]) -> Collection[Key]:
    """Return what is equal in all ranks after every step."""
    first, *others = states
    held = {key for layout in first.layouts for key in layout}
    for other in others:
        if len(other.steps) != len(first.steps):
            return set()
        held -= {parting.key for parting in partings(first, other)}
    return held

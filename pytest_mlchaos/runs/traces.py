"""What a training run did, step by step, as digests; and the first difference between two such traces. Plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

__all__ = ["Divergence", "GeneratorMark", "StepRecord", "Trace"]


@dataclasses.dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step started from: digests by component; what data it was given; seconds since the run's start."""

    digests: Mapping[str, bytes]
    data: tuple[bytes, ...] = ()
    batches: tuple[bytes, ...] = ()
    began: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class GeneratorMark:
    """A state of a global random number generator that the subject asked for (``read``), or that it set or seeded.

    ``step``: how many steps were complete then.
    """

    name: str
    state: bytes
    step: int
    read: bool


@dataclasses.dataclass(slots=True)
class Trace:
    """The steps of one run, and what was trained in it at its end."""

    steps: list[StepRecord] = dataclasses.field(default_factory=list)
    final: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    epochs: list[int] = dataclasses.field(default_factory=list)
    """The steps before which a loader was started."""
    passes: int = 0
    """Forward passes of models in training."""
    random: Mapping[str, tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    """The global random number generators, at the run's start and at its end."""
    idle: frozenset[str] = frozenset()
    """The generators that nothing draws from between steps but loaders without workers, for a seed that they have no use for."""
    stopped: bool = False
    """Whether it was cut off at its horizon."""
    marks: set[GeneratorMark] = dataclasses.field(default_factory=set)
    """The states of generators that the subject read or set."""
    restored: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """By generator, the last state that was set before the first step, unless it was read just before (and so put back)."""
    held: frozenset[bytes] = frozenset()
    """Of a run that took no step: digests of the parameters that it loaded, or made an optimizer for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference from the golden run: its step, its component, and details in words."""

    step: int
    component: str
    detail: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.component}" + (f" ({self.detail})" if self.detail else "")

"""Define the trace of a training run, and the first difference between two traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

__all__ = ["Divergence", "GeneratorMark", "StepRecord", "Trace"]


@dataclasses.dataclass(frozen=True, slots=True)
class StepRecord:
    """The state before one step.

    Attributes:
        digests: Digests by component.
        data: Digests of the model's inputs.
        batches: Digests of the loader's batches.
        began: The seconds since the run's start.
    """

    digests: Mapping[str, bytes]
    data: tuple[bytes, ...] = ()
    batches: tuple[bytes, ...] = ()
    began: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class GeneratorMark:
    """A state of a global random number generator that the subject read (``read``), set or seeded.

    Attributes:
        name: The generator.
        state: A digest of its state.
        step: The number of complete steps at that moment.
        read: True if the subject read the state.
    """

    name: str
    state: bytes
    step: int
    read: bool


@dataclasses.dataclass(slots=True)
class Trace:
    """The steps of one run, and its trained state at the end."""

    steps: list[StepRecord] = dataclasses.field(default_factory=list)
    final: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    epochs: list[int] = dataclasses.field(default_factory=list)
    """The numbers of steps before which a loader was started."""
    epoch_steps: int | None = None
    """The number of steps of the longest epoch of a loader, or None if no loader was started."""
    passes: int = 0
    """The number of forward passes of models in training."""
    random: Mapping[str, tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    """The global random number generators at the run's start and at its end."""
    idle: frozenset[str] = frozenset()
    """The generators that nothing uses between steps.

    Loaders without workers do not count: they draw a seed and do not use it.
    """
    stopped: bool = False
    """True if the run was stopped at its horizon. What it did after that does not count."""
    stopped_after: int = 0
    """For a stopped run, the number of the golden run's steps at that moment."""
    matched_from: frozenset[str] | None = None
    """The files that the run had opened when its horizon could end it, or None before that."""
    marks: set[GeneratorMark] = dataclasses.field(default_factory=set)
    """The states of generators that the subject read or set."""
    restored: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """By generator, the last state that was set before the first step.

    A state that the subject only restored is left out.
    """
    held: frozenset[bytes] = frozenset()
    """For a run without steps, digests of the parameters that were loaded or in an optimizer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference from the golden run: its step, its component, and details in words."""

    step: int
    component: str
    detail: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.component}" + (f" ({self.detail})" if self.detail else "")

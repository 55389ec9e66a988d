"""Describe what a fault does to the links between the ranks of a world.

A link is the network path between two ranks, with all its connections. Each of its two directions
has its own condition, because a fault takes effect at a visit of the sender.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

__all__ = ["Condition", "Cut", "Direction", "Flip", "Links", "Slow"]

Direction: TypeAlias = "tuple[int, int]"
"""The sender and the receiver of a direction of a link."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes, and no end is notified. What was sent arrives after the healing."""

    heal_after: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Slow:
    """Bytes arrive late: after ``delay`` and up to ``jitter`` seconds, at a limited rate."""

    delay: float = 0.0
    bandwidth: float = math.inf
    jitter: float = 0.0
    seed: int = 0
    heal_after: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Flip:
    """Bits of the payload of the next message are inverted. Headers are not changed."""

    bits: int = 1
    seed: int = 0


Condition: TypeAlias = "Cut | Slow | Flip"


class Links(Protocol):
    """The links of one rank, as a fault sees them: ``visit.attributes["links"]``."""

    def impose(
        self,
        directions: Sequence[Direction],
        condition: Condition,
        took_effect: Callable[..., object],
    ) -> None:
        """Give the directions a condition, from the next byte that is sent.

        Args:
            directions: Their sender is usually this rank.
            condition: The condition. It replaces an earlier one of the same kind.
            took_effect: A function that is called once, with details by name, when the condition
                has an effect: a byte is held, is late, or is changed.
        """
        ...

"""What happened in a supervised run, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .journal import Strike

__all__ = ["Attempt", "Record", "tell"]


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One life of the subject: how it ended, and how many optimizer steps it took."""

    ended: str
    steps: int


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A subject that returned, after as many attempts as it took."""

    value: Any
    attempts: tuple[Attempt, ...]
    faults: tuple[Strike, ...]
    duration: float
    parameters: Sequence[Sequence[Any]] = ()


def tell(attempts: Sequence[Attempt]) -> str:
    """Attempts in words, a line each."""
    return "\n".join(f"  attempt {number}: {attempt.steps} steps, then {attempt.ended}" for number, attempt in enumerate(attempts, 1))

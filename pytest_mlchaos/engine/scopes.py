"""Scopes: strikes that are put down to a part of a trial, such as one request of many; and what is part of an operation already."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..core.journal import Strike

__all__ = ["OURS", "Scope", "about", "inside", "put_down", "scope", "within"]

_SCOPE: ContextVar[Scope | None] = ContextVar("mlchaos_scope", default=None)
_INSIDE: ContextVar[str] = ContextVar("mlchaos_inside", default="")
OURS = "mlchaos"
"""The operation that stands for all that the tool itself does with files."""
inside = _INSIDE.get
"""The operation that is under way here, if one is; a context travels into the tasks and loops that it starts."""


@contextlib.contextmanager
def within(operation: str) -> Iterator[None]:
    """What is done here is part of an operation that has been counted (of none, where it is empty).

    Within :data:`OURS` it is the tool's own work, and nobody's visit.
    """
    token = _INSIDE.set(operation)
    try:
        yield
    finally:
        _INSIDE.reset(token)


@dataclasses.dataclass(slots=True)
class Scope:
    """What struck in a part of a trial, the tasks and threads that it started (with a copy of its context) included."""

    details: Mapping[str, Any]
    strikes: list[Strike] = dataclasses.field(default_factory=list)
    ended: float | None = None
    """When the last of them was over: seconds on the trial's clock."""


@contextlib.contextmanager
def scope(**details: Any) -> Iterator[Scope]:
    """Put what strikes inside down to one part of the trial; ``details`` go into the journal with each strike."""
    opened = Scope(details)
    token = _SCOPE.set(opened)
    try:
        yield opened
    finally:
        _SCOPE.reset(token)


def about() -> Mapping[str, Any]:
    """What is said of each strike here."""
    here = _SCOPE.get()
    return here.details if here is not None else {}


def put_down(strike: Strike, ended: float) -> None:
    """Remember a strike in the scope in which it happened."""
    here = _SCOPE.get()
    if here is not None:
        here.strikes.append(strike)
        here.ended = max(ended, here.ended or ended)

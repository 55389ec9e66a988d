"""Scopes: strikes that are put down to a part of a trial, such as one request of many."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..core.journal import Strike

__all__ = ["Scope", "about", "put_down", "scope"]

_SCOPE: ContextVar[Scope | None] = ContextVar("mlchaos_scope", default=None)


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

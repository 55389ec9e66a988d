"""Scopes: strikes that are put down to a part of a trial, such as one request of many; and what is part of an operation already."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..core.journal import Strike

__all__ = ["OURS", "Scope", "about", "forget_all", "inside", "put_down", "scope", "within", "within_finalizer"]

_SCOPE: ContextVar[Scope | None] = ContextVar("mlchaos_scope", default=None)
_INSIDE: ContextVar[str] = ContextVar("mlchaos_inside", default="")
OURS = "mlchaos"
"""The operation that stands for all that the tool itself does with files."""
_finalizing = threading.local()
_finalizers = 0
"""How many are running, in whatever thread: mostly none, which is asked faster."""


def inside() -> str:
    """The operation that is under way here, if one is; a context travels into the tasks and loops that it starts."""
    return OURS if _finalizers and getattr(_finalizing, "on", False) else _INSIDE.get()


@contextlib.contextmanager
def within_finalizer() -> Iterator[None]:
    """As ``within(OURS)``, for what the garbage collector may call at any moment.

    In the middle of setting a context variable, say: setting one then frees what the interpreter is working on (CPython 3.11 crashes).
    """
    global _finalizers
    _finalizing.on = True
    _finalizers += 1
    try:
        yield
    finally:
        _finalizers -= 1
        _finalizing.on = False


@contextlib.contextmanager
def within(operation: str) -> Iterator[None]:
    """What is done here is part of an operation that has been counted (of none, where it is empty).

    Within :data:`OURS` it is the tool's own work, and nobody's visit. In a finalizer of ours it is that already, and nothing may be set.
    """
    if _finalizers and getattr(_finalizing, "on", False):
        yield
        return
    before = _INSIDE.get()
    _INSIDE.set(operation)
    try:
        yield
    finally:
        _INSIDE.set(before)


def forget_all() -> None:
    """Between two tests nothing is under way, whatever an interruption has left here."""
    global _finalizers
    _finalizing.on, _finalizers = False, 0
    _INSIDE.set("")
    _SCOPE.set(None)


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
    before = _SCOPE.get()
    _SCOPE.set(opened)
    try:
        yield opened
    finally:
        _SCOPE.set(before)


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

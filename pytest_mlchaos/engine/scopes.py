"""What is part of an operation that is under way already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["KEPT_COPIES", "OURS", "forget_all", "inside", "within", "within_finalizer"]

_INSIDE: ContextVar[str] = ContextVar("mlchaos_inside", default="")
OURS = "mlchaos"
"""The operation that stands for all that the tool itself does with files."""
KEPT_COPIES = "mlchaos-golden-"
"""What the names of our own directories begin with: no part of any subject."""
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

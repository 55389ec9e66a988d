"""What is part of an operation that is under way already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["GOLDEN_COPY_PREFIX", "INTERNAL_OPERATION", "forget_all", "inside", "within"]

_INSIDE: ContextVar[str] = ContextVar("mlchaos_inside", default="")
INTERNAL_OPERATION = "mlchaos"
"""The operation that stands for all that the tool itself does with files."""
GOLDEN_COPY_PREFIX = "mlchaos-golden-"
"""What the names of our own directories begin with: no part of any subject."""


def inside() -> str:
    """The operation that is under way here, if one is; a context travels into the tasks and loops that it starts."""
    return _INSIDE.get()


@contextlib.contextmanager
def within(operation: str) -> Iterator[None]:
    """What is done here is part of an operation that has been counted (of none, where it is empty).

    Within ``INTERNAL_OPERATION`` it is the tool's own work, and nobody's visit.
    """
    before = _INSIDE.get()
    _INSIDE.set(operation)
    try:
        yield
    finally:
        _INSIDE.set(before)


def forget_all() -> None:
    """Between two tests nothing is under way, whatever an interruption has left here."""
    _INSIDE.set("")

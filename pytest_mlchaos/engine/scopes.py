"""Mark code that is part of an operation, so that it makes no visits of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["GOLDEN_COPY_PREFIX", "INTERNAL_OPERATION", "forget_all", "inside", "within"]

_INSIDE: ContextVar[str] = ContextVar("mlchaos_inside", default="")
INTERNAL_OPERATION = "mlchaos"
"""The operation that stands for all file operations of the plugin itself."""
GOLDEN_COPY_PREFIX = "mlchaos-golden-"
"""The prefix of the names of our own directories, which are not part of any subject."""


def inside() -> str:
    """Return the current operation, or an empty text.

    Tasks and loops that start inside inherit it.
    """
    return _INSIDE.get()


@contextlib.contextmanager
def within(operation: str) -> Iterator[None]:
    """Mark the code inside as part of a counted operation, or of none if it is empty.

    Code within ``INTERNAL_OPERATION`` is the plugin's own work, and makes no visits.
    """
    before = _INSIDE.get()
    _INSIDE.set(operation)
    try:
        yield
    finally:
        _INSIDE.set(before)


def forget_all() -> None:
    """Clear the operation between two tests, because an interruption may have left one."""
    _INSIDE.set("")

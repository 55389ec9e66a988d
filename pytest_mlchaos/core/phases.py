"""Announce when faults affect the running code, and when a golden run makes it free of them.

A recorder of coverage listens. Without one, an announcement costs one comparison.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .journal import Strike

__all__ = ["Listener", "faulted", "listened_by", "quiet", "raised", "struck"]


class Listener(Protocol):
    """Receives what happens in a trial."""

    def struck(self, strike: Strike) -> None:
        """Receive a strike, in the thread in which it is added to the journal."""

    def quiet(self, on: bool) -> None:
        """Receive the start and the end of code in which no fault strikes."""

    def faulted(self, on: bool) -> None:
        """Receive the start and the end of code that meets the effects of a fault."""

    def raised(self, error: BaseException) -> None:
        """Receive an error that comes from a fault."""


_listener: Listener | None = None  # A session runs one trial at a time.


@contextlib.contextmanager
def listened_by(listener: Listener | None) -> Iterator[None]:
    """Let ``listener`` receive the announcements inside."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def struck(strike: Strike) -> None:
    """Announce a strike."""
    if _listener is not None:
        _listener.struck(strike)


def raised(error: BaseException) -> None:
    """Announce an error that comes from a fault, before its traceback is dropped."""
    if _listener is not None:
        _listener.raised(error)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run code inside in which no fault strikes, for example a golden run."""
    listener = _listener
    if listener is None:
        yield
        return
    listener.quiet(True)
    try:
        yield
    finally:
        listener.quiet(False)


@contextlib.contextmanager
def faulted() -> Iterator[None]:
    """Run code inside that meets a fault which is not in the journal, for example a crash state."""
    listener = _listener
    if listener is None:
        yield
        return
    listener.faulted(True)
    try:
        yield
    finally:
        listener.faulted(False)

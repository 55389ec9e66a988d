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


_listeners: tuple[Listener, ...] = ()  # A session runs one trial at a time.


@contextlib.contextmanager
def listened_by(listener: Listener | None) -> Iterator[None]:
    """Let ``listener`` receive the announcements inside, too."""
    global _listeners
    before = _listeners
    if listener is not None:
        _listeners = (*before, listener)
    try:
        yield
    finally:
        _listeners = before


def struck(strike: Strike) -> None:
    """Announce a strike."""
    for listener in _listeners:
        listener.struck(strike)


def raised(error: BaseException) -> None:
    """Announce an error that comes from a fault, before its traceback is dropped."""
    for listener in _listeners:
        listener.raised(error)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run code inside in which no fault strikes, for example a golden run."""
    listeners = _listeners
    for listener in listeners:
        listener.quiet(True)
    try:
        yield
    finally:
        for listener in listeners:
            listener.quiet(False)


@contextlib.contextmanager
def faulted() -> Iterator[None]:
    """Run code inside that meets a fault which is not in the journal, for example a crash state."""
    listeners = _listeners
    for listener in listeners:
        listener.faulted(True)
    try:
        yield
    finally:
        for listener in listeners:
            listener.faulted(False)

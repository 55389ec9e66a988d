"""Report how far an exploration is. The plugin listens, and an area need not know it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

__all__ = ["Step", "followed_by", "report_step"]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """The progress of an exploration.

    Attributes:
        what: What is counted, for example ``crash states``.
        done: The number that was tried.
        total: The largest number to try, or 0 if it is not known.
        bad: The number of failures so far.
        note: The current phase, for example ``shrinking``.
    """

    what: str
    done: int
    total: int = 0
    bad: int = 0
    note: str = ""

    @property
    def bad_word(self) -> str:
        """Return the word for a failure: a schedule fails, and a crash state is bad."""
        return "bad" if self.what == "crash states" else "failing"


_listener: Callable[[Step], None] | None = None


@contextlib.contextmanager
def followed_by(listener: Callable[[Step], None] | None) -> Iterator[None]:
    """Let ``listener`` receive the steps of the explorations inside."""
    global _listener  # A session has one terminal.
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def report_step(what: str, done: int, total: int = 0, bad: int = 0, note: str = "") -> None:
    """Send one step to the listener, if there is one. Any thread may call this."""
    listener = _listener
    if listener is not None:
        listener(Step(what, done, total, bad, note))

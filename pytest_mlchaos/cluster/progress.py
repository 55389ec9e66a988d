"""Show how far a session on many workers is, in one line."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from ..core.validation import count_text
from .allocation import Allocation
from .engine import Event, Gone

__all__ = ["ProgressLine"]

SECONDS_BETWEEN_LINES = 0.2
SECONDS_BETWEEN_PLAIN_LINES = 30.0
"""In a log, each line stays."""


class ProgressLine:
    """Rewrite one line of a terminal, or write a line to a log now and then.

    Args:
        allocation: The shards.
        stream: The terminal or the log.
    """

    def __init__(self, allocation: Allocation, stream: TextIO = sys.stderr) -> None:
        self._allocation = allocation
        self._stream = stream
        self._terminal = stream.isatty()
        self._every = SECONDS_BETWEEN_LINES if self._terminal else SECONDS_BETWEEN_PLAIN_LINES
        self._last = time.monotonic() - (self._every if self._terminal else 0)
        self._gone = 0
        self._shown = False

    def __call__(self, workers: int, event: Event | None) -> None:
        """Note an event, and write the line if it is time."""
        self._gone += isinstance(event, Gone)
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            text = self.text(workers)
            self._stream.write(f"\r{text}\x1b[K" if self._terminal else f"{text}\n")
            self._stream.flush()
            self._shown = True

    def text(self, workers: int) -> str:
        """Return the line."""
        done, count = len(self._allocation.done), self._allocation.count
        text = f"shards {done}/{count} · {count_text(workers, 'worker')}"
        return f"{text} · {self._gone} lost" if self._gone else text

    def end(self) -> None:
        """Remove the line from a terminal."""
        if self._terminal and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

"""The base class of recorders that look at a directory."""

from __future__ import annotations

import os
import threading

__all__ = ["RecorderBase"]


class RecorderBase:
    """Looks at a directory on request.

    A look records the changes since the last one. Looks take turns, in the process that created the
    recorder, until it is closed. ``drained`` counts them.
    """

    def __init__(self) -> None:
        self.drained = 0
        self._lock = threading.RLock()
        self._draining = self._closed = False
        self._owner = os.getpid()

    def close(self) -> None:
        """Stop following the directory. A thread that is about to look finds no events."""
        with self._lock:
            self._closed = True

    def drain(self, *, closely: bool = False) -> None:
        """Record the changes since the last time. ``closely`` includes changes without an event.

        A forked process shares the queue of events, so it must leave them to its parent.
        """
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._draining or self._closed:
                return
            self._draining = True
            self.drained += 1
            try:
                self._look(closely)
            finally:
                self._draining = False

    def _look(self, closely: bool) -> None:
        raise NotImplementedError

"""What all that follow a directory have in common: they look one at a time, in the process that they began in, until they are closed."""

from __future__ import annotations

import os
import threading

__all__ = ["RecorderBase"]


class RecorderBase:
    """Looks when it is asked to. ``drained``: how often it has."""

    def __init__(self) -> None:
        self.drained = 0
        self._lock = threading.RLock()
        self._draining = self._closed = False
        self._owner = os.getpid()

    def close(self) -> None:
        """Follow it no longer. A thread that is about to look finds nothing."""
        with self._lock:
            self._closed = True

    def drain(self, *, closely: bool = False) -> None:
        """Take in what has happened since the last time. ``closely``: also what is not told of.

        A process that was forked off this one has the same queue of events: it must leave them to this one.
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

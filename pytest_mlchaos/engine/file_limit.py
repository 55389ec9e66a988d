"""Limit the size of files by the kernel, and lift the limit while the plugin itself writes.

``RLIMIT_FSIZE`` applies to the whole process. A write stops at exactly this byte, in any language,
and the next one fails with ``EFBIG`` and the signal SIGXFSZ.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["FILE_LIMIT", "FileLimit"]


class FileLimit:
    """The limit of this process, if there is one. Of several limits, the smallest holds.

    Attributes:
        size: The size that a file may reach, or None without a limit.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        self._limits: list[tuple[int, Callable[[], None]]] = []
        self._lifted = 0
        self._paused = False
        self._lock = threading.Lock()
        self._before: tuple[int, int] | None = None
        self._handler: Any = None

    @contextlib.contextmanager
    def limit(self, size: int, met: Callable[[], None]) -> Iterator[None]:
        """Limit files to ``size`` bytes inside, and call ``met`` when a write has met the limit."""
        entry = size, met
        with self._lock:
            if not self._limits:
                self._begin()
            self._limits.append(entry)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._limits.remove(entry)
                self._apply()
                if not self._limits:
                    self._end()

    def _begin(self) -> None:
        import resource

        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._paused = False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGXFSZ, self._note)

    def _end(self) -> None:
        self._before = None
        if self._handler is not None:
            signal.signal(signal.SIGXFSZ, self._handler)
            self._handler = None

    def _note(self, number: int, frame: object) -> None:
        """Tell the limits that a write has met. The signal arrives after the write has failed."""
        for size, met in [*self._limits]:
            if size == self.size:
                met()

    def pause(self, paused: bool) -> None:
        """Lift the limit while the subject does not run."""
        if self.size is not None and paused != self._paused:
            with self._lock:
                self._paused = paused
                self._apply()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Lift the limit inside, for writes that it does not mean."""
        if self.size is None:
            yield
            return
        with self._lock:
            self._lifted += 1
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._lifted -= 1
                self._apply()

    def _apply(self) -> None:
        import resource

        self.size = min((size for size, _ in self._limits), default=None)
        if self._before is None:
            return
        soft, hard = self._before
        if self.size is not None and not self._lifted and not self._paused:
            soft = self.size if soft == resource.RLIM_INFINITY else min(soft, self.size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FILE_LIMIT = FileLimit()
"""The limit of this process. A forked process inherits it."""

"""Limit the size of files by the kernel, and lift the limit while the plugin itself writes.

``RLIMIT_FSIZE`` applies to the whole process. A write stops at exactly this byte, in any language,
and the next one fails with ``EFBIG`` and the signal SIGXFSZ.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["FILE_LIMIT", "FileLimit"]


class FileLimit:
    """The limit of this process, if there is one.

    Attributes:
        size: The size that a file may reach, or None without a limit.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        self._lifted = 0
        self._paused = False
        self._lock = threading.Lock()
        self._before: tuple[int, int] = (-1, -1)

    @property
    def is_possible(self) -> bool:
        """Return True if the system has this limit, with a signal that says that it was met."""
        return sys.platform == "linux" and hasattr(signal, "SIGXFSZ")

    @contextlib.contextmanager
    def limit(self, size: int, met: Callable[[], None]) -> Iterator[None]:
        """Limit files to ``size`` bytes inside, and call ``met`` when a write has met the limit."""
        import resource

        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        in_main = threading.current_thread() is threading.main_thread()
        before: Any = signal.SIG_IGN

        def note(number: int, frame: object) -> None:
            met()

        if in_main:
            before = signal.signal(signal.SIGXFSZ, note)
        self.size, self._lifted, self._paused = size, 0, False
        self._apply()
        try:
            yield
        finally:
            self.size = None
            self._apply()
            if in_main:
                signal.signal(signal.SIGXFSZ, before if before is not None else signal.SIG_IGN)

    def pause(self, paused: bool) -> None:
        """Lift the limit while the subject does not run."""
        if self.size is not None and paused != self._paused:
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

        soft, hard = self._before
        if self.size is not None and not self._lifted and not self._paused:
            soft = self.size if soft == resource.RLIM_INFINITY else min(soft, self.size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FILE_LIMIT = FileLimit()
"""The limit of this process. A forked process inherits it."""

"""What a process starts with besides memory and disk: its working directory, its environment, and nobody who handles its signals."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from ..core.interrupts import deferred, handle, handler

__all__ = ["NOTICES", "ProcessState"]

NOTICES = tuple(name for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""The signals by which a process is told that its end is near, the most usual first."""
_SIGNALS = tuple(signal.Signals[name] for name in NOTICES)


class ProcessState:
    """The working directory, the environment and the signal handlers as they are now; as a context, they come back at its end."""

    def __init__(self) -> None:
        self._here = os.getcwd()
        self._environment = dict(os.environ)
        self._handlers = {number: handler(number) for number in _SIGNALS}

    def restore(self) -> None:
        """Make all as it was."""
        with deferred():
            with contextlib.suppress(FileNotFoundError):
                os.chdir(self._here)  # by its name: another directory may have it now
            if dict(os.environ) != self._environment:
                os.environ.clear()
                os.environ.update(self._environment)
            if threading.current_thread() is threading.main_thread():
                for number, before in self._handlers.items():
                    if before is not None and handler(number) is not before:  # None: not ours to set (C code's)
                        handle(number, before)

    def __enter__(self) -> ProcessState:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

"""Save and restore the working directory, the environment and the signal handlers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

from ..core.interrupts import deferred, handle, handler

__all__ = ["NOTICES", "ProcessState"]

NOTICES = tuple(
    name for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""The signals that announce the end of a process, the most common first."""
_SIGNALS = tuple(signal.Signals[name] for name in NOTICES)


class ProcessState:
    """The current working directory, environment and signal handlers.

    As a context manager, it restores them at the end.
    """

    def __init__(self) -> None:
        self._here = os.getcwd()
        self._environment = _environment()
        self._handlers = {number: handler(number) for number in _SIGNALS}

    def restore(self) -> None:
        """Restore the saved state."""
        with deferred():
            with contextlib.suppress(FileNotFoundError):
                # By its name, because a new directory may have the name now.
                os.chdir(self._here)
            if _environment() != self._environment:
                os.environ.clear()
                os.environ.update(
                    {os.fsdecode(name): os.fsdecode(it) for name, it in self._environment.items()}
                )
            if threading.current_thread() is threading.main_thread():
                for number, before in self._handlers.items():
                    # None is a handler of C code, which cannot be set.
                    if before is not None and handler(number) is not before:
                        handle(number, before)

    def __enter__(self) -> ProcessState:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


def _environment() -> dict[Any, Any]:
    """Return a copy of the environment, encoded if possible: decoding it takes most of the time."""
    encoded = getattr(os.environ, "_data", None)
    return dict(encoded if isinstance(encoded, dict) else os.environ)

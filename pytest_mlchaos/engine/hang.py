"""Make child processes hang. Only their main thread hangs, so that other threads still work."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from ..core.interrupts import handle, handler
from .patching import Patches

__all__ = ["hang", "let_children_hang"]

_SIGNAL = getattr(signal, "SIGRTMAX", 0) - (3 if hasattr(signal, "SIGRTMAX") else 0)
"""A real-time signal that no scheduler sends."""
_sleep = time.sleep


def let_children_hang(patches: Patches) -> None:
    """Install in this process the handler that ``hang`` needs. Forked processes inherit it."""
    if not _SIGNAL or threading.current_thread() is not threading.main_thread():
        return
    owner, before = os.getpid(), handler(_SIGNAL)

    def wait_for_ever(number: int, frame: object) -> None:
        while os.getpid() != owner:
            _sleep(3600)

    patches.on_undo(lambda: handle(_SIGNAL, before))
    handle(_SIGNAL, wait_for_ever)


def hang(pid: int) -> None:
    """Block the main thread of a child process forever.

    Its other threads continue, and hand out finished items.

    A process that was not forked from here is stopped as a whole.

    Raises:
        ProcessLookupError: The process has ended.
    """
    os.kill(pid, _SIGNAL if _catches(pid) else signal.SIGSTOP)


def _catches(pid: int) -> bool:
    try:
        line = next(
            line
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigCgt:")
        )
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) >> (_SIGNAL - 1) & 1)

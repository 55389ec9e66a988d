"""End the orphans of an agent or a supervisor that was killed (Linux).

Such a process ends all below it, unless it gets SIGKILL. Then what is in a session of its own would
run on. The warm process, from which the killed one was forked, becomes its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from .process_tree import KILL_TIMEOUT_SECONDS, adopt_orphans, children

__all__ = ["POLL_SECONDS", "AdoptedOrphans"]

POLL_SECONDS = 0.1
"""The time between two looks, while this process has children."""


class AdoptedOrphans:
    """The children of this process that it has not started itself."""

    def __init__(self) -> None:
        adopt_orphans()
        self._own: set[int] = set()

    def add(self, pid: int) -> None:
        """Note a child that this process has started."""
        self._own.add(pid)

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Note the children that an import starts."""
        before = children()
        yield
        self._own |= set(children()) - set(before)

    def end(self) -> bool:
        """Kill the orphans. Return True if this process has children."""
        return bool(self._kill() or self._own)

    def end_all(self) -> None:
        """Kill the orphans, and wait for their end. Their own children may be the next ones."""
        until = time.monotonic() + KILL_TIMEOUT_SECONDS
        while self._kill() and time.monotonic() < until:
            time.sleep(0.001)

    def _kill(self) -> set[int]:
        found = set(children())
        self._own &= found
        for pid in found - self._own:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return found - self._own

"""Keep what a rank knows about the store where the ranks of its world meet."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from ..errors import PayloadMismatch

__all__ = ["WorldStore", "world_store"]

_SETTLE_SECONDS = 2.0
"""The time limit for the store's process to end or to stop."""


class WorldStore:
    """The store of this rank's world.

    Attributes:
        process: The process that hosts it. None if it is hosted elsewhere.
        is_replaced: True if the ranks meet at a store of their own instead.
    """

    def __init__(self) -> None:
        self.process: int | None = None
        self.is_replaced = False

    def end(self) -> None:
        """Kill the process of the store. Its connections are closed, and new ones are refused."""
        self._signal(signal.SIGKILL, "")

    def freeze(self) -> None:
        """Stop the process of the store. Its connections stay open, and no request is answered."""
        self._signal(signal.SIGSTOP, "T")

    def _signal(self, signum: int, state: str) -> None:
        process = self.process
        if process is None or self.is_replaced:
            raise PayloadMismatch(
                "the ranks do not meet at the store of mlchaos.world, so it cannot be struck. Use "
                "the MASTER_ADDR and MASTER_PORT that it sets"
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signum)
        until = time.monotonic() + _SETTLE_SECONDS
        while _state_of(process) not in (state, "", "Z") and time.monotonic() < until:
            time.sleep(0.001)


def _state_of(process: int) -> str:
    """Return the state of a process as in ``/proc``, or "" if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


world_store = WorldStore()

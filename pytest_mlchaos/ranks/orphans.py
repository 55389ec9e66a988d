"""Find the processes that ranks leave running, for ``assert_no_orphans`` (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import NamedTuple

from ..processes.process_tree import descendants, parents, process_name

__all__ = ["Left", "Orphans"]

POLL_SECONDS = 0.02


class Left(NamedTuple):
    """A process that a rank has left running, and the time at which it was started."""

    rank: int | None
    name: str
    started: float


class Orphans:
    """The processes below this one whose rank has ended.

    Args:
        grace: The time limit for them to end by themselves.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._ended: dict[int, int] = {}  # the ranks that have ended, by process id

    def add(self, pid: int, rank: int) -> None:
        """Note that a rank has ended."""
        self._ended[pid] = rank

    def wait(self, own: Container[int], reap: Callable[[], object]) -> list[Left]:
        """Wait until the orphans have ended. Return those that have not in time.

        Args:
            own: The processes that are not judged, with all below them: running ranks, and ours.
            reap: A function that collects the children that have ended.
        """
        until = time.monotonic() + self._grace
        while reap() and self._found(own) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return [
            Left(self._rank_of(pid), process_name(pid), _start(pid)) for pid in self._found(own)
        ]

    def _found(self, own: Container[int]) -> list[int]:
        found = []
        parent_of = dict(parents())
        for pid in descendants():
            above = pid
            while above in parent_of and above not in own:
                above = parent_of[above]
            if above not in own:
                found.append(pid)
        return found

    def _rank_of(self, pid: int) -> int | None:
        """Return the rank that started a process, by its group or its environment."""
        with contextlib.suppress(OSError):
            if (rank := self._ended.get(os.getpgid(pid))) is not None:
                return rank
        with contextlib.suppress(OSError, ValueError):
            for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if pair.startswith(b"RANK="):
                    return int(pair[5:])
        return None


def _start(pid: int) -> float:
    """Return the time at which a process was started, as of ``time.monotonic``."""
    now = time.monotonic()
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    return now

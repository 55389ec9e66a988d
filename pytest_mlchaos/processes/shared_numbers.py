"""Share numbers between a process and its parent, which reads them even if the process is killed.

A message would wake the receiver at each visit, which takes longer than most visits.
"""

from __future__ import annotations

import mmap

__all__ = ["PLACES", "SharedNumbers"]

PLACES = 64
"""The number of shared numbers."""


class SharedNumbers:
    """Some numbers of a process. Make them before the fork."""

    def __init__(self) -> None:
        # An anonymous map, which a forked process shares.
        self.numbers = memoryview(mmap.mmap(-1, 8 * PLACES)).cast("Q")

    def read(self) -> tuple[int, ...]:
        """Return the numbers."""
        return tuple(self.numbers)

"""Let the ranks of a recorded world write in the order of their numbers, where they may.

A rank that has listed a directory with the file of a different rank has learned of that file. So
no state exists in which the file is missing and the first rank went on. Ranks with high numbers
often write little and early. If they wait for the others, these learn only what they wait for.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

# By name, so that patches of the module's attributes do not affect them.
from time import monotonic, sleep
from typing import Any

from ..recording.audit_events import hear

__all__ = ["Turns"]

MAX_WAIT_SECONDS = 3.0
"""The time limit for one wait. A rank that waits for a file of a later one ends it."""
MAX_TOTAL_SECONDS = 6.0
_POLL_SECONDS = 0.002
_BYTES = 8
_NEVER_AGAIN = (1 << 63) - 1


class Turns:
    """The turns of one rank.

    Before its first change after a collective, it waits until each rank with a lower number has
    reached its next collective, or has ended.

    Args:
        store: A folder that the ranks share, outside of the work directory.
        root: The work directory.
        rank: The number of this rank.
    """

    def __init__(self, store: Path, root: Path, rank: int) -> None:
        self._root = str(root)
        self._paths = [store / f"turn-{number}" for number in range(rank)]
        self._others: list[Callable[[], int]] = []
        self._own = _number(store / f"turn-{rank}")
        self._on_waited: Callable[[], object] = lambda: None
        self._count = 0
        self._waited = 0  # before the first collective, no rank waits
        self._left = MAX_TOTAL_SECONDS

    @contextlib.contextmanager
    def taken(self, waited: Callable[[], object]) -> Iterator[None]:
        """Wait before changes of the work directory. All ranks must have made their object.

        ``waited`` is called after each wait, so that the change is known to be later.
        """
        self._on_waited = waited
        self._others = [_reader(path) for path in self._paths]
        with contextlib.ExitStack() as stack:
            stack.callback(self._tell, _NEVER_AGAIN)
            if self._others:
                stack.callback(hear(self._before))
            yield

    def meet(self) -> None:
        """Note that this rank has reached a collective."""
        self._count += 1
        self._tell(self._count)

    def _tell(self, count: int) -> None:
        self._own[:_BYTES] = count.to_bytes(_BYTES, "little")

    def _before(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._waited == self._count or not self._is_inside(event, arguments):
            return
        self._waited = self._count
        start = monotonic()
        until = start + min(MAX_WAIT_SECONDS, self._left)
        while monotonic() < until and any(count() <= self._count for count in self._others):
            sleep(_POLL_SECONDS)
        self._left -= monotonic() - start
        self._on_waited()

    def _is_inside(self, event: str, arguments: tuple[Any, ...]) -> bool:
        return (event == "open" or event.startswith("os.")) and any(
            isinstance(path, (str, bytes, PurePath))
            and os.path.abspath(os.fsdecode(path)).startswith(self._root)
            for path in arguments[:2]
        )


def _number(path: Path) -> mmap.mmap:
    """Make a number that other processes can read."""
    path.write_bytes(bytes(_BYTES))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _BYTES)


def _reader(path: Path) -> Callable[[], int]:
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), _BYTES, prot=mmap.PROT_READ)
    return lambda: int.from_bytes(shared[:], "little")

"""Decide when to look at a polled directory.

A few paths are checked often, and all of them now and then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

# By name, so that patches of the module's attributes do not affect it.
from time import perf_counter

from .listing import Status

__all__ = ["StatPoll"]

_RECENT_PATHS = 8
"""Check at most this many recently changed paths."""
_INVERSE_LOOK_SHARE = 20
"""Spend one part in this many of the time on looks without a cause."""
_FILE_CALL_SECONDS = 4e-6
"""A C++ call that takes longer may have opened a file."""
_LONG_CALL_SECONDS = 1e-5
"""A C++ call that takes longer may have written a file."""
_YOUNG_LOOK_SECONDS = 0.02
"""While files may change without a new status, look at the whole at most this often."""
_EXPENSIVE_LOOK_SECONDS = 0.002
"""A look that takes longer than this is not repeated at once."""

Stamp = tuple[int, int, int, int]


class StatPoll:
    """Checks the paths that change.

    These are recent directories and files, and files that are open for writing.

    ``cost`` is the duration of a look at the whole in seconds. ``marked`` is True if something is
    known to have changed, and ``young`` if files may change without a new status. ``has_more``
    returns True if a file was opened.
    """

    def __init__(self, root: str, has_more: Callable[[], bool]) -> None:
        self.cost = 0.0
        self.marked = self.young = False
        self._root = root
        self._has_more = has_more
        self._recent: dict[str, None] = {"": None}
        self._watched: list[tuple[str, Stamp]] = []
        self._open: list[tuple[str, Stamp]] = []
        self._asked = self._looked = perf_counter()
        self._next = self._takes = 0.0

    def due(self) -> bool:
        """Return True if it is time to look at the whole.

        This is called at each return of a function, so it usually costs next to nothing.
        """
        now = perf_counter()
        took, self._asked = now - self._asked, now
        if took < _FILE_CALL_SECONDS and now < self._next and not self.marked and not self._open:
            return False
        found = self._is_due(now, took)
        self._asked = perf_counter()
        return found

    def _is_due(self, now: float, took: float) -> bool:
        since = now - self._looked
        if self.cost > _EXPENSIVE_LOOK_SECONDS and since < self.cost:
            return False
        if self.marked or _differ(self._open) or (took > _FILE_CALL_SECONDS and self._has_more()):
            return True
        if now < self._next and took < max(_LONG_CALL_SECONDS, 2 * self._takes):
            return False
        if took > 2 * self.cost or since > max(
            _INVERSE_LOOK_SHARE * self.cost, _YOUNG_LOOK_SECONDS if self.young else 0
        ):
            return True
        return self.differ()

    def differ(self) -> bool:
        """Return True if the checked paths have changed since the last look."""
        began = perf_counter()
        found = _differ(self._watched)
        self._asked = perf_counter()
        self._takes = _smooth(self._takes, self._asked - began)
        self._next = self._asked + _INVERSE_LOOK_SHARE * self._takes
        return found

    def has_changed(self) -> bool:
        """Return the same as ``differ``, without its side effects, for the watcher thread."""
        return _differ(self._watched)

    def looked(self, took: float, *, marked: bool, young: bool) -> None:
        """Note a look at the whole.

        Args:
            took: Its duration in seconds.
            marked: True if something is known to have changed since.
            young: True if files may change without a new status.
        """
        self.marked, self.young = marked, young
        self._looked = self._asked = perf_counter()
        self._next = self._looked + _INVERSE_LOOK_SHARE * self._takes
        self.cost = _smooth(self.cost, took)

    def known(
        self, listing: Mapping[str, Status], changed: Iterable[str], writing: set[tuple[int, int]]
    ) -> None:
        """Note the status of the paths to check.

        Args:
            listing: The status of all paths.
            changed: The paths that have changed.
            writing: The files that are open in this process.
        """
        for path in changed:
            for one in (path, os.path.dirname(path)):
                self._recent.pop(one, None)
                self._recent[one] = None
        kept = [path for path in self._recent if path in listing and path][-_RECENT_PATHS:]
        self._recent = dict.fromkeys(["", *kept])
        self._watched = [
            self._stamped(path, listing[path]) for path in self._recent if path in listing
        ]
        paths = [
            path for path, status in listing.items() if status.is_file and status.key in writing
        ][:_RECENT_PATHS]
        self._open = [self._stamped(path, listing[path]) for path in paths]

    def _stamped(self, path: str, status: Status) -> tuple[str, Stamp]:
        return os.path.join(self._root, path) if path else self._root, (
            status.key[1],
            status.size,
            status.mtime,
            status.ctime,
        )


def _smooth(before: float, took: float) -> float:
    """Limit the growth of an estimate.

    A short load peak must not make the machine look slow.
    """
    return min(took, 1.5 * before) if before else took


def _differ(paths: list[tuple[str, Stamp]]) -> bool:
    for path, stamp in paths:
        try:
            status = os.lstat(path)
        except OSError:
            return True
        if (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) != stamp:
            return True
    return False

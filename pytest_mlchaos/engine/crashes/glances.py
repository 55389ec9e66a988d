"""When a directory that is compared is to be looked at: a few paths tell, at a glance, and now and then all of it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter  # by name: whoever patches the module's attributes leaves this alone

from .listing import Status

__all__ = ["Glances"]

_RECENT = 8
"""How many paths that have changed last are looked at."""
_SHARE = 20
"""Of the time that passes, one part in so many is spent on looks that nothing asks for."""
_SHORT, _LONG = 4e-6, 1e-5
"""s: a call of C++ that takes longer may have opened a file, or written one."""
_YOUNG = 0.02
_SLOW = 0.002
"""s: a look that takes longer than this is not taken twice in a row."""

Stamp = tuple[int, int, int, int]


class Glances:
    """Asks the paths that change: directories and files of late, and files that are open to be written.

    ``cost``: seconds that a look at the whole takes.
    """

    def __init__(self, root: str) -> None:
        self.cost = 0.0
        self._root = root
        self._recent: dict[str, None] = {"": None}
        self._watched: list[tuple[str, Stamp]] = []
        self._open: list[tuple[str, Stamp]] = []
        self._asked = self._glanced = self._looked = perf_counter()
        self._takes = 0.0

    def due(self, has_more: Callable[[], bool], *, marked: bool, young: bool) -> bool:
        """Whether it is time for a look at the whole. ``has_more``: asks whether something was opened."""
        now = perf_counter()
        took, self._asked = now - self._asked, now
        since = now - self._looked
        if self.cost > _SLOW and since < self.cost:
            return False
        if marked or (self._open and _differ(self._open)):
            return True
        if took > _SHORT and has_more():
            return True
        if took < max(_LONG, 2 * self._takes) and now - self._glanced < _SHARE * self._takes:
            self._asked = perf_counter()
            return False
        if took > 2 * self.cost or since > max(_SHARE * self.cost, _YOUNG if young else 0):
            return True
        return self.differ()

    def differ(self) -> bool:
        """Whether the paths that change have done so since the last look."""
        began = perf_counter()
        found = _differ(self._watched)
        self._glanced = self._asked = perf_counter()
        self._takes = self._glanced - began
        return found

    def looked(self, took: float) -> None:
        """The whole has been looked at."""
        self._looked = self._glanced = self._asked = perf_counter()
        self.cost = min(took, 1.5 * self.cost) if self.cost else took  # a busy machine is none that is slow

    def known(self, listing: Mapping[str, Status], changed: Iterable[str], writing: set[tuple[int, int]]) -> None:
        """What the paths are like now. ``writing``: the files that are open here."""
        for path in changed:
            for one in (path, os.path.dirname(path)):
                self._recent.pop(one, None)
                self._recent[one] = None
        kept = [path for path in self._recent if path in listing and path][-_RECENT:]
        self._recent = dict.fromkeys(["", *kept])
        self._watched = [self._stamped(path, listing[path]) for path in self._recent if path in listing]
        paths = [path for path, status in listing.items() if status.is_file and status.key in writing][:_RECENT]
        self._open = [self._stamped(path, listing[path]) for path in paths]

    def _stamped(self, path: str, status: Status) -> tuple[str, Stamp]:
        return os.path.join(self._root, path) if path else self._root, (status.key[1], status.size, status.mtime, status.ctime)


def _differ(paths: list[tuple[str, Stamp]]) -> bool:
    for path, stamp in paths:
        try:
            status = os.lstat(path)
        except OSError:
            return True
        if (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) != stamp:
            return True
    return False

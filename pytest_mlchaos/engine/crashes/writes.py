"""How many files a run completes: what tells the progress of one that takes no steps that anybody could see."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from . import inotify

__all__ = ["Writes"]


class Writes:
    """Counts the files that are closed behind a write, or moved into place, in the directories that there are at the start."""

    def __init__(self, root: Path) -> None:
        self._inotify = inotify.Inotify() if inotify.available() else None
        if self._inotify is not None:
            for folder, _, _ in os.walk(root):
                self._inotify.add(folder)

    def __enter__(self) -> Writes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def count(self) -> int:
        """So far."""
        if self._inotify is None:
            return 0
        done = inotify.CLOSE_WRITE | inotify.MOVED_TO
        return sum(bool(event.mask & done) for event in self._inotify.read())

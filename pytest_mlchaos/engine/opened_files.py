"""Follow which files below some directories are complete, and which are opened for reading.

Reads by Python, by C++ and by child processes count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from . import inotify
from .inotify import Event, Inotify
from .scopes import GOLDEN_COPY_PREFIX

__all__ = ["OpenedFiles"]

MAX_FOLDERS = 2000


class OpenedFiles:
    """Follow the files below some directories by inotify.

    Attributes:
        works: False if the system has no inotify, or refuses it. Then nothing is known.
        fresh: The files that were written and closed, or moved there, since they were last taken.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._inotify: Inotify | None = None
        self._folders: dict[int, str] = {}
        self._opens: dict[str, int] = {}
        self._read: set[str] = set()
        self._dirty: set[str] = set()
        self._owner = os.getpid()
        self.fresh: set[str] = set()
        if inotify.available():
            try:
                self._inotify = Inotify()
                for root in roots:
                    self._watch(root if os.path.isdir(root) else os.path.dirname(root))
                tuple(self._inotify.read())  # the listings above
            except OSError:  # the limits of instances or watches are reached
                self.close()

    @property
    def works(self) -> bool:
        """Return True if events arrive."""
        return self._inotify is not None and os.getpid() == self._owner

    def pending(self) -> bool:
        """Return True if there are events."""
        return self._inotify is not None and bool(self._inotify.pending())

    def drain(self, *, ours: bool = False) -> None:
        """Read the events so far.

        ``ours`` is True if the plugin itself has made them.
        """
        if self._inotify is None or os.getpid() != self._owner:
            return
        for event in self._inotify.read():
            folder = self._folders.get(event.watch)
            if folder is not None and event.name:
                self._on(event, os.path.join(folder, event.name), ours=ours)

    def forget(self, path: str) -> None:
        """Forget the reads of a file so far."""
        self._read.discard(path)
        self._opens.pop(path, None)

    def opened(self, path: str) -> bool:
        """Return True if a file was opened for reading since it was last forgotten.

        A memory mapping looks like a file that is opened and neither read nor written.
        """
        return path in self._read or self._opens.get(path, 0) > 0

    def names(self) -> list[str]:
        """Return the paths of all files that were opened for reading, sorted."""
        return sorted(path for path in {*self._read, *self._opens} if self.opened(path))

    def close(self) -> None:
        """Stop to follow the files."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _watch(self, folder: str, *, new: bool = False) -> None:
        assert self._inotify is not None
        if len(self._folders) >= MAX_FOLDERS:
            return
        watch = self._inotify.add(folder, reads=True)
        if watch is None:
            return
        self._folders[watch] = folder
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(GOLDEN_COPY_PREFIX):
                continue
            if entry.is_dir(follow_symlinks=False):
                self._watch(entry.path, new=new)
            elif new and entry.is_file(follow_symlinks=False):
                self.fresh.add(entry.path)

    def _on(self, event: Event, path: str, *, ours: bool) -> None:
        mask = event.mask
        if mask & inotify.ISDIR:
            if mask & (inotify.CREATE | inotify.MOVED_TO) and not event.name.startswith(
                GOLDEN_COPY_PREFIX
            ):
                self._watch(path, new=True)
            return
        if mask & (inotify.CREATE | inotify.MODIFY):
            self._dirty.add(path)
            self.fresh.discard(path)
        elif mask & (inotify.DELETE | inotify.MOVED_FROM):
            self._dirty.discard(path)
            self.fresh.discard(path)
        elif mask & (inotify.CLOSE_WRITE | inotify.MOVED_TO):
            self._dirty.discard(path)
            if not ours:
                self.fresh.add(path)
        if ours:
            return
        if mask & inotify.ACCESS or mask & inotify.CLOSE_NOWRITE:
            self._read.add(path)
        elif mask & inotify.OPEN:
            self._opens[path] = self._opens.get(path, 0) + 1
        elif mask & inotify.CLOSE_WRITE:
            self._opens[path] = max(0, self._opens.get(path, 0) - 1)

"""Map inotify watches to the directories that they watch, and list those."""

from __future__ import annotations

import os
import stat

from ...engine.inotify import Event, Inotify
from ..model import Folder
from .history import moved_path

__all__ = ["Watches", "status_of"]


class Watches:
    """The directory of each watch."""

    def __init__(self, inotify: Inotify, root: str) -> None:
        self._inotify = inotify
        self._root = root
        self._watches: dict[int, str] = {}
        parent = inotify.add(os.path.dirname(root))
        self.parent = -1 if parent is None else parent

    def at(self, path: str) -> str:
        """Return the absolute path."""
        return os.path.join(self._root, path) if path else self._root

    def path_of(self, event: Event) -> str | None:
        """Return the relative path of an event, or None if it is outside the directory."""
        if event.watch == self.parent:
            return ""
        above = self._watches.get(event.watch)
        if above is None or not event.name:
            return None
        return f"{above}/{event.name}" if above else event.name

    def rename(self, origin: str, path: str) -> None:
        """Rename a directory."""
        self._watches = {
            watch: moved_path(name, origin, path) for watch, name in self._watches.items()
        }

    def forget(self, path: str) -> None:
        """Stop watching a directory and those below it."""
        inside = f"{path}/" if path else ""
        for watch in [
            watch
            for watch, name in self._watches.items()
            if name == path or name.startswith(inside)
        ]:
            del self._watches[watch]
            self._inotify.forget(watch)

    def watch(self, path: str) -> int | None:
        """Watch a directory, and return the watch, or None if the directory does not exist."""
        watch = self._inotify.add(self.at(path))
        if watch is not None:
            self._watches[watch] = path
        return watch

    def mode(self, path: str) -> Folder:
        """Return a directory's mode and time."""
        try:
            status = os.lstat(self.at(path))
        except OSError:
            return Folder()
        return Folder(stat.S_IMODE(status.st_mode), status.st_mtime_ns)

    def below(self, path: str) -> dict[str, Folder | None]:
        """Return all entries below a directory. Each directory in it is watched before it is
        listed."""
        found: dict[str, Folder | None] = {}
        try:
            entries = sorted(os.scandir(self.at(path)), key=lambda entry: entry.name)
        except OSError:
            return found
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if not entry.is_dir(follow_symlinks=False):
                found[name] = None
            elif self.watch(name) is not None:
                found[name] = self.mode(name)
                found |= self.below(name)
        return found


def status_of(path: str) -> os.stat_result | None:
    """Return a path's status, or None if it does not exist."""
    try:
        return os.lstat(path)
    except OSError:
        return None

"""The directories that are watched, by name, and what lies in them on disk."""

from __future__ import annotations

import os
import stat

from ..model import Folder
from .history import moved_path
from .inotify import Event, Inotify

__all__ = ["Watches", "status_of"]


class Watches:
    """Which directory each watch stands for."""

    def __init__(self, inotify: Inotify, root: str) -> None:
        self._inotify = inotify
        self._root = root
        self._watches: dict[int, str] = {}
        parent = inotify.add(os.path.dirname(root))
        self.parent = -1 if parent is None else parent

    def at(self, path: str) -> str:
        """Where a path lies on disk."""
        return os.path.join(self._root, path) if path else self._root

    def path_of(self, event: Event) -> str | None:
        """What an event is about; None for what is not, or no longer, in this directory."""
        if event.watch == self.parent:
            return ""
        above = self._watches.get(event.watch)
        if above is None or not event.name:
            return None
        return f"{above}/{event.name}" if above else event.name

    def rename(self, origin: str, path: str) -> None:
        """A directory has another name."""
        self._watches = {watch: moved_path(name, origin, path) for watch, name in self._watches.items()}

    def forget(self, path: str) -> None:
        """A directory, and all below it, is watched no longer."""
        inside = f"{path}/" if path else ""
        for watch in [watch for watch, name in self._watches.items() if name == path or name.startswith(inside)]:
            del self._watches[watch]
            self._inotify.forget(watch)

    def watch(self, path: str) -> int | None:
        """Watch a directory from now on; None where there is none."""
        watch = self._inotify.add(self.at(path))
        if watch is not None:
            self._watches[watch] = path
        return watch

    def mode(self, path: str) -> Folder:
        """A directory's mode and time."""
        try:
            status = os.lstat(self.at(path))
        except OSError:
            return Folder()
        return Folder(stat.S_IMODE(status.st_mode), status.st_mtime_ns)

    def below(self, path: str) -> dict[str, Folder | None]:
        """All that lies below a directory; each directory in it is watched first."""
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
    """A path's status; None for nothing."""
    try:
        return os.lstat(path)
    except OSError:
        return None

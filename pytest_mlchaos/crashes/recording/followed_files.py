"""Follow files through renames, by the events of inotify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ...engine import inotify
from ...engine.inotify import Event

__all__ = ["REPLACED", "FollowedFiles", "Key"]

T = TypeVar("T")
Key = tuple[int, str]
"""An entry of a directory: the directory's watch, and the entry's name.

A watch stays the same when its directory is renamed.
"""
REPLACED = inotify.CREATE | inotify.DELETE | inotify.MOVED_TO
"""After such an event, an entry is a different file, or none."""


class FollowedFiles(Generic[T]):
    """Keep what is known of some files, by their present entries.

    Args:
        forget: Called with what is known of a file that has been replaced or removed.
    """

    def __init__(self, forget: Callable[[T], object]) -> None:
        self._forget = forget
        self._moving: dict[int, T | None] = {}
        self.files: dict[Key, T] = {}

    @property
    def gone(self) -> list[T]:
        """Return what is known of the files that were moved out of the watched directories."""
        return [file for file in self._moving.values() if file is not None]

    def follow(self, event: Event) -> T | None:
        """Follow a rename, a removal or a replacement. Return the file of any other event."""
        key, mask = (event.watch, event.name), event.mask
        if mask & inotify.MOVED_FROM:
            self._moving[event.cookie] = self.files.pop(key, None)
            return None
        if not mask & REPLACED:
            return self.files.get(key)
        self.forget(key)
        moved = self._moving.pop(event.cookie, None) if mask & inotify.MOVED_TO else None
        if moved is not None:
            self.files[key] = moved
        return None

    def forget(self, key: Key) -> None:
        """Forget the file of an entry, if there is one."""
        file = self.files.pop(key, None)
        if file is not None:
            self._forget(file)

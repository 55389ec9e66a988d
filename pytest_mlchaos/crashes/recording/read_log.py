"""Log which files of an earlier process a run reads.

Reads by Python, by C++ and by child processes count.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import inotify
from .audit_events import hear
from .inotify import Event, Inotify

__all__ = ["InotifyReadLog"]

_NEW = inotify.CREATE | inotify.DELETE | inotify.MOVED_TO


class InotifyReadLog:
    """Follows reads below a directory.

    ``files`` has the files that existed at the start and were read, or None if reads cannot be
    seen.

    A file counts as read from its first read access. It also counts if it was opened and neither
    read nor written, because a memory mapping looks like that. It stops counting once the run
    replaces it, or truncates it by opening it, because later reads return the run's own data. Empty
    files do not count. They hold nothing beyond their name.

    Fidelity: ``stat`` (existence, size and time) and listings raise no event. A file that C++ or a
    child process truncates and then reads counts as read, because the kernel's events do not
    distinguish that from an append.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._inotify: Inotify | None = None
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._left: dict[tuple[int, str], str] = {}
        self._moving: dict[int, str | None] = {}
        self._mapped: set[str] = set()
        self._read: set[str] = set()
        self._overflown = False
        self.files: frozenset[str] | None = None
        if inotify.available():
            with contextlib.suppress(OSError):  # the limits of instances or watches are reached
                self._inotify = Inotify()
                self._watch(str(root), "", self._inotify)

    @classmethod
    @contextlib.contextmanager
    def of(cls, root: Path) -> Iterator[InotifyReadLog]:
        """Follow the directory while the context is entered."""
        reads = cls(root)
        deaf = hear(reads._on_opening)
        try:
            yield reads
        finally:
            deaf()
            reads._close()

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """Ignore reads in this context, because they are the recorder's."""
        self._drain()
        try:
            yield
        finally:
            self._drain(counts=False)

    def _watch(self, folder: str, path: str, events: Inotify) -> None:
        """Watch a directory and those below it.

        Events name a directory by its watch, which stays the same when it is renamed.
        """
        watch = events.add(folder, reads=True)
        if watch is None:
            return
        for entry in os.scandir(folder):
            inside = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir(follow_symlinks=False):
                self._watch(entry.path, inside, events)
            elif entry.is_file() and entry.stat().st_size:
                self._left[watch, entry.name] = inside

    def _close(self) -> None:
        if self._inotify is None:
            return
        self._drain()
        with self._lock:
            self._inotify.close()
            self._inotify = None
        self.files = None if self._overflown else frozenset(self._read | self._mapped)

    def _drain(self, *, counts: bool = True) -> None:
        with self._lock:
            if self._inotify is None or os.getpid() != self._owner:
                # A forked process shares the queue.
                return
            for event in self._inotify.read():
                self._overflown |= bool(event.mask & inotify.OVERFLOW)
                if counts or not event.mask & (inotify.ACCESS | inotify.OPEN):
                    self._on(event)

    def _on_opening(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Drop a file that Python is about to truncate by opening it.

        All earlier reads of it are known now, and all later ones return the run's own data.
        """
        if (
            event != "open"
            or not isinstance(arguments[0], (str, bytes))
            or not isinstance(arguments[2], int)
        ):
            return
        if not arguments[2] & os.O_TRUNC:
            return
        path = os.path.relpath(os.path.realpath(os.fsdecode(arguments[0])), self._root)
        with self._lock:
            self._drain()
            for key in [key for key, left in self._left.items() if left == path]:
                self._forget(key)

    def _on(self, event: Event) -> None:
        key, mask = (event.watch, event.name), event.mask
        path = self._left.get(key)
        if mask & inotify.ISDIR:
            return
        if mask & inotify.MOVED_TO and event.cookie in self._moving:
            self._forget(key)
            moved = self._moving.pop(event.cookie)
            if moved is not None:
                self._left[key] = moved
        elif mask & inotify.MOVED_FROM:
            self._moving[event.cookie] = self._left.pop(key, None)
        elif path is None:
            return
        elif mask & _NEW:
            self._forget(key)
        elif mask & inotify.MODIFY:
            self._mapped.discard(path)
        elif mask & inotify.ACCESS:
            self._read.add(path)
        elif mask & inotify.OPEN:
            self._mapped.add(path)

    def _forget(self, key: tuple[int, str]) -> None:
        """Drop a file that the run has replaced."""
        self._mapped.discard(self._left.pop(key, ""))

"""Which of the files that an earlier process left a run reads: in Python, in C++ or in a child process."""

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
    """Follows what is read below a directory. ``files``: what lay there at the start and was read; None if this cannot be seen.

    A file counts as read from its first read access, and when it was opened without one and not written to either, as a mapping into
    memory is. It does not count once the run has put another one in its place, or emptied it as it opened it: what it reads there is its
    own. An empty file tells nothing that its name does not tell.

    Fidelity: existence, size and time (``stat``) and listings raise no event. A file that C++ or a child process empties and then reads
    counts as read: the kernel's events do not tell that from a file that is appended to.
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
        """What is read inside does not count: it is not the subject that reads."""
        self._drain()
        try:
            yield
        finally:
            self._drain(counts=False)

    def _watch(self, folder: str, path: str, events: Inotify) -> None:
        """The events of a directory name it by its watch, which stays the same when it is renamed."""
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
            if self._inotify is None or os.getpid() != self._owner:  # a process that was forked off has the same queue
                return
            for event in self._inotify.read():
                self._overflown |= bool(event.mask & inotify.OVERFLOW)
                if counts or not event.mask & (inotify.ACCESS | inotify.OPEN):
                    self._on(event)

    def _on_opening(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python is about to open a file. Of one that it empties all reads so far are known now, and all later ones are its own."""
        if event != "open" or not isinstance(arguments[0], (str, bytes)) or not isinstance(arguments[2], int):
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
        """The run has put another file in its place."""
        self._mapped.discard(self._left.pop(key, ""))

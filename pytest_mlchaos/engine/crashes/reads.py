"""Which of the files that an earlier process left a run reads: in Python, in C++ or in a child process."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import inotify
from .inotify import Event, Inotify

__all__ = ["Reads"]

_NEW = inotify.CREATE | inotify.DELETE | inotify.MOVED_TO
_CLOSE = inotify.CLOSE_WRITE | inotify.CLOSE_NOWRITE


class Reads:
    """Follows what is read below a directory. ``files``: what lay there at the start and was read; None if this cannot be seen.

    A file counts as read from its first read access, and when it was opened without one and not written to either, as a mapping into
    memory is. It does not count once the run has put another one in its place, or emptied it: what it reads there is its own. An empty
    file tells nothing that its name does not tell.

    Fidelity: existence, size and time (``stat``) and listings raise no event.
    """

    def __init__(self, root: Path) -> None:
        self._inotify: Inotify | None = None
        self._left: dict[tuple[int, str], str] = {}
        self._moving: dict[int, str | None] = {}
        self._open: Counter[str] = Counter()
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
    def of(cls, root: Path) -> Iterator[Reads]:
        """Follow the directory while the context is entered."""
        reads = cls(root)
        try:
            yield reads
        finally:
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
        self._inotify.close()
        self._inotify = None
        self.files = None if self._overflown else frozenset(self._read | self._mapped)

    def _drain(self, *, counts: bool = True) -> None:
        if self._inotify is None:
            return
        events = list(self._inotify.read())
        for event, following in zip(events, [*events[1:], None], strict=True):
            self._overflown |= bool(event.mask & inotify.OVERFLOW)
            if event.mask & inotify.ISDIR or (not counts and event.mask & (inotify.ACCESS | inotify.OPEN | _CLOSE)):
                continue
            self._on(event, following)

    def _on(self, event: Event, following: Event | None) -> None:
        key, mask = (event.watch, event.name), event.mask
        path = self._left.get(key)
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
            is_opened = following is not None and following.mask & inotify.OPEN and (following.watch, following.name) == key
            if is_opened and self._open[path] <= 0:  # nothing could have written to it: it was emptied as it was opened
                self._forget(key)
        elif mask & inotify.ACCESS:
            self._read.add(path)
        elif mask & inotify.OPEN:
            self._open[path] += 1
            self._mapped.add(path)
        elif mask & _CLOSE:
            self._open[path] -= 1

    def _forget(self, key: tuple[int, str]) -> None:
        """The run has put another file in its place."""
        self._mapped.discard(self._left.pop(key, ""))

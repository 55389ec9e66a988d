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

from ...engine import inotify
from ...engine.inotify import Event, Inotify
from ..model import Observed
from .audit_events import LISTINGS, STARTS, hear
from .followed_files import REPLACED, FollowedFiles
from .observer import Observer
from .own_events import OwnEvents
from .stat_log import note_stats

__all__ = ["InotifyReadLog"]

_LOOKS = inotify.ACCESS | inotify.OPEN | inotify.CLOSE_NOWRITE
_WRITES = os.O_WRONLY | os.O_RDWR
_CHANGES = frozenset({"os.rename", "os.remove", "os.truncate", "os.link"})
"""Events before which it must be known which files were truncated."""


class InotifyReadLog:
    """Follows reads below a directory.

    ``files`` has the files that existed at the start and were read, or None if reads cannot be
    seen. ``observed`` has all that the run can have learned about them, or None (``observer.py``).
    It is stricter: each open counts, and sizes and times, too. With ``shared``, other processes use
    the directory at the same time, and ``observed_alone`` has what this one can have learned. It is
    None if this process has started others, or if the system does not tell which events are its own.

    A file counts as read from its first read access. It also counts if it was opened and neither
    read nor written, because a memory mapping looks like that. It stops counting once the run
    replaces it, or truncates it by opening it, because later reads return the run's own data. Empty
    files do not count. They hold nothing beyond their name.

    Fidelity: ``stat`` (existence, size and time) and listings raise no event. A file that C++ or a
    child process truncates and then reads counts as read, because the kernel's events do not
    distinguish that from an append.
    """

    def __init__(self, root: Path, *, shared: bool = False) -> None:
        self._root = os.path.realpath(root)
        self._inotify: Inotify | None = None
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._mapped: set[str] = set()
        self._left: FollowedFiles[str] = FollowedFiles(self._mapped.discard)
        self._read: set[str] = set()
        self._overflown = False
        self._recorded = False
        self._observer: Observer | None = None
        self.files: frozenset[str] | None = None
        self.observed: Observed | None = None
        self.observed_alone: Observed | None = None
        self._alone: Observer | None = None
        if inotify.available():
            try:
                self._inotify = _queue(shared=shared)
                self._observer = Observer(self._root)
                if isinstance(self._inotify, OwnEvents):
                    self._alone = Observer(self._root)
                    self._alone.hears_children = False
                self._watch(str(root), "", self._inotify)
                tuple(self._inotify.read())  # the listings of the directories above
            except OSError:  # the limits of instances or watches are reached: some are not watched
                self._give_up()

    def _give_up(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        for observer in self._observers:
            observer.close()
        self._inotify = self._observer = self._alone = None

    @property
    def _observers(self) -> list[Observer]:
        return [one for one in (self._observer, self._alone) if one is not None]

    @classmethod
    @contextlib.contextmanager
    def of(cls, root: Path, *, shared: bool = False) -> Iterator[InotifyReadLog]:
        """Follow the directory while the context is entered."""
        reads = cls(root, shared=shared)
        if reads._observer is None:
            yield reads
            return
        deaf = hear(reads._on_audit, listings=True)
        try:
            with note_stats(reads._on_stat):
                yield reads
        finally:
            deaf()
            reads._close()

    def is_recorded(self) -> None:
        """Note that the run is recorded. Then forked processes must write nothing of ours.

        The recorder counts their writes. If there are any, nothing is known of such a run anyway.
        """
        self._recorded = True
        if self._observer is not None:
            self._observer.hears_children = False

    def opened(self) -> frozenset[str]:
        """Return the files that were opened so far."""
        self._drain()
        return self._observer.read if self._observer is not None else frozenset()

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """Ignore reads in this context, because they are the recorder's."""
        self._recorded = True
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
        for observer in self._observers:
            observer.add_folder(watch, folder)
        for entry in os.scandir(folder):
            inside = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir(follow_symlinks=False):
                self._watch(entry.path, inside, events)
            elif entry.is_file():
                status = entry.stat()
                if status.st_size:
                    self._left.files[watch, entry.name] = inside
                if not entry.is_symlink():
                    for observer in self._observers:
                        observer.add_file((watch, entry.name), inside, status)

    def _close(self) -> None:
        if self._inotify is None or self._observer is None:
            return
        self._drain()
        queue = self._inotify
        with self._lock:
            queue.close()
            self._inotify = None
        observed = self._observer.finish()
        if self._alone is not None:
            alone = self._alone.finish()
            unknown = isinstance(queue, OwnEvents) and (queue.lost or queue.unsure)
            if not (unknown or self._overflown or self._alone.has_started_processes):
                self.observed_alone = alone
            self._alone.close()
        # The recorder's own reads hide those that a process makes at the same time.
        unsure = self._recorded and self._observer.has_started_processes
        self._observer.close()
        if not self._overflown:
            self.files = frozenset(self._read | self._mapped)
            self.observed = None if unsure else observed

    def _drain(self, *, counts: bool = True) -> None:
        if os.getpid() != self._owner:
            # A forked process shares the queue. A thread may have held the lock during the fork.
            return
        with self._lock:
            if self._inotify is None:
                return
            for event in self._inotify.read():
                self._overflown |= bool(event.mask & inotify.OVERFLOW)
                if counts or not event.mask & _LOOKS:
                    self._on(event)
                    assert self._observer is not None
                    self._observer.on_event(event)
                    if self._alone is not None and _is_for_one(event, self._inotify):
                        self._alone.on_event(event)
            for observer in self._observers:
                observer.settle()

    def _on_stat(self, path: str) -> None:
        if self._alone is not None:
            self._drain()
        for observer in self._observers:
            observer.on_stat(path)

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what Python is about to do.

        A file that it is about to truncate by opening it is dropped. All earlier reads of it are
        known now, and all later ones return the run's own data.
        """
        assert self._observer is not None
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        # The fewer events are read at a time, the fewer of others count as this process's own.
        lists = self._alone is not None and event in LISTINGS
        if event not in STARTS and (writes or event in _CHANGES or lists):
            self._drain()
        for observer in self._observers:
            observer.on_audit(event, arguments)
        if not writes or not isinstance(arguments[0], (str, bytes)) or os.getpid() != self._owner:
            return
        if not arguments[2] & os.O_TRUNC:
            return
        path = self._observer.relative(arguments[0])
        with self._lock:
            for key in [key for key, left in self._left.files.items() if left == path]:
                self._left.forget(key)

    def _on(self, event: Event) -> None:
        if event.mask & inotify.ISDIR:
            return
        path = self._left.follow(event)
        if path is None:
            return
        if event.mask & inotify.MODIFY:
            self._mapped.discard(path)
        elif event.mask & inotify.ACCESS:
            self._read.add(path)
        elif event.mask & inotify.OPEN:
            self._mapped.add(path)


def _queue(*, shared: bool) -> Inotify:
    if shared:
        with contextlib.suppress(OSError):
            return OwnEvents()
    return Inotify()


def _is_for_one(event: Event, queue: Inotify) -> bool:
    """Return True for uses by this process, and for changes of names by any."""
    is_of_names = event.mask & (REPLACED | inotify.MOVED_FROM)
    return bool(is_of_names) or not isinstance(queue, OwnEvents) or queue.is_own(event)

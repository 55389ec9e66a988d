"""Record the changes of a work directory by inotify."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ...engine import inotify
from ...engine.inotify import Event, Inotify
from ..model import Change, File, Folder, Tree
from .content_store import EMPTY, ContentStore
from .event_batches import READ_ONLY_EVENTS, ahead, all_quiet
from .history import History, moved_path
from .inodes import Inode
from .io_accounting import WriteAccount, mapped_files
from .read_log import InotifyReadLog
from .recorder_base import RecorderBase
from .watches import Watches, status_of

__all__ = ["InotifyRecorder"]

MAX_READ_RETRIES = 50
"""Read a directory that keeps changing at most this many times."""
_UNSEEN = "\0"
"""A name that no file has. It stands for files that may have appeared in a new directory, at an
unknown time."""
_MAX_CHECKED_FILES = 256
"""Check at most this many files for changes without an event, the latest first."""
_RENAME_PAIR_SECONDS = 0.0005
"""Wait this long for the second event of a rename, because the kernel sends one event for each
name."""


class InotifyRecorder(RecorderBase):
    """Follows one directory.

    ``changes`` has the changes so far. ``step`` is the step to which later changes are attributed.

    Events give the order of changes, and each file is read as soon as its event arrives. If a file
    changes again before it can be read, its content in between is unknown, and so is the directory
    at that moment. Such moments are left out. Files in a new directory may appear before it is
    watched, in an unknown order. They count as one change once they are all there. ``unseen``
    counts the changes that are left out, by look.

    Fidelity: a write through a memory mapping raises no event. Files are compared at each step and
    at the end to find it.
    """

    def __init__(self, root: Path, contents: ContentStore) -> None:
        super().__init__()
        self.reads: InotifyReadLog | None = None
        self._history = History(os.path.realpath(root), contents)
        self._inotify = self._queue()
        self.pending, self.wait = self._inotify.pending, self._inotify.wait
        self._account = WriteAccount()
        self._mapped: set[tuple[int, int]] = set()
        self._unseen: dict[str, bool | None] = {}
        """New directories, with True if nothing else has happened since, or None for one that was
        moved here with its files.
        """
        self._alone = True
        self._lost = False
        try:
            self._watches = Watches(self._inotify, self._history.root)
            self._compare()
        except inotify.NoInotify:
            self._inotify.close()
            raise
        self._history.resolve()
        self._history.settled(None)
        for inode in self._history.inodes():
            inode.writers, inode.synced = 0, inode.last  # the subject has not started
        self._history.loose = self._history.unsynced = frozenset()
        self._history.changes.clear()
        self._history.unseen.clear()
        self.start = self.tree()

    def _queue(self) -> Inotify:
        """Return a new queue of events."""
        return Inotify()

    @property
    def changes(self) -> Sequence[Change]:
        """Return the changes so far."""
        return self._history.changes

    @property
    def unseen(self) -> Sequence[int]:
        """Return per look the number of changes after which the directory's content is unknown."""
        return self._history.unseen

    @property
    def step(self) -> int:
        """Return the number of complete steps."""
        return self._history.step

    @step.setter
    def step(self, step: int) -> None:
        self._history.step = step

    def close(self) -> None:
        """Stop following the directory. A thread that is about to look finds no events."""
        with self._lock:
            super().close()
            self._inotify.close()
            self._account.close()

    def tree(self) -> Tree | None:
        """Return the directory as it was last seen."""
        return self._history.frozen(self._history.tree)

    def _look(self, closely: bool) -> None:
        with self.reads.unseen() if self.reads is not None else contextlib.nullcontext():
            self._drain(self._events())
            if closely:
                self._look_closely()

    def synced(self, path: str) -> None:
        """Note that a file or directory was written back, so that it survives a power loss."""
        self.drain()
        relative = os.path.relpath(path, self._history.root).replace(os.sep, "/")
        self._history.written_back("" if relative == "." else relative)

    def all_synced(self) -> None:
        """Note that everything was written back."""
        self.drain()
        self._history.written_back(None)

    # -- events ------------------------------------------------------------------------------------

    def _events(self) -> list[Event]:
        """Return the events so far.

        A rename has two events, and an event of a different process may come between them.
        """
        events = self._read()
        last = next(
            (event for event in reversed(events) if not event.mask & READ_ONLY_EVENTS), None
        )
        if last is not None and last.mask & inotify.MOVED_FROM:
            time.sleep(_RENAME_PAIR_SECONDS)
            events += self._read()
        return events

    def _read(self) -> list[Event]:
        """Return the events so far, without those of other entries in the parent directory."""
        name = os.path.basename(self._history.root)
        return [
            event
            for event in self._inotify.read()
            if event.watch != self._watches.parent or event.name == name
        ]

    def _drain(self, events: list[Event]) -> None:
        if all_quiet(events) and not self._lost:
            self._apply(events)  # opens change nothing, but they count a file's writers
            self._account.reset()
            return
        history, written = self._history, self._account.since()
        if self._lost:
            self._compare()
        for _ in range(MAX_READ_RETRIES):
            if any(event.mask & inotify.OVERFLOW for event in events):
                history.hidden += max(
                    0, sum(not event.mask & READ_ONLY_EVENTS for event in events) - 1
                )
                self._compare()
            else:
                self._apply(events)
            if self._unseen:
                found = {path: self._looked_into(path) for path in self._unseen}
                events = self._events()
                if not all_quiet(events):
                    self._unseen = {
                        path: None if alone is None else False
                        for path, alone in self._unseen.items()
                    }
                    continue
                self._apply(events)
                self._see(found)
            history.resolve()
            events = self._events()
            if all_quiet(events):
                self._apply(events)
                break
        else:  # still changing after MAX_READ_RETRIES reads: a consistent snapshot does not exist
            history.lose()
            self._lost = True
        history.settled(written)
        self._account.reset()

    def _apply(self, events: list[Event]) -> None:
        written, following, busy = ahead(events)
        targets = {
            event.cookie
            for event in events
            if event.mask & inotify.MOVED_TO and self._watches.path_of(event) is not None
        }
        leaving: dict[int, str] = {}
        for index, event in enumerate(events):
            path = self._watches.path_of(event)
            if path is None or event.mask & inotify.IGNORED:
                continue
            if event.mask & inotify.MOVED_FROM and event.cookie in targets:
                leaving[event.cookie] = path
            elif event.mask & inotify.MOVED_TO:
                self._came(path, leaving.pop(event.cookie, None))
            else:
                self._alone = index >= busy
                self._on(event.mask, path, written[index], following[index])

    def _on(self, mask: int, path: str, written: bool, following: int) -> None:
        """Apply one event.

        ``written`` is True if the same name is written again before it can be read. ``following``
        is its next event.
        """
        entry = self._history.tree.get(path)
        if mask & inotify.CREATE:
            self._created(
                path,
                folder=bool(mask & inotify.ISDIR),
                written=written,
                opened=bool(following & inotify.OPEN),
            )
        elif mask & (inotify.DELETE | inotify.MOVED_FROM):
            self._gone(path)
        elif mask & inotify.ATTRIB:
            self._history.touched(path)
        elif mask & inotify.MODIFY:
            self._modified(path, truncated=written and bool(following & inotify.OPEN))
        elif isinstance(entry, tuple):
            if mask & inotify.OPEN:
                entry[0].writers += 1
            elif mask & (inotify.CLOSE_WRITE | inotify.CLOSE_NOWRITE):
                entry[0].writers = max(0, entry[0].writers - 1)
                if mask & inotify.CLOSE_WRITE:
                    self._history.closing[entry[0]] = None
                    self._history.note("closed", path, self._history.tree)

    def _created(self, path: str, *, folder: bool, written: bool, opened: bool) -> None:
        history = self._history
        if path in history.tree:
            return  # a listing found it before its event was read
        before = history.tree
        if folder:
            self._folder(path, "folder")
            return
        known = history.linked(path)
        if known is not None:
            history.enter(path, known)
        elif written and opened:
            inode = Inode(path, File(EMPTY))
            inode.fresh = 0
            history.enter(path, inode)
        else:
            self._new(path, writers=0)
        history.note("created", path, before, names=frozenset({path}))

    def _new(self, path: str, *, writers: int) -> None:
        inode = Inode(path, None)
        inode.writers = writers
        self._history.enter(path, inode)
        self._history.unread(inode)

    def _modified(self, path: str, *, truncated: bool) -> None:
        entry = self._history.tree.get(path)
        if isinstance(entry, tuple):
            # No process had it open, so this event is the truncation of a file opened with O_TRUNC.
            cut = truncated and not entry[0].writers
            self._history.version(
                entry[0], path, "truncated" if cut else "grew", File(EMPTY) if cut else None
            )
        elif path not in self._history.tree and os.path.lexists(self._history.at(path)):
            self._came(path, None)

    def _came(self, path: str, origin: str | None) -> None:
        """Note a move to this path, from this directory or from outside."""
        history, before = self._history, self._history.tree
        if origin is not None and before.get(origin) is not None:
            history.rename(origin, path)
            self._watches.rename(origin, path)
            self._unseen = {
                moved_path(name, origin, path): alone for name, alone in self._unseen.items()
            }
            history.note("moved", path, before, origin)
            return
        if origin is not None:
            self._forget(origin)
        self._forget(path)
        at = history.at(path)
        if os.path.isdir(at) and not os.path.islink(at):
            self._folder(path, None)
        else:
            self._new(path, writers=1)
            history.note("arrived", path, before)

    def _gone(self, path: str) -> None:
        if path in self._history.tree:
            before = self._history.tree
            self._forget(path)
            self._history.note("removed", path, before)

    def _forget(self, path: str) -> None:
        self._history.forget(path)
        inside = f"{path}/" if path else ""
        self._watches.forget(path)
        self._unseen = {
            name: alone
            for name, alone in self._unseen.items()
            if name != path and not name.startswith(inside)
        }

    # -- directories -------------------------------------------------------------------------------

    def _folder(self, path: str, kind: str | None) -> None:
        """Watch a new directory.

        ``kind`` is None for one that was moved here with its files.
        """
        history, before = self._history, self._history.tree
        watch = self._watches.watch(path)
        history.tree = {**before, path: None if watch is None else self._watches.mode(path)}
        history.loose |= {path}
        if kind is not None and watch is not None:
            history.note("folder", path, before)
        history.tree = {**history.tree, f"{path}/{_UNSEEN}": None}
        self._unseen[path] = None if kind is None else watch is not None and self._alone

    def _looked_into(self, path: str) -> dict[str, Folder | None] | None:
        """Return the entries of a new directory, or None if it is gone."""
        if self._history.tree.get(path) is None and self._watches.watch(path) is None:
            return None
        return self._watches.below(path)

    def _see(self, found: dict[str, dict[str, Folder | None] | None]) -> None:
        """Note the entries of new directories, read while nothing else happened."""
        history = self._history
        for path, below in found.items():
            alone, before = self._unseen.pop(path, False), history.tree
            history.tree = {
                name: entry for name, entry in before.items() if name != f"{path}/{_UNSEEN}"
            }
            if below is None:
                self._gone(path)
                continue
            if history.tree.get(path) is None:
                history.tree = {**history.tree, path: self._watches.mode(path)}
            missing = [name for name in below if name not in history.tree]
            one_by_one = alone and all(
                name.startswith(f"{above}/") for above, name in itertools.pairwise(missing)
            )
            if one_by_one:
                before = history.tree
            for name in missing:
                self._found(name, below[name])
                if one_by_one:
                    history.note("folder" if below[name] is not None else "arrived", name, before)
                    before = history.tree
            if not one_by_one:
                history.note("arrived", path, before)
                history.hidden += max(0, len(missing) - 1) if alone is not None else 0

    def _found(self, path: str, folder: Folder | None) -> None:
        history = self._history
        if folder is None:
            known = history.linked(path)
            history.enter(path, known) if known is not None else self._new(path, writers=1)
        else:
            history.tree = {**history.tree, path: folder}
            history.loose |= {path}

    def _compare(self) -> None:
        """Read the directory again after events were lost. The changes in between are unknown."""
        history, before = self._history, self._history.tree
        for _ in range(MAX_READ_RETRIES):
            self._forget("")
            history.tree = {}
            if self._watches.watch("") is not None:
                history.tree = {"": self._watches.mode("")}
                for path, folder in self._watches.below("").items():
                    self._found(path, folder)
            if all_quiet(self._events()):
                break
        self._lost = False
        history.note("arrived", "", before)

    def _look_closely(self) -> None:
        """Find files that changed without an event, by writes through a memory mapping."""
        history = self._history
        self._mapped |= mapped_files()
        noted = history.noted()
        for inode in history.inodes()[:_MAX_CHECKED_FILES]:
            held, status = inode.versions[-1], status_of(history.at(min(inode.paths)))
            if isinstance(held, File) and status is not None:
                changed = (status.st_size, status.st_mtime_ns) != (held.content.size, held.mtime)
                if changed or inode.key in self._mapped:
                    history.version(inode, min(inode.paths), "grew", None)
                    inode.growing = None
        history.merge(noted)
        written = self._account.since()
        history.resolve()
        history.settled(written)
        self._account.reset()

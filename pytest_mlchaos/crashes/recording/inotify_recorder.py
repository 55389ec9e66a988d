"""What happened to a work directory, change by change, with the whole directory before and after each."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..model import Change, File, Folder, Tree
from . import inotify
from .content_store import EMPTY, ContentStore
from .event_batches import READ_ONLY_EVENTS, ahead, all_quiet
from .history import History, moved_path
from .inodes import Inode
from .inotify import Event, Inotify
from .io_accounting import WriteAccount, mapped_files
from .read_log import InotifyReadLog
from .recorder_base import RecorderBase
from .watches import Watches, status_of

__all__ = ["InotifyRecorder"]

MAX_READ_RETRIES = 50
"""How often a directory is read again while others go on writing."""
_UNSEEN = "\0"
"""A name that no file has: something may lie in this directory by now, and nobody knows since when."""
_MAX_CHECKED_FILES = 256
_RENAME_PAIR_SECONDS = 0.0005
"""Seconds for the second event of a rename to arrive: the kernel tells of the old and the new name one after the other."""


class InotifyRecorder(RecorderBase):
    """Follows one directory. ``changes`` is what it saw; ``step`` is what the next ones are put down to.

    Events tell the order of changes, and each file is read as soon as they are known. A file that went on changing before it could
    be read has no content in between, and the directory as a whole was never seen so: such moments are left out. What lies in a new
    directory before it could be watched came in an order that nobody knows: it arrives at once, when it is all there. ``unseen`` counts
    what is left out so, by look.

    Fidelity: a file that is written through a mapping into memory raises no event; it is compared at each step, and at the end.
    """

    def __init__(self, root: Path, contents: ContentStore) -> None:
        super().__init__()
        self.reads: InotifyReadLog | None = None
        self._history = History(os.path.realpath(root), contents)
        self._inotify = Inotify()
        self.pending, self.wait = self._inotify.pending, self._inotify.wait
        self._account = WriteAccount()
        self._mapped: set[tuple[int, int]] = set()
        self._unseen: dict[str, bool | None] = {}
        """New directories, and if nothing else has happened since each was made; None for one that came with what is in it."""
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
            inode.writers, inode.synced = 0, inode.last  # nobody has begun yet
        self._history.loose = self._history.unsynced = frozenset()
        self._history.changes.clear()
        self._history.unseen.clear()
        self.start = self.tree()

    @property
    def changes(self) -> Sequence[Change]:
        """What has happened so far."""
        return self._history.changes

    @property
    def unseen(self) -> Sequence[int]:
        """How many changes came between two looks and left a directory that is not known: a number for each time that there were some."""
        return self._history.unseen

    @property
    def step(self) -> int:
        """How many steps are complete."""
        return self._history.step

    @step.setter
    def step(self, step: int) -> None:
        self._history.step = step

    def close(self) -> None:
        """Follow it no longer. A thread that is about to look finds nothing."""
        with self._lock:
            super().close()
            self._inotify.close()
            self._account.close()

    def tree(self) -> Tree | None:
        """The directory as it was last seen."""
        return self._history.frozen(self._history.tree)

    def _look(self, closely: bool) -> None:
        with self.reads.unseen() if self.reads is not None else contextlib.nullcontext():
            self._drain(self._events())
            if closely:
                self._look_closely()

    def synced(self, path: str) -> None:
        """A file, or a directory, has been written back: a power loss leaves it as it is."""
        self.drain()
        relative = os.path.relpath(path, self._history.root).replace(os.sep, "/")
        self._history.written_back("" if relative == "." else relative)

    def all_synced(self) -> None:
        """Everything has been written back."""
        self.drain()
        self._history.written_back(None)

    # -- events ------------------------------------------------------------------------------------------------

    def _events(self) -> list[Event]:
        """Those that are there. A rename is two, and another process may be between them."""
        events = self._read()
        last = next((event for event in reversed(events) if not event.mask & READ_ONLY_EVENTS), None)
        if last is not None and last.mask & inotify.MOVED_FROM:
            time.sleep(_RENAME_PAIR_SECONDS)
            events += self._read()
        return events

    def _read(self) -> list[Event]:
        """What lies beside this directory is nobody's business."""
        name = os.path.basename(self._history.root)
        return [event for event in self._inotify.read() if event.watch != self._watches.parent or event.name == name]

    def _drain(self, events: list[Event]) -> None:
        if all_quiet(events) and not self._lost:
            self._apply(events)  # a file was read, or opened: what comes is written to it
            self._account.reset()
            return
        history, written = self._history, self._account.since()
        if self._lost:
            self._compare()
        for _ in range(MAX_READ_RETRIES):
            if any(event.mask & inotify.OVERFLOW for event in events):
                history.hidden += max(0, sum(not event.mask & READ_ONLY_EVENTS for event in events) - 1)
                self._compare()
            else:
                self._apply(events)
            if self._unseen:
                found = {path: self._looked_into(path) for path in self._unseen}
                events = self._events()
                if not all_quiet(events):
                    self._unseen = {path: None if alone is None else False for path, alone in self._unseen.items()}
                    continue
                self._apply(events)
                self._see(found)
            history.resolve()
            events = self._events()
            if all_quiet(events):
                self._apply(events)
                break
        else:  # it never stands still
            history.lose()
            self._lost = True
        history.settled(written)
        self._account.reset()

    def _apply(self, events: list[Event]) -> None:
        written, following, busy = ahead(events)
        targets = {event.cookie for event in events if event.mask & inotify.MOVED_TO and self._watches.path_of(event) is not None}
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
        """One event. ``written``: the same name is written to again, before it can be read; ``following``: its next event."""
        entry = self._history.tree.get(path)
        if mask & inotify.CREATE:
            self._created(path, folder=bool(mask & inotify.ISDIR), written=written, opened=bool(following & inotify.OPEN))
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
            return  # it was found before its event was read
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
            cut = truncated and not entry[0].writers  # nobody could have written to it: it was opened to be written anew
            self._history.version(entry[0], path, "truncated" if cut else "grew", File(EMPTY) if cut else None)
        elif path not in self._history.tree and os.path.lexists(self._history.at(path)):
            self._came(path, None)

    def _came(self, path: str, origin: str | None) -> None:
        """It was moved there: from elsewhere in this directory, or from outside."""
        history, before = self._history, self._history.tree
        if origin is not None and before.get(origin) is not None:
            history.rename(origin, path)
            self._watches.rename(origin, path)
            self._unseen = {moved_path(name, origin, path): alone for name, alone in self._unseen.items()}
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
        self._unseen = {name: alone for name, alone in self._unseen.items() if name != path and not name.startswith(inside)}

    # -- directories -------------------------------------------------------------------------------------------

    def _folder(self, path: str, kind: str | None) -> None:
        """A new directory: it is watched from now on. ``kind`` None: it came with what is in it."""
        history, before = self._history, self._history.tree
        watch = self._watches.watch(path)
        history.tree = {**before, path: None if watch is None else self._watches.mode(path)}
        history.loose |= {path}
        if kind is not None and watch is not None:
            history.note("folder", path, before)
        history.tree = {**history.tree, f"{path}/{_UNSEEN}": None}
        self._unseen[path] = None if kind is None else watch is not None and self._alone

    def _looked_into(self, path: str) -> dict[str, Folder | None] | None:
        """What a new directory holds; None if it is none any more."""
        if self._history.tree.get(path) is None and self._watches.watch(path) is None:
            return None
        return self._watches.below(path)

    def _see(self, found: dict[str, dict[str, Folder | None] | None]) -> None:
        """Take in what the new directories held when nothing more happened."""
        history = self._history
        for path, below in found.items():
            alone, before = self._unseen.pop(path, False), history.tree
            history.tree = {name: entry for name, entry in before.items() if name != f"{path}/{_UNSEEN}"}
            if below is None:
                self._gone(path)
                continue
            if history.tree.get(path) is None:
                history.tree = {**history.tree, path: self._watches.mode(path)}
            missing = [name for name in below if name not in history.tree]
            one_by_one = alone and all(name.startswith(f"{above}/") for above, name in itertools.pairwise(missing))
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
        """Events were lost: take the directory as it is. What came in between is not known."""
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
        """Files that have changed and raised no event: what writes through a mapping into memory raises none."""
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

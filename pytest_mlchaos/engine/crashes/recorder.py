"""What happened to a work directory, change by change, with the whole directory before and after each."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...core.crashes import Change, Content, File, Folder, Kind, Link, Tree
from . import inotify
from .contents import BLOCK, EMPTY, Contents, Growing, opened
from .disk import node_at
from .inotify import Event, Inotify

__all__ = ["Recorder"]

TRIES = 50
"""How often a directory is read again while others go on writing."""


class _Inode:
    """One plain file, whatever its name is: what it held, version by version; None where that could not be read in time."""

    __slots__ = ("first", "growing", "path", "synced", "versions")

    def __init__(self, path: str, version: File | None) -> None:
        self.path: str | None = path
        self.versions: list[File | None] = [version]
        self.growing: Growing | None = None
        self.first = 0  # the version at which the file was last known to be empty or new
        self.synced = -1

    @property
    def last(self) -> int:
        return len(self.versions) - 1


_Ref = tuple[_Inode, int]
_Entry = Folder | Link | _Ref


class _Draft:
    """A change whose contents are still to be read."""

    __slots__ = ("after", "before", "kind", "loose", "path", "source", "step", "touched", "unsynced")

    def __init__(self, kind: Kind, path: str, step: int, before: dict[str, _Entry], source: str | None = None) -> None:
        self.kind = kind
        self.path = path
        self.step = step
        self.before = before
        self.after: dict[str, _Entry] = before
        self.source = source
        self.unsynced: frozenset[str] = frozenset()
        self.loose: frozenset[str] = frozenset()


class Recorder:
    """Follows one directory. ``changes`` is what it saw; ``step`` is what the next ones are put down to.

    Events tell the order of changes, and each file is read as soon as they are known. A file that went on changing before it could be read
    has no content in between, and the directory as a whole was never seen so: such moments are left out.
    """

    def __init__(self, root: Path, contents: Contents) -> None:
        self.changes: list[Change] = []
        self.step = 0
        self._root = os.path.abspath(root)
        self._contents = contents
        self._lock = threading.RLock()
        self._draining = False
        self._tree: dict[str, _Entry] = {}
        self._loose: set[str] = set()
        self._inotify = Inotify()
        self.pending = self._inotify.pending
        self._watches: dict[int, str] = {}
        parent = self._inotify.add(os.path.dirname(self._root))
        self._parent = -1 if parent is None else parent
        self._drafts: list[_Draft] = []
        self._dirty: dict[_Inode, None] = {}
        self._adopt("")
        self._resolve()
        self._drafts.clear()
        self.start = self._frozen(self._tree)

    def close(self) -> None:
        """Follow it no longer."""
        self._inotify.close()

    def tree(self) -> Tree | None:
        """The directory as it was last seen."""
        return self._frozen(self._tree)

    def drain(self) -> None:
        """Take in what has happened since the last time."""
        with self._lock:
            if self._draining:
                return
            self._draining = True
            try:
                self._drain()
            finally:
                self._draining = False

    def synced(self, path: str) -> None:
        """A file, or a directory, has been written back: a power loss leaves it as it is."""
        self.drain()
        relative = os.path.relpath(path, self._root).replace(os.sep, "/")
        entry = self._tree.get("" if relative == "." else relative)
        if isinstance(entry, tuple):
            entry[0].synced = entry[0].last
        elif isinstance(entry, Folder):
            prefix = "" if relative == "." else f"{relative}/"
            self._loose -= {name for name in self._loose if name.startswith(prefix) and "/" not in name[len(prefix) :]}
        if entry is not None:
            self._note("synced", relative, self._tree)
            self._finish()

    # -- events ------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        events = list(self._inotify.read())
        if all(event.mask & (inotify.OPEN | inotify.IGNORED) for event in events):
            return  # somebody has read
        for _ in range(TRIES):
            self._apply(events)
            self._resolve()
            events = list(self._inotify.read())
            if all(event.mask & (inotify.OPEN | inotify.IGNORED) for event in events):
                break
        else:
            for inode in self._dirty:
                inode.versions[-1] = None  # it never stood still
        self._dirty.clear()
        self._finish()

    def _apply(self, events: list[Event]) -> None:
        for place, event in enumerate(events):
            if event.mask & inotify.OVERFLOW:
                self._compare()
            elif event.watch in self._watches or event.watch == self._parent:
                path = self._path_of(event)
                if path is not None:
                    self._on(event, path, events, place)

    def _path_of(self, event: Event) -> str | None:
        if event.watch == self._parent:
            return "" if event.name == os.path.basename(self._root) else None
        above = self._watches[event.watch]
        return f"{above}/{event.name}" if above else event.name

    def _on(self, event: Event, path: str, events: list[Event], place: int) -> None:
        mask = event.mask
        if mask & inotify.IGNORED or not (event.name or event.watch == self._parent):
            return
        if mask & inotify.CREATE:
            self._created(path, following=events[place + 1 :], event=event)
        elif mask & inotify.MODIFY:
            self._modified(path, truncated=_opened_next(events, place))
        elif mask & inotify.CLOSE_WRITE:
            self._closed(path)
        elif mask & inotify.DELETE:
            self._gone(path)
        elif mask & inotify.MOVED_FROM:
            if not any(later.mask & inotify.MOVED_TO and later.cookie == event.cookie for later in events[place + 1 :]):
                self._gone(path)
        elif mask & inotify.MOVED_TO:
            source = next((e for e in events[:place] if e.mask & inotify.MOVED_FROM and e.cookie == event.cookie), None)
            origin = None if source is None else self._path_of(source)
            if origin is None or origin not in self._tree:
                self._arrived(path)
            else:
                self._moved(origin, path)

    def _created(self, path: str, following: list[Event], event: Event) -> None:
        if event.mask & inotify.ISDIR:
            self._adopt(path)
            return
        at = self._at(path)
        if os.path.islink(at):
            before = self._tree
            self._tree = {**before, path: Link(os.readlink(at))}
            self._loose.add(path)
            self._note("link", path, before)
            return
        if path in self._tree:
            return  # it was found before its event was read
        written = any(e.mask & inotify.MODIFY and (e.watch, e.name) == (event.watch, event.name) for e in following)
        self._enter("created", path, _Inode(path, File(EMPTY)), read=not written)

    def _enter(self, kind: Kind, path: str, inode: _Inode, *, read: bool) -> None:
        before = self._tree
        self._forget(path)
        self._tree = {**self._tree, path: (inode, inode.last)}
        self._loose.add(path)
        if read:
            inode.versions[-1] = None
            self._dirty[inode] = None
        self._note(kind, path, before)

    def _modified(self, path: str, *, truncated: bool) -> None:
        entry = self._tree.get(path)
        if not isinstance(entry, tuple):
            self._arrived(path)
            return
        inode, version = entry
        if inode in self._dirty and version == inode.last:
            inode.versions[version] = None  # what is read now belongs to the change that comes
        if truncated:
            self._version(inode, path, File(EMPTY), "truncated")
            inode.growing = None
            self._dirty.pop(inode, None)
        else:
            self._version(inode, path, None, "grew")
            self._dirty[inode] = None

    def _closed(self, path: str) -> None:
        entry = self._tree.get(path)
        if isinstance(entry, tuple):
            if entry[0].growing is not None:  # so far only what was added has been read
                entry[0].growing = None
                self._modified(path, truncated=False)
            self._note("closed", path, self._tree)

    def _version(self, inode: _Inode, path: str, file: File | None, kind: Kind) -> None:
        inode.versions.append(file)
        before = self._tree
        self._tree = {**before, path: (inode, inode.last)}
        self._note(kind, path, before)

    def _arrived(self, path: str) -> None:
        at = self._at(path)
        if os.path.isdir(at) and not os.path.islink(at):
            before, drafts = self._tree, self._drafts
            self._forget(path)
            self._drafts = []  # all that it holds arrives at once
            self._adopt(path)
            self._drafts = drafts
            self._note("arrived", path, before)
        elif os.path.islink(at):
            before = self._tree
            self._forget(path)
            self._tree = {**self._tree, path: Link(os.readlink(at))}
            self._note("link", path, before)
        else:
            self._enter("arrived", path, _Inode(path, None), read=True)

    def _moved(self, origin: str, path: str) -> None:
        before = self._tree
        self._forget(path)
        tree = {}
        for name, entry in self._tree.items():
            new = path + name[len(origin) :] if name == origin or name.startswith(f"{origin}/") else name
            tree[new] = entry
            if new != name and isinstance(entry, tuple):
                entry[0].path = new
        for watch, name in self._watches.items():
            if name == origin or name.startswith(f"{origin}/"):
                self._watches[watch] = path + name[len(origin) :]
        self._tree = tree
        self._loose |= {origin, path}
        self._note("moved", path, before, origin)

    def _gone(self, path: str) -> None:
        if path in self._tree:
            before = self._tree
            self._forget(path)
            self._loose.add(path)
            self._note("removed", path, before)

    def _forget(self, path: str) -> None:
        """Take a path, and what lies below it, out of the tree."""
        inside = f"{path}/" if path else ""
        if path in self._tree:
            for name, entry in self._tree.items():
                if (name == path or name.startswith(inside)) and isinstance(entry, tuple):
                    entry[0].path = None
            self._tree = {name: entry for name, entry in self._tree.items() if name != path and not name.startswith(inside)}
        for watch in [watch for watch, name in self._watches.items() if name == path or name.startswith(inside)]:
            del self._watches[watch]

    def _adopt(self, path: str) -> None:
        """A directory is there: watch it, and take in what it holds by now."""
        at = self._at(path)
        watch = self._inotify.add(at)
        if watch is None:
            return
        self._watches[watch] = path
        if path not in self._tree:
            before = self._tree
            folder = node_at(at, self._contents)
            self._tree = {**before, path: folder if isinstance(folder, Folder) else Folder()}
            self._loose.add(path)
            self._note("folder", path, before)
        for entry in sorted(os.scandir(at), key=lambda found: found.name):
            inside = f"{path}/{entry.name}" if path else entry.name
            if inside in self._tree:
                continue
            if entry.is_symlink() or not entry.is_dir():
                self._arrived(inside)
            else:
                self._adopt(inside)

    # -- contents ----------------------------------------------------------------------------------------------

    def _resolve(self) -> None:
        """Read the files that have changed."""
        for inode in self._dirty:
            if inode.path is not None:
                inode.versions[-1] = self._read(inode)

    def _read(self, inode: _Inode) -> File | None:
        assert inode.path is not None
        try:
            with opened(self._at(inode.path)) as fd:
                status = os.fstat(fd)
                if status.st_size <= BLOCK:
                    inode.growing = None
                elif inode.growing is None or inode.growing.size >= status.st_size:
                    inode.growing = Growing()  # new, or changed where it had been read
                content = self._contents.put(fd, status.st_size, inode.growing)
                return File(content, status.st_mode & 0o7777, status.st_mtime_ns)
        except OSError:
            return None

    def _compare(self) -> None:
        """Events were lost: take the directory as it is. What came in between is not known."""
        before, drafts = self._tree, self._drafts
        self._tree, self._drafts = {}, []
        self._watches.clear()
        self._dirty.clear()
        self._adopt("")
        self._drafts = drafts
        self._note("arrived", "", before)

    def _note(self, kind: Kind, path: str, before: dict[str, _Entry], source: str | None = None) -> None:
        draft = _Draft(kind, path, self.step, before, source)
        draft.after = self._tree
        self._drafts.append(draft)

    def _finish(self) -> None:
        """All that could be read has been read."""
        for draft in self._drafts:
            self._add(draft)
        self._drafts.clear()

    def _add(self, draft: _Draft) -> None:
        kind, start = draft.kind, 0
        entry, old = draft.after.get(draft.path), draft.before.get(draft.path)
        if isinstance(entry, tuple) and kind in ("created", "grew"):
            kind, start = self._kind(kind, entry, old)
        unsynced = frozenset(name for name, held in draft.after.items() if isinstance(held, tuple) and held[0].synced < held[1])
        loose = frozenset(self._loose)
        before, after = self._frozen(draft.before), self._frozen(draft.after)
        self.changes.append(Change(kind, draft.path, draft.step, before, after, start, draft.source, unsynced, loose))

    def _kind(self, kind: Kind, entry: _Ref, old: object) -> tuple[Kind, int]:
        """A file that was made whole at once was linked or cloned; one that has changed has grown, or been rewritten."""
        file = entry[0].versions[entry[1]]
        if kind == "created":
            return ("arrived" if file is not None and file.content.size else "created"), 0
        held = old[0].versions[old[1]] if isinstance(old, tuple) else None
        if file is None or held is None:
            return "rewritten", 0
        if file.content.size == 0:
            return "truncated", 0
        if file.content.size > held.content.size and self._begins_with(file.content, held.content):
            return "grew", held.content.size
        return "rewritten", 0

    def _begins_with(self, content: Content, start: Content) -> bool:
        if content.pieces[: len(start.pieces)] == start.pieces:
            return True
        return self._contents.cut(content, start.size).digest == start.digest if start.size <= BLOCK else False

    def _frozen(self, tree: Iterable[Any]) -> Tree | None:
        """A tree with its contents; None where one is not known."""
        found: dict[str, Any] = {}
        for name, entry in tree.items():  # type: ignore[attr-defined]
            node = entry[0].versions[entry[1]] if isinstance(entry, tuple) else entry
            if node is None:
                return None
            found[name] = node
        return found

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path) if path else self._root


def _opened_next(events: list[Event], place: int) -> bool:
    """Whether a file was opened right behind a change of it: then opening it cut it to nothing."""
    this = events[place]
    following = next((event for event in events[place + 1 :] if (event.watch, event.name) == (this.watch, this.name)), None)
    return following is not None and bool(following.mask & inotify.OPEN)

"""Keep a directory's history: which file had which name when, and with what content."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable

from ..model import Change, File, Folder, Kind, Link, Tree
from .content_store import ContentStore, GrowingFile, open_plain_file
from .inodes import SPECIAL, Draft, Entry, Inode
from .io_accounting import WriteCount

__all__ = ["History", "moved_path"]


class History:
    """The tree of a directory, and the changes that led to it.

    A change is noted first. The contents of its files are filled in when they have been read.
    """

    def __init__(self, root: str, contents: ContentStore) -> None:
        self.root = root
        self.changes: list[Change] = []
        self.unseen: list[int] = []
        """Per look, the number of changes after which the directory's content is unknown."""
        self.hidden = 0
        """The number of changes since the last look that are not in the list."""
        self.step = 0
        self.tree: dict[str, Entry] = {}
        self.loose: frozenset[str] = frozenset()
        """The names that a power loss may remove."""
        self.unsynced: frozenset[str] = frozenset()
        """The files whose data a power loss may take."""
        self.dirty: dict[Inode, None] = {}
        self.closing: dict[Inode, None] = {}
        self._former: set[tuple[int, int]] = set()
        self._vanished = False  # a file was unlinked before it was read, and may have a second name
        self._touched: dict[Inode, None] = {}
        self._contents = contents
        self._keys: dict[tuple[int, int], Inode] = {}
        self._drafts: list[Draft] = []
        self._frozen: tuple[dict[str, Entry], Tree | None] = ({}, {})

    def at(self, path: str) -> str:
        """Return the absolute path."""
        return os.path.join(self.root, path) if path else self.root

    # -- names -------------------------------------------------------------------------------------

    def note(
        self,
        kind: Kind,
        path: str,
        before: dict[str, Entry],
        source: str | None = None,
        names: frozenset[str] | None = None,
    ) -> None:
        """Note the change that led to the present tree.

        Args:
            kind: What happened.
            path: The path that changed.
            before: The tree before it.
            source: For a rename, the path before.
            names: The only names that differ, if they are known.
        """
        self._drafts.append(
            Draft(
                kind, path, self.step, before, self.tree, source, self.unsynced, self.loose, names
            )
        )

    def enter(self, path: str, inode: Inode) -> None:
        """Give a file a name, in place of the entry that had it."""
        self.forget(path)
        inode.paths.add(path)
        self.tree = {**self.tree, path: (inode, inode.last)}
        self.loose |= {path}
        if inode.synced < inode.last:
            self.unsynced |= {path}

    def linked(self, path: str) -> Inode | None:
        """Return the known file of which a path is a hard link, or None."""
        try:
            status = os.lstat(self.at(path))
        except OSError:
            return None
        found = self._keys.get((status.st_dev, status.st_ino))
        return found if status.st_nlink > 1 and found is not None and found.paths else None

    def forget(self, path: str) -> None:
        """Remove a path and all paths below it from the tree."""
        if path not in self.tree:
            return
        inside = f"{path}/" if path else ""
        gone = (
            [path]
            if isinstance(self.tree[path], tuple)
            else [name for name in self.tree if name == path or name.startswith(inside)]
        )
        for name in gone:
            entry = self.tree[name]
            if isinstance(entry, tuple):
                self._unname(entry[0], name)
        self.tree = dict(self.tree)
        for name in gone:
            del self.tree[name]
        self.unsynced = self.unsynced.difference(gone)
        self.loose = self.loose.difference(gone)

    def _unname(self, inode: Inode, path: str) -> None:
        inode.paths.discard(path)
        if not inode.paths:
            self._vanished = self._vanished or inode.key is None
            if inode in self.dirty:  # a read by its old name might return a different file
                inode.lose()
                del self.dirty[inode]
            if inode.key is not None and self._keys.get(inode.key) is inode:
                del self._keys[inode.key]
                self._former.add(inode.key)

    def rename(self, origin: str, path: str) -> None:
        """Rename a path and all paths below it."""
        self.forget(path)
        tree = {}
        for name, entry in self.tree.items():
            new = moved_path(name, origin, path)
            tree[new] = entry
            if new != name and isinstance(entry, tuple):
                entry[0].paths.discard(name)
                entry[0].paths.add(new)
        self.tree = tree
        self.unsynced = frozenset(moved_path(name, origin, path) for name in self.unsynced)
        self.loose = frozenset(moved_path(name, origin, path) for name in self.loose) | {path}

    # -- contents ----------------------------------------------------------------------------------

    def version(self, inode: Inode, path: str, kind: Kind, file: File | None) -> None:
        """Give a file a new content.

        Args:
            inode: The file.
            path: The name by which it changed.
            kind: What happened.
            file: The content, or None if it is still to be read.
        """
        if inode in self.dirty:
            inode.lose()  # the next read belongs to the new change
        before = self.tree
        inode.versions.append(file)
        self.tree = {**before, **dict.fromkeys(inode.paths, (inode, inode.last))}
        self.unsynced |= inode.paths
        if file is None:
            self.dirty[inode] = None
        else:
            self.dirty.pop(inode, None)
            inode.growing, inode.supposed = None, []
        self.note(kind, path, before, names=frozenset(inode.paths))

    def unread(self, inode: Inode) -> None:
        """Mark a file's last content as still to be read."""
        inode.lose()
        self.dirty[inode] = None

    def touched(self, path: str) -> None:
        """Update a path's mode and time."""
        entry = self.tree.get(path)
        if isinstance(entry, Folder):
            try:
                self.tree = {**self.tree, path: _folder(self.at(path))}
            except OSError:
                return
        elif isinstance(entry, tuple):
            self._touched[entry[0]] = None

    def resolve(self) -> None:
        """Read the files that have changed."""
        for inode in self.dirty:
            if inode.paths:
                inode.versions[-1] = self._read(inode)
        for inode in self._touched:
            held = inode.versions[-1]
            if inode not in self.dirty and inode.paths and isinstance(held, File):
                try:
                    status = os.lstat(self.at(min(inode.paths)))
                except OSError:
                    continue
                inode.versions[-1] = dataclasses.replace(
                    held, mode=stat.S_IMODE(status.st_mode), mtime=status.st_mtime_ns
                )
        for inode in self.closing:
            self._verify(inode)

    def settled(self, written: WriteCount | None) -> None:
        """Accept the changes: nothing has changed since the files were read.

        ``written`` is the amount that was written since the last time, if it is known.
        """
        for pending in (self.dirty, self._touched, self.closing):
            pending.clear()
        self._vanished = False
        self._former.clear()
        index = len(self.changes)
        for draft in self._drafts:
            self._add(draft)
        self._drafts.clear()
        unseen = self.hidden + sum(_left_unknown(change) for change in self.changes[index:])
        if written is not None:
            unseen += self._account_for(index, written)
        self._missed(unseen)
        self.hidden = 0

    def _missed(self, unseen: int) -> None:
        if unseen:
            self.unseen.append(unseen)

    def _account_for(self, index: int, written: WriteCount) -> int:
        """Note the largest number of writes by which files have grown.

        Return how many known writes no cut of a file can represent. More bytes than these files
        grew by prove nothing, because other files may have been written. The exception is a call
        that also opened the file, because such a call does all of its work by itself.
        """
        latest = list(enumerate(self.changes[index:], index))
        grown = [(at, change) for at, change in latest if change.kind == "grew"]
        by = sum(_size(change) - change.start for _, change in grown)
        opened = {change.path for _, change in latest if change.kind in ("created", "truncated")}
        if by > written.size:
            for at, change in grown:  # not written from start to end, so a cut of it is not a state
                self.changes[at] = dataclasses.replace(change, start=_size(change))
            return (
                max(0, written.calls - len(grown))
                if opened.issuperset(change.path for _, change in grown)
                else 0
            )
        for at, change in grown:
            if by == written.size or change.path in opened:
                self.changes[at] = dataclasses.replace(
                    change, writes=max(1, written.calls - len(grown) + 1)
                )
        return 0

    def noted(self) -> int:
        """Return how many changes are still to be filled in."""
        return len(self._drafts)

    def merge(self, first: int) -> None:
        """Merge the changes from that one on, because their order is unknown."""
        drafts = self._drafts[first:]
        if len(drafts) > 1:
            self._drafts[first:] = [
                dataclasses.replace(drafts[-1], kind="arrived", before=drafts[0].before, names=None)
            ]

    def lose(self) -> None:
        """Give up on a directory that kept changing, so its content is unknown."""
        for inode in self.dirty:
            inode.lose()
        self.tree = {**self.tree, "\0": None}

    def inodes(self) -> list[Inode]:
        """Return the files, those that appeared first last."""
        return list(
            dict.fromkeys(
                entry[0] for entry in reversed(self.tree.values()) if isinstance(entry, tuple)
            )
        )

    def written_back(self, path: str | None) -> None:
        """Note that a file's data, or a directory's entries, survive a power loss.

        None stands for all files and directories.
        """
        entry = self.tree.get(path) if path is not None else None
        if isinstance(entry, tuple):
            entry[0].synced = entry[0].last
            self.unsynced -= entry[0].paths
        elif isinstance(entry, Folder):
            self.loose -= {
                name for name in self.loose if os.path.dirname(name) == path and name != path
            }
        elif path is None:
            self.loose = self.unsynced = frozenset()
            for inode in self.inodes():
                inode.synced = inode.last
        else:
            return
        self.note("synced", path or "", self.tree)
        self.settled(None)

    def _verify(self, inode: Inode) -> None:
        """Read a file as a whole that was only appended to so far, and check that it was."""
        if not inode.supposed or not inode.paths:
            return
        held = inode.versions[-1]
        read = self._read(inode, whole=True)
        if (
            isinstance(held, File)
            and isinstance(read, File)
            and held.content != read.content
            and held.content.size == read.content.size
        ):
            self._void(inode)
            inode.versions[-1] = read
        inode.supposed = []

    def _void(self, inode: Inode) -> None:
        """Void the contents that were assumed for a file and turned out to be wrong."""
        wrong = {
            held.content.digest
            for version, _ in inode.supposed
            if isinstance(held := inode.versions[version], File)
        }
        for version, _ in inode.supposed:
            inode.versions[version] = None
        lost = 0
        for index in range(min(index for _, index in inode.supposed), len(self.changes)):
            change = self.changes[index]
            before = None if _holds(change.before, wrong) else change.before
            after = None if _holds(change.after, wrong) else change.after
            self.changes[index] = voided = dataclasses.replace(change, before=before, after=after)
            lost += _left_unknown(voided) - _left_unknown(change)
        self._missed(lost)
        self._frozen = ({}, {})

    def _read(self, inode: Inode, *, whole: bool = False) -> File | Link | None:
        at = self.at(min(inode.paths))
        try:
            status = os.lstat(at)
            if stat.S_ISLNK(status.st_mode):
                return Link(os.readlink(at)) if self._is(inode, status) else None
            if not stat.S_ISREG(status.st_mode):
                return None if stat.S_ISDIR(status.st_mode) else SPECIAL
            with open_plain_file(at) as fd:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or not self._is(inode, status):
                    return None
                growing = inode.growing = inode.growing or GrowingFile()
                content = self._contents.put(fd, status.st_size, growing, whole=whole)
        except OSError:
            return None
        if growing.supposed:
            inode.supposed.append((inode.last, len(self.changes)))
        else:
            inode.supposed = inode.supposed if whole else []
        return File(content, stat.S_IMODE(status.st_mode), status.st_mtime_ns)

    def _is(self, inode: Inode, status: os.stat_result) -> bool:
        """Return True if the status is this file's, and not that of a newer file with its name."""
        key = status.st_dev, status.st_ino
        if (
            inode.fresh >= 0
            and inode.key is None
            and (status.st_nlink > 1 or key in self._keys or key in self._former or self._vanished)
        ):
            inode.versions[inode.fresh] = None  # not a new file, but a link to a file with content
        inode.fresh = -1
        if inode.key is None and (key not in self._keys or self._keys[key] is inode):
            inode.key = key
            self._keys[key] = inode
        return inode.key is None or inode.key == key

    # -- changes -----------------------------------------------------------------------------------

    def _add(self, draft: Draft) -> None:
        kind, start = draft.kind, 0
        entry, old = draft.after.get(draft.path), draft.before.get(draft.path)
        if isinstance(entry, tuple) and kind in ("created", "grew", "arrived"):
            kind, start = self._kind(kind, entry, old)
        before = self.frozen(draft.before)
        after = (
            self.frozen(draft.after)
            if draft.names is None or before is None
            else self._frozen_but(draft, before)
        )
        same_file = (
            isinstance(entry, tuple)
            and isinstance(old, tuple)
            and draft.before is not draft.after
            and kind != "moved"
        )
        if (
            same_file
            and after is not None
            and before is not None
            and after.get(draft.path) == before.get(draft.path)
        ):
            return  # an event that did not change the content
        self.changes.append(
            Change(
                kind,
                draft.path,
                draft.step,
                before,
                after,
                start,
                draft.source,
                draft.unsynced,
                draft.loose,
            )
        )

    def _kind(self, kind: Kind, entry: tuple[Inode, int], old: Entry) -> tuple[Kind, int]:
        """Return the kind of a change and the length of the part that stayed.

        A file that appeared complete was linked or cloned. A file that changed has grown, or was
        rewritten.
        """
        file = entry[0].versions[entry[1]]
        if isinstance(file, Link):
            return "link", 0
        if kind != "grew":
            return (
                "arrived"
                if kind == "arrived" or (file is not None and file.content.size)
                else "created"
            ), 0
        held = old[0].versions[old[1]] if isinstance(old, tuple) else None
        if file is None or not isinstance(held, File):
            return "rewritten", 0
        if file.content.size == 0:
            return "truncated", 0
        if file.content.size > held.content.size and self._contents.begins_with(
            file.content, held.content
        ):
            return "grew", held.content.size
        return "rewritten", 0

    def _frozen_but(self, draft: Draft, before: Tree) -> Tree | None:
        """Return the frozen tree after a change of only these names."""
        found = dict(before)
        for name in draft.names or ():
            entry = draft.after.get(name)
            node = entry[0].versions[entry[1]] if isinstance(entry, tuple) else entry
            if node is None:
                return self.frozen(draft.after)
            found[name] = node
        if any(node is SPECIAL for node in map(found.get, draft.names or ())):
            return self.frozen(draft.after)
        self._frozen = (draft.after, found)
        return found

    def frozen(self, tree: dict[str, Entry]) -> Tree | None:
        """Return a tree with its contents, or None if one is unknown."""
        if tree is self._frozen[0]:
            return self._frozen[1]
        found: dict[str, File | Link | Folder] = {}
        for name, entry in tree.items():
            node = entry[0].versions[entry[1]] if isinstance(entry, tuple) else entry
            if node is None:
                self._frozen = (tree, None)
                return None
            if node is not SPECIAL:
                found[name] = node
        self._frozen = (tree, found)
        return found


def _size(change: Change) -> int:
    node = change.after.get(change.path) if change.after is not None else None
    return node.content.size if isinstance(node, File) else change.start


def _left_unknown(change: Change) -> bool:
    """Return True if the directory's content after this change is unknown."""
    return change.after is None and change.kind not in ("closed", "synced")


def moved_path(name: str, origin: str, path: str) -> str:
    """Return a name after ``origin`` was renamed to ``path``."""
    return path + name[len(origin) :] if name == origin or name.startswith(f"{origin}/") else name


def _holds(tree: Tree | None, digests: Iterable[bytes]) -> bool:
    return tree is not None and any(
        isinstance(node, File) and node.content.digest in digests for node in tree.values()
    )


def _folder(at: str) -> Folder:
    status = os.lstat(at)
    return Folder(stat.S_IMODE(status.st_mode), status.st_mtime_ns)

"""Record the changes of a work directory by polling, on systems without inotify."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

# By name, so that patches of the module's attributes do not affect them.
from time import perf_counter, sleep
from typing import Any

from ...errors import BadArgument
from ..model import Change, File, Folder, Kind, Link, Tree
from .audit_events import STARTS, hear
from .content_store import ContentStore
from .file_cache import FileCache
from .history import moved_path
from .listing import OpenFiles, Status, has_fine_times, list_tree
from .recorder_base import RecorderBase
from .stat_poll import StatPoll
from .tree_diff import Key, TreeChange, TreeSnapshot, differences

__all__ = ["PollingRecorder"]

MAX_READ_RETRIES = 10
"""Read a directory that keeps changing at most this many times."""
_CHEAP_LOOK_SECONDS = 0.001
"""A look that takes no longer than this is made before each announced operation."""
_CHILD_POLL_SECONDS = 0.002
"""Look this often while there are child processes, because they may soon change their files again.
"""
_POLL_SECONDS = 0.01
"""Look this often without child processes."""


class PollingRecorder(RecorderBase):
    """Follows one directory as ``InotifyRecorder`` does, on any POSIX system.

    ``changes`` has the changes so far. The whole directory is listed, changed files are read, and
    it is listed again. So each reported content really existed at one moment. If the change that
    led to a new content is certain (a file that grew, a rename), it is reported as such. If not, it
    is one change of the whole, and no content in between is made up.

    Fidelity: contents between two looks are not seen. The directory is looked at before and
    after each operation of Python code. Writes by C++ or Rust are seen when the call ends, so a
    file that one call
    overwrites is never torn. The same holds for memory mappings, which are known if Python made
    them. Other processes are polled up to 500 times per second. On a network filesystem that
    caches file status, changes may be seen late.
    """

    def __init__(self, root: Path, contents: ContentStore) -> None:
        if not hasattr(os, "pread"):
            raise BadArgument(
                f"mlchaos.explore_crashes needs a POSIX system, and {sys.platform} is not one: run "
                f"it on Linux or macOS "
                "(for example, under WSL)"
            )
        super().__init__()
        self._root = os.path.realpath(root)
        self._contents = contents
        self._files = FileCache(contents, self._void)
        self._files.is_fine = _are_on_one_device(
            self._root, contents.path.parent
        ) and has_fine_times(str(contents.path.parent))
        self._open = OpenFiles()
        self._stat_poll = StatPoll(self._root, self._has_more)
        self.pending = self._stat_poll.due
        self._listing: dict[str, Status] = {}
        self._seen = TreeSnapshot({}, {})
        self._unsynced: set[Key] = set()
        self._loose: frozenset[str] = frozenset()
        self._unclosed: dict[Key, bool] = {}  # True if this process had the file open at a look
        self._opened, self._started = True, False
        self._known = False
        self.changes: list[Change] = []
        self.step = 0
        self.drain()
        self._unclosed.clear()
        self._unsynced.clear()
        self._loose = frozenset()
        self.changes.clear()
        self.start = self.tree()

    @property
    def unseen(self) -> Sequence[int]:
        """Return an empty tuple, because the number of changes between two looks is unknown."""
        return ()

    def tree(self) -> Tree | None:
        """Return the directory as it was last seen, or None if it has kept changing since."""
        return self._seen.tree if self._known else None

    # -- when to look ------------------------------------------------------------------------------

    def _has_more(self) -> bool:
        self._opened = self._opened or self._open.has_more()
        return self._opened

    def wait(self, seconds: float) -> bool:
        """Wait until something has changed, at most this many seconds."""
        end = perf_counter() + seconds
        while not self._stat_poll.has_changed():
            left = end - perf_counter()
            if left <= 0 or self._closed:
                return False
            sleep(min(left, _CHILD_POLL_SECONDS if self.has_children() else _POLL_SECONDS))
        return True

    def has_children(self) -> bool:
        """Return True if there may be child processes. They may write without an audit event here."""
        return self._started or bool(
            getattr(sys.modules.get("multiprocessing.process"), "_children", ())
        )

    def listen(self, look: Callable[[], None]) -> Callable[[], None]:
        """Call ``look`` before each Python operation that may change files.

        The returned function ends this.
        """

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if self._draining or self._closed:
                return
            if event == "mmap.__new__":
                self._files.map(arguments[0])
            self._started = self._started or event in STARTS
            if self._stat_poll.cost < _CHEAP_LOOK_SECONDS or self._stat_poll.differ():
                look()
            self._opened = self._opened or event == "open"
            self._stat_poll.marked = True

        return hear(heard)

    # -- looking -----------------------------------------------------------------------------------

    def _look(self, closely: bool) -> None:
        """Record the changes. ``closely`` has no effect here."""
        self._known = self._stat_poll.marked = False
        opened, self._opened = self._opened, False
        for _ in range(MAX_READ_RETRIES):
            began = perf_counter()
            listing = list_tree(self._root)
            listing_took = perf_counter() - began
            if listing is None:
                continue
            if (
                listing == self._listing
                and not self._files.young
                and not self._unclosed
                and not opened
            ):
                self._known = True
                break
            writing = self._written_here(listing, opened=opened)
            tree = self._read(listing, writing)
            if tree is not None and list_tree(self._root) == listing:
                self._take_in(listing, tree, writing)
                self._known = True
                break
        else:  # still changing after MAX_READ_RETRIES reads, so try again at the next look
            self._opened = opened
        self._stat_poll.looked(
            listing_took * 2,
            marked=not self._known or self._stat_poll.marked,
            young=bool(self._files.young),
        )

    def _written_here(self, listing: dict[str, Status], *, opened: bool) -> set[Key]:
        """Return the files that this process has open for writing.

        If none was opened since the last time, only changed files and open ones are checked.
        """
        return self._open.among(
            {
                status.key
                for path, status in listing.items()
                if status.is_file and (opened or status != self._listing.get(path))
            }
            | self._unclosed.keys()
        )

    def _read(self, listing: dict[str, Status], writing: set[Key]) -> Tree | None:
        tree: dict[str, File | Link | Folder] = {}
        try:
            for path, status in listing.items():
                if status.is_file:
                    tree[path] = self._files.file(
                        os.path.join(self._root, path), status, writing, len(self.changes)
                    )
                elif status.is_folder:
                    tree[path] = Folder(stat.S_IMODE(status.mode), status.mtime)
                elif status.is_link:
                    tree[path] = Link(os.readlink(os.path.join(self._root, path)))
        except OSError:  # gone, or replaced by a different file
            return None
        return tree

    # -- what has happened -------------------------------------------------------------------------

    def _take_in(self, listing: dict[str, Status], tree: Tree, writing: set[Key]) -> None:
        before, after = self._seen, TreeSnapshot(tree, {path: listing[path].key for path in tree})
        self._close_unchanged(after, writing)
        found = differences(
            before,
            after,
            self._contents,
            lambda path: self._is_torn(path, listing),
            lambda path: listing[path].ctime,
        )
        changed = [path for path in tree if not after.is_same(path, before)]
        self._unsynced.update(
            after.keys[path]
            for path in changed
            if isinstance(tree[path], File) and tree[path] != _held(before, after.keys[path])
        )
        self._seen = after
        self._set_loose(before, found, changed)
        tree_before = before.tree
        for difference in found:
            self._note(
                difference.kind,
                difference.path,
                tree_before,
                difference.after,
                difference.start,
                difference.source,
            )
            tree_before = difference.after
        self._close_ended(found, changed, writing)
        self._stat_poll.known(
            listing,
            [path for path, status in listing.items() if status != self._listing.get(path)],
            writing,
        )
        self._listing = listing
        self._files.forget_all_but(after.keys.values())

    def _is_torn(self, path: str, listing: dict[str, Status]) -> bool:
        """Return True if a file was only written to, as far as times show.

        Then each beginning of its new content existed at some moment. A new file must have been
        written after the last change
        of names in its directory, so that it had its name by then. For an existing file, no name
        may have changed since. For example, a journal that comes and goes may have made the write
        safe.
        """
        status, above = listing[path], os.path.dirname(path)
        names = {
            folder
            for folder, there in listing.items()
            if there.is_folder and there.mtime != self._mtime_of(folder)
        }
        if path in self._listing:
            return not names and self._files.is_fine
        if self.has_children():
            return False  # child processes may do several things between two looks
        return (
            names <= {above}
            and above in self._listing
            and listing[above].mtime < status.mtime == status.ctime
        )

    def _mtime_of(self, folder: str) -> int:
        return self._listing[folder].mtime if folder in self._listing else -1

    def _note(
        self,
        kind: Kind,
        path: str,
        before: Tree,
        after: Tree,
        start: int = 0,
        source: str | None = None,
    ) -> None:
        unsynced = frozenset(path for path, key in self._seen.keys.items() if key in self._unsynced)
        self.changes.append(
            Change(kind, path, self.step, before, after, start, source, unsynced, self._loose)
        )

    def _set_loose(
        self, before: TreeSnapshot, found: Iterable[TreeChange], changed: Iterable[str]
    ) -> None:
        keys = self._seen.keys
        for difference in found:
            if difference.source is not None:
                source, path = difference.source, difference.path
                self._loose = frozenset(moved_path(name, source, path) for name in self._loose) | {
                    path
                }
                return
        named = {path for path in changed if before.keys.get(path) != keys[path]}
        self._loose = frozenset((self._loose & keys.keys()) | named)

    def _close_unchanged(self, after: TreeSnapshot, writing: set[Key]) -> None:
        """Note that files are closed, if they are unchanged since the last look and not open here."""
        for key in self._unclosed.keys() - writing:
            held = _held(self._seen, key)
            if held is not None and _held(after, key) in (None, held):
                self._closes(key)

    def _close_ended(
        self, found: list[TreeChange], changed: Iterable[str], writing: set[Key]
    ) -> None:
        """Note that files are closed, if they were open here at the last look and are not now."""
        tells = bool(found) and found[-1].kind in ("created", "grew", "truncated", "rewritten")
        for path in changed:
            key = self._seen.keys[path]
            if isinstance(self._seen.tree[path], File) and (tells or key in writing):
                self._unclosed.setdefault(key, False)
        for key in writing:
            self._unclosed.setdefault(key, True)
        for key, seen_open in list(self._unclosed.items()):
            if key in writing:
                self._unclosed[key] = True
            elif seen_open:
                self._closes(key)

    def _closes(self, key: Key) -> None:
        del self._unclosed[key]
        path = min((path for path, other in self._seen.keys.items() if other == key), default=None)
        if path is not None:
            self._note("closed", path, self._seen.tree, self._seen.tree)

    def _void(self, first: int, wrong: set[bytes]) -> None:
        """Void contents of a large file that were assumed and turned out to be wrong."""

        def right(tree: Tree | None) -> Tree | None:
            holds = tree is not None and any(
                isinstance(node, File) and node.content.digest in wrong for node in tree.values()
            )
            return None if holds else tree

        for index in range(first, len(self.changes)):
            change = self.changes[index]
            self.changes[index] = Change(
                change.kind, change.path, change.step, right(change.before), right(change.after), change.start, change.source,
                change.unsynced, change.loose,
            )  # fmt: skip

    # -- power losses ------------------------------------------------------------------------------

    def path_of(self, fd: int) -> str:
        """Return the path of an open file or directory.

        Raises:
            OSError: It is not in this directory.
        """
        self.drain()
        status = os.fstat(fd)
        for path, listed_as in self._listing.items():
            if listed_as.key == (status.st_dev, status.st_ino):
                return os.path.join(self._root, path)
        raise FileNotFoundError(fd)

    def synced(self, path: str) -> None:
        """Note that a file or directory was written back, so that it survives a power loss."""
        self.drain()
        relative = os.path.relpath(path, self._root).replace(os.sep, "/")
        relative = "" if relative == "." else relative
        node = self._seen.tree.get(relative)
        if isinstance(node, File):
            self._unsynced.discard(self._seen.keys[relative])
        elif isinstance(node, Folder):
            self._loose -= {
                name
                for name in self._loose
                if os.path.dirname(name) == relative and name != relative
            }
        else:
            return
        self._note("synced", relative, self._seen.tree, self._seen.tree)

    def all_synced(self) -> None:
        """Note that everything was written back."""
        self.drain()
        self._unsynced.clear()
        self._loose = frozenset()
        self._note("synced", "", self._seen.tree, self._seen.tree)


def _are_on_one_device(path: str, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(path).st_dev == os.stat(other).st_dev
    return False


def _held(seen: TreeSnapshot, key: Key) -> object:
    """Return a file's content."""
    return next((seen.tree[path] for path, other in seen.keys.items() if other == key), None)

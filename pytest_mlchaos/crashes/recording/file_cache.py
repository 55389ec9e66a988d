"""Cache the contents of files in a polled directory.

A file is read again if its status has changed, or if its content may have changed without that.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from time import monotonic  # by name, so that patches of the module's attributes do not affect it

from ..model import Content, File
from .content_store import MAX_WHOLE_BYTES, ContentStore, GrowingFile, open_plain_file
from .listing import Status, are_fine

__all__ = ["FileCache"]

Key = tuple[int, int]
# Two changes within this many seconds may have equal file times. FAT has times of two seconds, and
# most other filesystems have much finer ones than _GRAIN.
_GRAIN, _COARSE = 0.02, 2.1


class _CachedFile:
    """The last known state of a file."""

    __slots__ = ("file", "growing", "read", "since", "stamp", "supposed", "supposed_from")

    def __init__(self) -> None:
        self.stamp = (-1, -1, -1)
        self.since = self.read = 0.0
        self.file: File | None = None
        self.growing = GrowingFile()
        self.supposed: set[bytes] = set()
        """Digests of contents that were not read as a whole."""
        self.supposed_from = 0


class FileCache:
    """The content of each file, by device and inode.

    Files in ``young`` are read at each look, because they may change without a new status. A large
    file that is being written from start to end is read in parts, and as a whole once it is closed.
    If the parts turn out to be wrong, ``void`` is called with the number of the first change and
    the digests of the wrong contents.
    """

    def __init__(self, contents: ContentStore, void: Callable[[int, set[bytes]], None]) -> None:
        self.young: set[Key] = set()
        self.is_fine = False
        """True if file times are known to differ for changes in quick succession."""
        self._contents = contents
        self._void = void
        self._known: dict[Key, _CachedFile] = {}
        self._mapped: set[Key] = set()

    def map(self, fd: int) -> None:
        """Note that a file is mapped into memory, so that it may change without a new status."""
        with contextlib.suppress(OSError, TypeError):
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                self._mapped.add((status.st_dev, status.st_ino))

    def forget_all_but(self, keys: Iterable[Key]) -> None:
        """Forget files that are gone."""
        kept = set(keys)
        for key in self._known.keys() - kept:
            del self._known[key]
        self.young &= kept
        self._mapped &= kept

    def file(self, path: str, status: Status, writing: set[Key], change: int) -> File:
        """Return the file's content.

        Args:
            path: The file's path.
            status: Its status in the listing.
            writing: The files that this process has open for writing.
            change: The number of the next change.

        Raises:
            OSError: The file is gone, or the path is a different file now.
        """
        key = status.key
        known = self._known.setdefault(key, _CachedFile())
        stamp, same = (status.size, status.mtime, status.ctime), False
        if known.file is not None:
            same = known.stamp == stamp
            ended = bool(known.supposed) and key not in writing
            if same and key not in self.young and not ended:
                return (
                    known.file
                    if known.file.mode == stat.S_IMODE(status.mode)
                    else self._keep(known, known.file.content, status)
                )
        if not same:
            self.is_fine = self.is_fine or are_fine(known.stamp[1], status.mtime)
            known.stamp, known.since = stamp, monotonic()
        self._read(known, path, status, change, same=same, whole=key not in writing)
        old = self.is_fine or known.read - known.since >= (
            _GRAIN if status.mtime % 1_000_000_000 else _COARSE
        )
        (self.young.discard if old and key not in self._mapped else self.young.add)(key)
        assert known.file is not None
        return known.file

    def _keep(self, known: _CachedFile, content: Content, status: Status) -> File:
        known.file = File(content, stat.S_IMODE(status.mode), status.mtime)
        return known.file

    def _read(
        self, known: _CachedFile, path: str, status: Status, change: int, *, same: bool, whole: bool
    ) -> None:
        known.read = monotonic()
        with open_plain_file(path) as fd:
            there = os.fstat(fd)
            if (there.st_dev, there.st_ino) != status.key or there.st_size != status.size:
                raise FileNotFoundError(path)
            before = known.file
            if (
                same
                and not whole
                and before is not None
                and status.size > MAX_WHOLE_BYTES
                and _looks_the_same(fd, known.growing)
            ):
                known.supposed_from = known.supposed_from if known.supposed else change
                known.supposed.add(before.content.digest)
                return
            content = (
                before.content
                if same and before is not None and known.supposed
                else self._contents.put(fd, status.size, known.growing)
            )
            if known.growing.supposed:
                known.supposed_from = known.supposed_from if known.supposed else change
                known.supposed.add(content.digest)
            if whole and known.supposed:
                content = self._verified(known, fd, content)
            elif not known.growing.supposed:
                known.supposed = set()
        if content.size != status.size:
            raise FileNotFoundError(path)
        self._keep(known, content, status)

    def _verified(self, known: _CachedFile, fd: int, content: Content) -> Content:
        """Read the file as a whole, and void the parts that were wrong."""
        read = self._contents.put(fd, content.size, known.growing, whole=True)
        if read != content:
            self._void(known.supposed_from, known.supposed)
        known.supposed = set()
        return read


def _looks_the_same(fd: int, growing: GrowingFile) -> bool:
    """Return True if the start and the end of the file are unchanged."""
    size = growing.content.size
    at_end = os.pread(fd, len(growing.end), max(0, size - len(growing.end)))
    return (
        bool(growing.head)
        and os.pread(fd, len(growing.head), 0) == growing.head
        and at_end == growing.end
    )

"""Keep copies of the files that a traced run writes.

Each of its writes is repeated on the copy, which then has the file's content at that moment.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from ..model import Content, File
from .content_store import EMPTY, MAX_WHOLE_BYTES, ContentStore, GrowingFile
from .inodes import Inode

__all__ = ["Shadow", "Shadows"]


class Shadow:
    """A copy of a file. ``known`` is False if its content is unknown."""

    def __init__(self, inode: Inode, mode: int, time: int) -> None:
        self.inode = inode
        self.mode = mode
        self.time = time
        self.known = True
        self._data = bytearray()
        self._fd = -1
        """The descriptor of a temporary file with the copy if it is large, else -1."""
        self._growing = GrowingFile()
        self._held: Content | None = EMPTY

    def close(self) -> None:
        """Close the copy."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def load(self, path: str) -> None:
        """Read the file's present content."""
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                self.write(data, self.size)

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self._fd).st_size if self._fd >= 0 else len(self._data)

    def write(self, data: bytes, at: int) -> None:
        """Write the data at an offset."""
        if not data:
            return
        self._change(at, at + len(data))
        if self._fd < 0:
            if at > len(self._data):
                self._data.extend(bytes(at - len(self._data)))
            self._data[at : at + len(data)] = data
            return
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written

    def resize(self, size: int) -> None:
        """Cut the copy, or fill it with zeros, to this size."""
        self._change(size, size)
        if self._fd >= 0:
            os.ftruncate(self._fd, size)
        else:
            del self._data[size:]
            self._data.extend(bytes(size - len(self._data)))
        self.known = self.known or not size

    def read(self, at: int, size: int) -> bytes:
        """Return up to ``size`` bytes from an offset."""
        return os.pread(self._fd, size, at) if self._fd >= 0 else bytes(self._data[at : at + size])

    def _change(self, at: int, end: int) -> None:
        """Prepare a change from offset ``at`` to ``end``. A large copy moves to a temporary file."""
        if self._fd < 0 and end > MAX_WHOLE_BYTES:
            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
            os.pwrite(self._fd, self._data, 0)
            self._data = bytearray()
        if at < self._growing.content.size:
            self._growing = GrowingFile()  # an earlier part changes, so it must be read as a whole
        self._held = None

    def file(self, contents: ContentStore) -> File | None:
        """Return the content, or None if it is unknown."""
        if not self.known:
            return None
        if self._held is None:
            if self._fd >= 0:
                self._held = contents.put(self._fd, self.size, self._growing)
            else:
                self._held = self._growing.content = contents.keep(
                    bytes(self._data), self._growing.content
                )
        return File(self._held, self.mode, self.time)


class Shadows:
    """The copies of all files that were written, by inode."""

    def __init__(self) -> None:
        self._of: dict[Inode, Shadow] = {}

    def new(self, mode: int, time: int) -> Shadow:
        """Return the copy of a new, empty file."""
        inode = Inode("", None)
        inode.paths.clear()
        self._of[inode] = shadow = Shadow(inode, mode, time)
        return shadow

    def of(self, inode: Inode) -> Shadow | None:
        """Return the copy of a file, or None for a link."""
        return self._of.get(inode)

    def copied(self, path: Path) -> Shadow:
        """Return a copy of an existing file."""
        status = path.stat()
        shadow = self.new(stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        try:
            shadow.load(str(path))
        except PermissionError:
            shadow.known = False
        return shadow

    def close(self) -> None:
        """Close all copies."""
        for shadow in self._of.values():
            shadow.close()

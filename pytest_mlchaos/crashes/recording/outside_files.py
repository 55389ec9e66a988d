"""Copies of the files that a traced run writes: each of its writes is done to the copy again, and what the file held then is known."""

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
    """A file, whatever its names are. ``known``: whether its content is."""

    def __init__(self, inode: Inode, mode: int, time: int) -> None:
        self.inode = inode
        self.mode = mode
        self.time = time
        self.known = True
        self._data = bytearray()
        self._fd = -1
        """The descriptor of the file that holds the copy once it is large; -1 before."""
        self._growing = GrowingFile()
        self._held: Content | None = EMPTY

    def close(self) -> None:
        """It is written to no more."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def load(self, path: str) -> None:
        """Hold what lies there."""
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                self.write(data, self.size)

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._fd).st_size if self._fd >= 0 else len(self._data)

    def write(self, data: bytes, at: int) -> None:
        """Write it there."""
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
        """Cut it, or fill it with zeros, to that size."""
        self._change(size, size)
        if self._fd >= 0:
            os.ftruncate(self._fd, size)
        else:
            del self._data[size:]
            self._data.extend(bytes(size - len(self._data)))
        self.known = self.known or not size

    def read(self, at: int, size: int) -> bytes:
        """Return so many bytes of it."""
        return os.pread(self._fd, size, at) if self._fd >= 0 else bytes(self._data[at : at + size])

    def _change(self, at: int, end: int) -> None:
        """It is changed from there on, and reaches up to ``end`` then."""
        if self._fd < 0 and end > MAX_WHOLE_BYTES:
            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
            os.pwrite(self._fd, self._data, 0)
            self._data = bytearray()
        if at < self._growing.content.size:
            self._growing = GrowingFile()  # it is read as a whole
        self._held = None

    def file(self, contents: ContentStore) -> File | None:
        """Return the content; None if it is not known."""
        if not self.known:
            return None
        if self._held is None:
            if self._fd >= 0:
                self._held = contents.put(self._fd, self.size, self._growing)
            else:
                self._held = self._growing.content = contents.keep(bytes(self._data), self._growing.content)
        return File(self._held, self.mode, self.time)


class Shadows:
    """The shadows of all files that were written, by inode."""

    def __init__(self) -> None:
        self._of: dict[Inode, Shadow] = {}

    def new(self, mode: int, time: int) -> Shadow:
        """Of a file that was just made."""
        inode = Inode("", None)
        inode.paths.clear()
        self._of[inode] = shadow = Shadow(inode, mode, time)
        return shadow

    def of(self, inode: Inode) -> Shadow | None:
        """Return None for a link."""
        return self._of.get(inode)

    def copied(self, path: Path) -> Shadow:
        """Of a file that lies there."""
        status = path.stat()
        shadow = self.new(stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        try:
            shadow.load(str(path))
        except PermissionError:
            shadow.known = False
        return shadow

    def close(self) -> None:
        """They are needed no more."""
        for shadow in self._of.values():
            shadow.close()

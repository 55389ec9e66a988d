"""Where the contents of files are kept: each distinct one once, in one file that only grows."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ...core.crashes import Content

__all__ = ["EMPTY", "Contents", "Growing", "opened"]

BLOCK = 1 << 20
_DIGEST = 16


def _hash(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=_DIGEST)


EMPTY = Content(0, _hash().digest())


class Growing:
    """A large file that is being written from its start to its end: what is known of it so far.

    Only what was added is read, each time; once it is closed it is read as a whole, in case something before was changed.
    """

    def __init__(self) -> None:
        self.size = 0
        self.pieces: tuple[tuple[int, int], ...] = ()
        self.hash = _hash()


class Contents:
    """Distinct contents of files, by digest.

    They lie in ``path``. Another process may open that too, and read what this one has put there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = os.fstat(self._fd).st_size
        self._known: dict[bytes, Content] = {EMPTY.digest: EMPTY}

    def close(self) -> None:
        """No more contents are put or read."""
        os.close(self._fd)

    def refresh(self) -> None:
        """Another process may have put something there."""
        self._end = os.fstat(self._fd).st_size

    def put(self, fd: int, size: int, growing: Growing | None = None) -> Content:
        """The content of an open file of that size. ``growing``: it has only been appended to since it was last read."""
        if growing is not None and 0 < growing.size <= size:
            return self._grown(fd, size, growing)
        content = self.keep(os.pread(fd, size, 0)) if size <= BLOCK else self._large(fd, size)
        if growing is not None:
            growing.size, growing.pieces, growing.hash = content.size, content.pieces, _hash()
            for block in self.blocks(content):
                growing.hash.update(block)
        return content

    @staticmethod
    def digest(data: bytes) -> bytes:
        """What these bytes are known by."""
        return _hash(data).digest()

    def keep(self, data: bytes) -> Content:
        """The content that these bytes are."""
        digest = _hash(data).digest()
        if digest not in self._known:
            self._known[digest] = Content(len(data), digest, ((self._append(data), len(data)),))
        return self._known[digest]

    def _append(self, data: bytes) -> int:
        start = self._end
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._end)
            self._end += written
            view = view[written:]
        return start

    def _large(self, fd: int, size: int) -> Content:
        """Hashed first: a content that is known is not written again."""
        hashed = _hash()
        for block in _read(fd, 0, size):
            hashed.update(block)
        digest = hashed.digest()
        if digest not in self._known:
            start, kept = self._end, 0
            for block in _read(fd, 0, size):
                self._append(block)
                kept += len(block)
            self._known[digest] = Content(kept, digest, ((start, kept),))
        return self._known[digest]

    def _grown(self, fd: int, size: int, growing: Growing) -> Content:
        start, kept = self._end, 0
        for block in _read(fd, growing.size, size):
            growing.hash.update(block)
            self._append(block)
            kept += len(block)
        if kept:
            growing.pieces = (*growing.pieces, (start, kept))
            growing.size += kept
        digest = growing.hash.copy().digest()
        return self._known.setdefault(digest, Content(growing.size, digest, growing.pieces))

    def cut(self, content: Content, size: int) -> Content:
        """The first bytes of a content."""
        pieces, left = [], size
        for offset, length in content.pieces:
            if left <= 0:
                break
            pieces.append((offset, min(length, left)))
            left -= length
        if size > BLOCK:  # reading it only to know its digest would cost as much as writing it
            return Content(size, _hash(content.digest + size.to_bytes(8, "big")).digest(), tuple(pieces))
        return self._joined(size, tuple(pieces))

    def zeros(self, size: int) -> Content:
        """As many zero bytes: what a power loss leaves of data that was never written back."""
        if size > BLOCK:
            return Content(size, _hash(b"zeros" + size.to_bytes(8, "big")).digest(), ((-1, size),))
        return self._joined(size, ((-1, size),))

    def _joined(self, size: int, pieces: tuple[tuple[int, int], ...]) -> Content:
        data = b"".join(self.blocks(Content(size, b"", pieces)))
        return Content(size, _hash(data).digest(), pieces)

    def blocks(self, content: Content) -> Iterator[bytes]:
        """The bytes of a content, in blocks."""
        for offset, length in content.pieces:
            if offset < 0:
                for done in range(0, length, BLOCK):
                    yield bytes(min(BLOCK, length - done))
            else:
                yield from _read(self._fd, offset, offset + length)

    def write(self, content: Content, fd: int) -> None:
        """Write a content to an open, empty file."""
        for offset, length in content.pieces:
            if offset < 0:
                os.lseek(fd, 0, os.SEEK_END)
                os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_END) + length)
            elif length > BLOCK and hasattr(os, "copy_file_range"):
                self._copy(offset, length, fd)
            else:
                for block in _read(self._fd, offset, offset + length):
                    os.write(fd, block)

    def _copy(self, offset: int, length: int, fd: int) -> None:
        """Copied by the kernel, which shares the blocks where the filesystem can."""
        os.lseek(fd, 0, os.SEEK_END)
        while length > 0:
            try:
                done = os.copy_file_range(self._fd, fd, length, offset)
            except OSError:  # another filesystem, or one that cannot
                done = 0
            if not done:
                for block in _read(self._fd, offset, offset + length):
                    os.write(fd, block)
                return
            offset, length = offset + done, length - done


def _read(fd: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        block = os.pread(fd, min(BLOCK, end - start), start)
        if not block:
            return
        yield block
        start += len(block)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A file opened for reading, by descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    try:
        yield fd
    finally:
        os.close(fd)

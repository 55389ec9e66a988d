"""Where the contents of files are kept: each distinct block once, in one file that only grows."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..model import Content

__all__ = ["BLOCK_BYTES", "EMPTY", "MAX_WHOLE_BYTES", "ContentStore", "GrowingFile", "open_plain_file"]

BLOCK_BYTES = 1 << 20
"""What is kept is shared in units of this many bytes."""
MAX_WHOLE_BYTES = 1 << 17
"""A file of at most this many bytes is read as a whole whenever it has changed."""
_BORDER_BYTES = 1 << 12
_DIGEST_BYTES = 16


def _hash(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES)


class _Digests:
    """The digests of a content's blocks, taken while it grows."""

    def __init__(self) -> None:
        self._whole: list[bytes] = []
        self._tail = _hash()
        self._held = 0

    def add(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = BLOCK_BYTES - self._held
            self._tail.update(view[:room])
            self._held += len(view[:room])
            view = view[room:]
            if self._held == BLOCK_BYTES:
                self._whole.append(self._tail.digest())
                self._tail, self._held = _hash(), 0

    def add_block(self, digest: bytes) -> None:
        """A whole block, whose digest is known."""
        self._whole.append(digest)

    def blocks(self) -> tuple[bytes, ...]:
        return (*self._whole, self._tail.digest()) if self._held or not self._whole else tuple(self._whole)


def _digest(blocks: tuple[bytes, ...]) -> bytes:
    """A content of one block has that block's digest."""
    return blocks[0] if len(blocks) == 1 else _hash(b"".join(blocks)).digest()


EMPTY = Content(0, _digest((_hash().digest(),)))


class GrowingFile:
    """A file that is being written from its start to its end: what is known of it so far.

    Of a large one only what was added is read, and a few bytes in front of that and at its head: whoever closes it has it read as a whole.
    """

    def __init__(self) -> None:
        self.content = EMPTY
        self.digests = _Digests()
        self.supposed = False
        """Whether what was known of it was not read again, the last time."""
        self.head = b""
        self.end = b""

    def follows(self, fd: int, size: int) -> bool:
        """Whether the file still begins with what is known, as far as a quick look tells."""
        known = self.content.size
        return (
            MAX_WHOLE_BYTES < known < size
            and os.pread(fd, len(self.head), 0) == self.head
            and os.pread(fd, len(self.end), known - len(self.end)) == self.end
        )


class ContentStore:
    """Distinct contents of files, by digest.

    They lie in ``path``. Another process may open that too, and read what this one has put there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = os.fstat(self._fd).st_size
        self._known: dict[bytes, Content] = {EMPTY.digest: EMPTY}
        self._blocks: dict[bytes, tuple[tuple[int, int], ...]] = {}

    @property
    def kept(self) -> int:
        """How many bytes lie in the store."""
        return self._end

    def close(self) -> None:
        """No more contents are put or read."""
        os.close(self._fd)

    def refresh(self) -> None:
        """Another process may have put something there."""
        self._end = os.fstat(self._fd).st_size

    def put(self, fd: int, size: int, growing: GrowingFile | None = None, *, whole: bool = False) -> Content:
        """The content of an open file of that size.

        ``growing``: what is known of it, which is brought up to date; ``whole``: read all of it, whatever is known.
        """
        growing = growing or GrowingFile()
        growing.supposed = not whole and growing.follows(fd, size)
        if growing.supposed:
            content = self._grown(fd, size, growing)
        elif size <= MAX_WHOLE_BYTES:
            content = self.keep(os.pread(fd, size, 0), growing.content)
        else:
            content = self._large(fd, size, growing)
        growing.content = content
        if content.size > MAX_WHOLE_BYTES:
            growing.head = os.pread(fd, _BORDER_BYTES, 0)
            growing.end = os.pread(fd, _BORDER_BYTES, content.size - _BORDER_BYTES)
        return content

    @staticmethod
    def digest(data: bytes) -> bytes:
        """What these bytes are known by."""
        return _hash(data).digest()

    def keep(self, data: bytes, before: Content = EMPTY) -> Content:
        """The content that these bytes are; what they share with ``before``, if they begin with it, is not kept again."""
        digest = _hash(data).digest()
        if digest not in self._known:
            old = before.size if before.size < len(data) and _hash(data[: before.size]).digest() == before.digest else 0
            pieces = _join_pieces(before.pieces if old else (), self._append(data[old:]))
            self._known[digest] = Content(len(data), digest, pieces, (digest,))
        return self._known[digest]

    def _append(self, data: bytes) -> tuple[tuple[int, int], ...]:
        start = self._end
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._end)
            self._end += written
            view = view[written:]
        return ((start, len(data)),) if data else ()

    def _large(self, fd: int, size: int, growing: GrowingFile) -> Content:
        """Read as a whole: only blocks that are not known are kept."""
        old, pieces, done = growing.content, EMPTY.pieces, 0
        growing.digests = _Digests()
        for block in _read(fd, 0, size):
            digest = _hash(block).digest()
            pieces = _join_pieces(pieces, self._block(block, digest, done, old))
            if len(block) == BLOCK_BYTES:
                growing.digests.add_block(digest)
            else:
                growing.digests.add(block)
            done += len(block)
        return self._content(done, growing.digests.blocks(), pieces)

    def _block(self, block: bytes, digest: bytes, start: int, old: Content) -> tuple[tuple[int, int], ...]:
        """Where a block is kept. ``old``: what the file held, which may begin with it, or be its beginning."""
        if old.blocks[start // BLOCK_BYTES : start // BLOCK_BYTES + 1] == (digest,):
            return _slice_pieces(old.pieces, start, len(block))
        if digest not in self._blocks:
            held = old.size if start == 0 < old.size <= MAX_WHOLE_BYTES and _hash(block[: old.size]).digest() == old.digest else 0
            self._blocks[digest] = _join_pieces(old.pieces if held else (), self._append(block[held:]))
        return self._blocks[digest]

    def _grown(self, fd: int, size: int, growing: GrowingFile) -> Content:
        pieces, done = growing.content.pieces, growing.content.size
        for data in _read(fd, done, size):
            pieces = _join_pieces(pieces, self._append(data))
            growing.digests.add(data)
            done += len(data)
        blocks = growing.digests.blocks()
        for place in range(growing.content.size // BLOCK_BYTES, done // BLOCK_BYTES):
            self._blocks.setdefault(blocks[place], _slice_pieces(pieces, place * BLOCK_BYTES, BLOCK_BYTES))
        return self._content(done, blocks, pieces)

    def _content(self, size: int, blocks: tuple[bytes, ...], pieces: tuple[tuple[int, int], ...]) -> Content:
        digest = _digest(blocks)
        return self._known.setdefault(digest, Content(size, digest, pieces, blocks))

    def begins_with(self, content: Content, start: Content) -> bool:
        """Whether a content's first bytes are another."""
        if _slice_pieces(content.pieces, 0, start.size) == start.pieces:
            return True
        whole = start.size // BLOCK_BYTES
        return content.blocks[:whole] == start.blocks[:whole] and self.cut(content, start.size) == start

    def cut(self, content: Content, size: int) -> Content:
        """The first bytes of a content."""
        pieces = _slice_pieces(content.pieces, 0, size)
        tail = b"".join(self.blocks(Content(0, b"", _slice_pieces(pieces, size // BLOCK_BYTES * BLOCK_BYTES, size % BLOCK_BYTES))))
        return self._content(size, (*content.blocks[: size // BLOCK_BYTES], *([_hash(tail).digest()] if tail or not size else [])), pieces)

    def zeros(self, size: int) -> Content:
        """As many zero bytes: what a power loss leaves of data that was never written back."""
        whole = (_hash(bytes(BLOCK_BYTES)).digest(),) * (size // BLOCK_BYTES)
        tail = (_hash(bytes(size % BLOCK_BYTES)).digest(),) if size % BLOCK_BYTES or not size else ()
        return self._content(size, whole + tail, ((-1, size),) if size else ())

    def blocks(self, content: Content) -> Iterator[bytes]:
        """The bytes of a content, in blocks."""
        for offset, length in content.pieces:
            if offset < 0:
                for done in range(0, length, BLOCK_BYTES):
                    yield bytes(min(BLOCK_BYTES, length - done))
            else:
                yield from _read(self._fd, offset, offset + length)

    def part(self, content: Content, start: int, size: int) -> bytes:
        """So many bytes of a content, or what there is of them."""
        pieces = _slice_pieces(content.pieces, start, size)
        return b"".join(self.blocks(Content(size, b"", pieces)))

    def write(self, content: Content, fd: int) -> None:
        """Write a content to an open, empty file."""
        for offset, length in content.pieces:
            if offset < 0:
                os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_END) + length)
                os.lseek(fd, 0, os.SEEK_END)
            elif length > BLOCK_BYTES and hasattr(os, "copy_file_range"):
                self._copy(offset, length, fd)
            else:
                for block in _read(self._fd, offset, offset + length):
                    _write_all(fd, block)

    def _copy(self, offset: int, length: int, fd: int) -> None:
        """Copied by the kernel, which shares the blocks where the filesystem can."""
        while length > 0:
            try:
                done = os.copy_file_range(self._fd, fd, length, offset)
            except OSError:  # another filesystem, or one that cannot
                done = 0
            if not done:
                for block in _read(self._fd, offset, offset + length):
                    _write_all(fd, block)
                return
            offset, length = offset + done, length - done


def _join_pieces(pieces: tuple[tuple[int, int], ...], more: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Pieces one behind the other; those that lie so in the store become one."""
    if pieces and more and pieces[-1][0] >= 0 and sum(pieces[-1]) == more[0][0]:
        return (*pieces[:-1], (pieces[-1][0], pieces[-1][1] + more[0][1]), *more[1:])
    return pieces + more


def _slice_pieces(pieces: tuple[tuple[int, int], ...], start: int, length: int) -> tuple[tuple[int, int], ...]:
    """The pieces of a part of a content."""
    found, place = [], 0
    for offset, size in pieces:
        first, last = max(start, place), min(start + length, place + size)
        if first < last:
            found.append((offset + first - place if offset >= 0 else -1, last - first))
        place += size
    return tuple(found)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        block = os.pread(fd, min(BLOCK_BYTES, end - start), start)
        if not block:
            return
        yield block
        start += len(block)


@contextlib.contextmanager
def open_plain_file(path: str) -> Iterator[int]:
    """A file opened for reading, by descriptor; one that is no plain file does not make anybody wait."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        yield fd
    finally:
        os.close(fd)

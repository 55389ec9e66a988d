"""Store the contents of files: each distinct block once, in one file that only grows."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..model import Content

__all__ = [
    "BLOCK_BYTES",
    "EMPTY",
    "MAX_WHOLE_BYTES",
    "ContentStore",
    "GrowingFile",
    "digest_of_file",
    "open_plain_file",
]

BLOCK_BYTES = 1 << 20
"""Contents share blocks of this size."""
MAX_WHOLE_BYTES = 1 << 17
"""A changed file of at most this size is read as a whole each time."""
_BORDER_BYTES = 1 << 12
"""A growing file is checked for rewrites by this many bytes at its start and before its new part.
"""
_DIGEST_BYTES = 16


def _hash(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES)


class _Digests:
    """The digests of a content's blocks, updated while it grows."""

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
        """Add a whole block whose digest is known."""
        self._whole.append(digest)

    def blocks(self) -> tuple[bytes, ...]:
        return (
            (*self._whole, self._tail.digest())
            if self._held or not self._whole
            else tuple(self._whole)
        )


def _digest(blocks: tuple[bytes, ...]) -> bytes:
    """Return a content's digest. A content of one block has that block's digest."""
    return blocks[0] if len(blocks) == 1 else _hash(b"".join(blocks)).digest()


def digest_of_file(path: str) -> bytes:
    """Return the digest that the content of a file has in a store."""
    digests = _Digests()
    with open_plain_file(path) as fd:
        for block in _read(fd, 0, os.fstat(fd).st_size):
            digests.add(block)
    return _digest(digests.blocks())


EMPTY = Content(0, _digest((_hash().digest(),)))


class GrowingFile:
    """The known content of a file that is being written from start to end.

    Only the new part of a large file is read, with a few bytes before it and at the start of the
    file. When the file is closed, its recorder reads it as a whole.
    """

    def __init__(self) -> None:
        self.content = EMPTY
        self.digests = _Digests()
        self.supposed = False
        """True if the last read skipped the known part."""
        self.head = b""
        self.end = b""

    def follows(self, fd: int, size: int) -> bool:
        """Return True if the file still seems to begin with the known content."""
        known = self.content.size
        return (
            MAX_WHOLE_BYTES < known < size
            and os.pread(fd, len(self.head), 0) == self.head
            and os.pread(fd, len(self.end), known - len(self.end)) == self.end
        )


class ContentStore:
    """Distinct contents of files, by digest.

    They are kept in the file ``path``. A different process may open it, too, and read the contents
    that this one has put there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = os.fstat(self._fd).st_size
        self._known: dict[bytes, Content] = {EMPTY.digest: EMPTY}
        self._blocks: dict[bytes, tuple[tuple[int, int], ...]] = {}

    @property
    def kept(self) -> int:
        """Return the size of the store in bytes."""
        return self._end

    def close(self) -> None:
        """Close the store."""
        os.close(self._fd)

    def refresh(self) -> None:
        """Accept contents that a different process has added."""
        self._end = os.fstat(self._fd).st_size

    def put(
        self, fd: int, size: int, growing: GrowingFile | None = None, *, whole: bool = False
    ) -> Content:
        """Return the content of an open file.

        Args:
            fd: The file's descriptor.
            size: The file's size.
            growing: Its known content, which is updated.
            whole: True to read all of the file, whatever is known.
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
        """Return the digest of these bytes."""
        return _hash(data).digest()

    def keep(self, data: bytes, before: Content = EMPTY) -> Content:
        """Return the content with these bytes.

        If they begin with ``before``, that part is not stored again.
        """
        digest = _hash(data).digest()
        if digest not in self._known:
            old = (
                before.size
                if before.size < len(data) and _hash(data[: before.size]).digest() == before.digest
                else 0
            )
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
        """Read the file as a whole, and store the blocks that are new."""
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

    def _block(
        self, block: bytes, digest: bytes, start: int, old: Content
    ) -> tuple[tuple[int, int], ...]:
        """Return where a block is stored.

        The file held ``old`` before. That content may begin with this block, or be the beginning of
        it.
        """
        if old.blocks[start // BLOCK_BYTES : start // BLOCK_BYTES + 1] == (digest,):
            return _slice_pieces(old.pieces, start, len(block))
        if digest not in self._blocks:
            held = (
                old.size
                if start == 0 < old.size <= MAX_WHOLE_BYTES
                and _hash(block[: old.size]).digest() == old.digest
                else 0
            )
            self._blocks[digest] = _join_pieces(
                old.pieces if held else (), self._append(block[held:])
            )
        return self._blocks[digest]

    def _grown(self, fd: int, size: int, growing: GrowingFile) -> Content:
        pieces, done = growing.content.pieces, growing.content.size
        for data in _read(fd, done, size):
            pieces = _join_pieces(pieces, self._append(data))
            growing.digests.add(data)
            done += len(data)
        blocks = growing.digests.blocks()
        for place in range(growing.content.size // BLOCK_BYTES, done // BLOCK_BYTES):
            self._blocks.setdefault(
                blocks[place], _slice_pieces(pieces, place * BLOCK_BYTES, BLOCK_BYTES)
            )
        return self._content(done, blocks, pieces)

    def _content(
        self, size: int, blocks: tuple[bytes, ...], pieces: tuple[tuple[int, int], ...]
    ) -> Content:
        digest = _digest(blocks)
        return self._known.setdefault(digest, Content(size, digest, pieces, blocks))

    def begins_with(self, content: Content, start: Content) -> bool:
        """Return True if ``start`` is the beginning of a content."""
        if _slice_pieces(content.pieces, 0, start.size) == start.pieces:
            return True
        whole = start.size // BLOCK_BYTES
        return (
            content.blocks[:whole] == start.blocks[:whole]
            and self.cut(content, start.size) == start
        )

    def cut(self, content: Content, size: int) -> Content:
        """Return the first bytes of a content."""
        pieces = _slice_pieces(content.pieces, 0, size)
        tail = b"".join(
            self.blocks(
                Content(
                    0,
                    b"",
                    _slice_pieces(pieces, size // BLOCK_BYTES * BLOCK_BYTES, size % BLOCK_BYTES),
                )
            )
        )
        return self._content(
            size,
            (
                *content.blocks[: size // BLOCK_BYTES],
                *([_hash(tail).digest()] if tail or not size else []),
            ),
            pieces,
        )

    def zeros(self, size: int) -> Content:
        """Return that many zero bytes.

        A power loss leaves them for data that was never written back.
        """
        whole = (_hash(bytes(BLOCK_BYTES)).digest(),) * (size // BLOCK_BYTES)
        tail = (
            (_hash(bytes(size % BLOCK_BYTES)).digest(),) if size % BLOCK_BYTES or not size else ()
        )
        return self._content(size, whole + tail, ((-1, size),) if size else ())

    def blocks(self, content: Content) -> Iterator[bytes]:
        """Yield the bytes of a content in blocks."""
        for offset, length in content.pieces:
            if offset < 0:
                for done in range(0, length, BLOCK_BYTES):
                    yield bytes(min(BLOCK_BYTES, length - done))
            else:
                yield from _read(self._fd, offset, offset + length)

    def part(self, content: Content, start: int, size: int) -> bytes:
        """Return the bytes of a content from ``start`` on, at most ``size`` of them."""
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
        """Let the kernel copy the bytes. It shares the blocks if the filesystem can."""
        while length > 0:
            try:
                done = os.copy_file_range(self._fd, fd, length, offset)
            except OSError:  # on a different filesystem, or not supported by it
                done = 0
            if not done:
                for block in _read(self._fd, offset, offset + length):
                    _write_all(fd, block)
                return
            offset, length = offset + done, length - done


def _join_pieces(
    pieces: tuple[tuple[int, int], ...], more: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], ...]:
    """Join two lists of pieces. Adjacent pieces become one."""
    if pieces and more and pieces[-1][0] >= 0 and sum(pieces[-1]) == more[0][0]:
        return (*pieces[:-1], (pieces[-1][0], pieces[-1][1] + more[0][1]), *more[1:])
    return pieces + more


def _slice_pieces(
    pieces: tuple[tuple[int, int], ...], start: int, length: int
) -> tuple[tuple[int, int], ...]:
    """Return the pieces of a part of a content."""
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
    """Open a file for reading, as a descriptor.

    ``O_NONBLOCK`` keeps a path that is not a plain file, such as a pipe, from blocking.
    """
    fd = os.open(
        path,
        os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0),
    )
    try:
        yield fd
    finally:
        os.close(fd)

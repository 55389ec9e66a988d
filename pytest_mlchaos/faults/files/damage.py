"""Damage the content of a file, each kind at a place that is the same in each run."""

from __future__ import annotations

from . import archives, columnar
from .layouts import MAX_SPOTS, Boundary, boundaries, covered, spots

__all__ = [
    "BLOCK_BYTES",
    "cut_places",
    "flip",
    "flip_places",
    "noticeable",
    "swap",
    "zero",
    "zero_places",
]

BLOCK_BYTES = 4096
"""The size of a block of most filesystems."""
MAX_PARTS = 8
"""At most this many parts of a file with checksums get a flipped bit."""
_FORMATS = (archives, columnar)  # they register their layouts


def cut_places(content: bytes, path: str) -> list[Boundary]:
    """Return where to cut a file, the most telling first."""
    return spots(content, path)


def noticeable(kind: str, content: bytes, path: str) -> int:
    """Return how many of the first places hold damage of this kind that a sound reader can notice.

    A flipped bit is noticed in bytes that a checksum of the format covers. A block of zeros is also
    noticed in a text.
    """
    ranges = covered(content, path)
    if kind == "bit_flip":
        return min(MAX_PARTS, len(ranges))
    if kind == "zeroed_block":
        places = zero_places(content, path)
        return sum(_is_noticed(content, one.offset, ranges) for one in places)
    return MAX_SPOTS


def _is_noticed(content: bytes, offset: int, ranges: list[tuple[int, int]]) -> bool:
    end = offset + BLOCK_BYTES
    return b"\0" not in content or any(
        start < end and offset < stop and content[max(start, offset) : min(stop, end)].strip(b"\0")
        for start, stop in ranges
    )


def flip_places(content: bytes, path: str) -> list[Boundary]:
    """Return the bytes to flip a bit in.

    Those that a checksum of the format covers come first.
    """
    ranges = covered(content, path)
    found = [
        Boundary((start + stop) // 2, f"in the middle of part {number} of {len(ranges)}")
        for number, (start, stop) in enumerate(ranges[:MAX_PARTS], 1)
    ]
    size = len(content)
    parts = boundaries(content, path)[:6]
    return [
        *found,
        *([Boundary(size // 2, "in the middle")] if size else []),
        *(one for one in parts if one.offset < size),
        *([Boundary(0, "in the first byte")] if size > 1 else []),
        *([Boundary(size - 1, "in the last byte")] if size > 2 else []),
    ]


def zero_places(content: bytes, path: str) -> list[Boundary]:
    """Return the blocks that are not all zeros: the middle one, the last, the first, and others.

    Those in which a sound reader can notice the damage come first.
    """
    ranges = covered(content, path)
    count = -(-len(content) // BLOCK_BYTES)
    order = dict.fromkeys([count // 2, count - 1, 0, *range(0, count, max(1, count // 8))])
    found = [
        Boundary(block * BLOCK_BYTES, f"block {block + 1} of {count}")
        for block in order
        if content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES].strip(b"\0")
    ]
    return sorted(found, key=lambda one: not _is_noticed(content, one.offset, ranges))


def flip(content: bytes, offset: int) -> bytes:
    """Return the content with one bit flipped at an offset.

    In a text, this is a bit that keeps the byte printable.
    """
    bit = 0x04 if 0x20 <= content[offset] < 0x7F else 0x10
    return content[:offset] + bytes([content[offset] ^ bit]) + content[offset + 1 :]


def zero(content: bytes, offset: int) -> bytes:
    """Return the content with zeros in the block at an offset."""
    start = offset - offset % BLOCK_BYTES
    size = min(BLOCK_BYTES, len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


def swap(content: bytes, offset: int) -> bytes:
    """Return the content with the block at an offset and the next one in exchanged places.

    A small file is divided into four blocks.
    """
    size = BLOCK_BYTES if len(content) >= 2 * BLOCK_BYTES else max(1, len(content) // 4)
    start = min(offset - offset % size, max(0, (len(content) // size - 2) * size))
    one, other = content[start : start + size], content[start + size : start + 2 * size]
    return content[:start] + other + one + content[start + 2 * size :]

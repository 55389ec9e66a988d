"""Register file formats: where a file may end between two of its parts, and what a checksum covers.

A layout recognises its format by the first bytes, or by the name's suffix. Layouts with magic bytes
are asked first.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import struct
from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "MAX_SPOTS",
    "Boundary",
    "Layout",
    "boundaries",
    "covered",
    "general_spots",
    "layout",
    "layout_of",
    "spots",
]

MAX_SPOTS = 16
"""At most this many places of one file are tried."""
PAGE_BYTES = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Boundary:
    """An offset between two parts of a file, and its description."""

    offset: int
    text: str


Find = Callable[[bytes], Iterator[Boundary]]
Cover = Callable[[bytes], Iterator[tuple[int, int]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """A file format.

    Attributes:
        name: Its name.
        recognises: A function of the content and the file's name.
        find: A function that yields the boundaries of a content.
        cover: A function that yields the ranges of bytes that a checksum covers.
    """

    name: str
    recognises: Callable[[bytes, str], bool]
    find: Find
    cover: Cover | None = None


_BY_MAGIC: list[Layout] = []
_BY_NAME: list[Layout] = []


def layout(
    name: str,
    *,
    magic: bytes = b"",
    at: int = 0,
    suffixes: Sequence[str] = (),
    named: str = "",
    cover: Cover | None = None,
) -> Callable[[Find], Find]:
    """Register the decorated function, which yields the boundaries of a content.

    Args:
        name: The format's name.
        magic: The bytes by which it is recognised.
        at: Their offset.
        suffixes: The suffixes by which it is recognised without magic bytes.
        named: A part of the name by which it is recognised without magic bytes.
        cover: A function that yields the ranges of bytes that a checksum covers.
    """

    def recognises(content: bytes, path: str) -> bool:
        if magic:
            return content[at : at + len(magic)] == magic
        last = path.rpartition("/")[2].lower()
        return last.endswith(tuple(suffixes)) if suffixes else named in last

    def register(find: Find) -> Find:
        (_BY_MAGIC if magic else _BY_NAME).append(Layout(name, recognises, find, cover))
        return find

    return register


def layout_of(content: bytes, path: str) -> Layout | None:
    """Return the format of a file, or None if it is unknown."""
    return next((one for one in (*_BY_MAGIC, *_BY_NAME) if one.recognises(content, path)), None)


def boundaries(content: bytes, path: str) -> list[Boundary]:
    """Return the boundaries inside a file, in order, each offset once.

    A file that is damaged already has only those before its damage.
    """
    return sorted(_found(content, path), key=lambda one: one.offset)


def _found(content: bytes, path: str) -> list[Boundary]:
    """Return the boundaries inside a file, in the order of its layout, each offset once."""
    known = layout_of(content, path)
    found: dict[int, Boundary] = {}
    try:
        for one in (_plain if known is None else known.find)(content):
            if 0 < one.offset < len(content):
                found.setdefault(one.offset, one)
    except Exception:  # noqa: BLE001  # a parser may raise anything for a damaged file
        pass
    return list(found.values())


def covered(content: bytes, path: str) -> list[tuple[int, int]]:
    """Return the ranges of bytes that a checksum of the format covers."""
    known = layout_of(content, path)
    if known is None or known.cover is None:
        return []
    try:
        return [(start, stop) for start, stop in known.cover(content) if stop > start]
    except Exception:  # noqa: BLE001  # a parser may raise anything for a damaged file
        return []


def spots(content: bytes, path: str) -> list[Boundary]:
    """Return the offsets at which to cut a file, the most telling first, at most ``MAX_SPOTS``.

    A cut between two parts comes first, because a reader may take the rest for a whole file.
    """
    size = len(content)
    chosen = _of_each_kind(_found(content, path), MAX_SPOTS - 5)
    general = _general(size)
    order = [*chosen[:2], *general[:2], *chosen[2:], *general[2:]]
    unique = {one.offset: one for one in reversed(order) if 0 <= one.offset < size}
    return list({one.offset: unique[one.offset] for one in order if one.offset in unique}.values())


def general_spots(size: int) -> list[Boundary]:
    """Return the offsets at which to cut a file of which only the size is known."""
    return list({one.offset: one for one in _general(size) if 0 <= one.offset < size}.values())


def _general(size: int) -> list[Boundary]:
    return [
        Boundary(3, "after 3 bytes"),
        Boundary(size - 1, "one byte before the end"),
        Boundary(size // 2, "in the middle"),
        Boundary(size * 9 // 10, "after nine tenths"),
        Boundary(0, "at its start"),
    ]


def _of_each_kind(found: Sequence[Boundary], limit: int) -> list[Boundary]:
    """Return up to ``limit`` boundaries: two of the commonest kind, then of each kind in turn.

    The parts of a file often alternate (a header, a content). Every second of them is of one kind.
    """
    kinds: dict[str, list[Boundary]] = {}
    for one in found:
        kinds.setdefault(re.sub(r"\d+", "", one.text), []).append(one)
    commonest_first = sorted(kinds.values(), key=len, reverse=True)
    queues = [[kind[place] for place in _spread(len(kind), limit)] for kind in commonest_first]
    in_turn = [one for turn in itertools.zip_longest(*queues) for one in turn if one is not None]
    first = queues[0][:2] if queues else []
    return [*first, *(one for one in in_turn if one not in first)][:limit]


def _spread(count: int, limit: int) -> list[int]:
    """Return up to ``limit`` numbers below ``count``: the middle, the last, the first, and others."""
    if not count:
        return []
    first = [count // 2, count - 1, 0]
    step = max(1, -(-count // limit))
    return list(dict.fromkeys([*first, *range(0, count, step)]))[:limit]


def _plain(content: bytes) -> Iterator[Boundary]:
    """Yield the ends of the lines of a text, or of the pages of a binary file."""
    if b"\0" not in content[: 1 << 16] and b"\n" in content:
        yield from lines(content)
    else:
        pages = -(-len(content) // PAGE_BYTES)
        for page in range(1, pages):
            yield Boundary(page * PAGE_BYTES, f"after page {page} of {pages}")


def lines(content: bytes, what: str = "line") -> Iterator[Boundary]:
    """Yield the end of each line."""
    total = content.count(b"\n") + (not content.endswith(b"\n"))
    place = content.find(b"\n")
    number = 0
    while place >= 0:
        number += 1
        yield Boundary(place + 1, f"at the end of {what} {number} of {total}")
        place = content.find(b"\n", place + 1)
    if content.endswith(b"\n"):
        yield Boundary(len(content) - 1, "before the last line end")


# -- texts -----------------------------------------------------------------------------------------


@layout("CSV", suffixes=(".csv", ".tsv"))
def _csv(content: bytes) -> Iterator[Boundary]:
    """Yield the ends of the records. A quoted field may contain line ends."""
    ends, quoted = [], False
    for place, byte in enumerate(content):
        if byte == 0x22:
            quoted = not quoted
        elif byte == 0x0A and not quoted:
            ends.append(place + 1)
    total = len(ends) - 1 + (not content.endswith(b"\n"))
    for number, end in enumerate(ends):
        yield Boundary(
            end, f"after record {number} of {total}" if number else "after the line of names"
        )
    if content.endswith(b"\n"):
        yield Boundary(len(content) - 1, "before the last line end")


@layout("JSON lines", suffixes=(".jsonl", ".ndjson"))
def _json_lines(content: bytes) -> Iterator[Boundary]:
    yield from lines(content, "record")


# -- arrays and models -----------------------------------------------------------------------------


@layout("NumPy array", magic=b"\x93NUMPY")
def _npy(content: bytes) -> Iterator[Boundary]:
    size, start = (
        (struct.unpack_from("<H", content, 8)[0], 10)
        if content[6] == 1
        else (struct.unpack_from("<I", content, 8)[0], 12)
    )
    yield Boundary(start + size, "after the header")
    yield Boundary((start + size + len(content)) // 2, "in the middle of the values")


@layout("HDF5", magic=b"\x89HDF\r\n\x1a\n")
def _hdf5(content: bytes) -> Iterator[Boundary]:
    yield Boundary(8, "after the signature")
    yield Boundary(96, "after the superblock")
    pages = -(-len(content) // PAGE_BYTES)
    for page in range(1, pages):
        yield Boundary(page * PAGE_BYTES, f"after page {page} of {pages}")


@layout("safetensors", suffixes=(".safetensors",))
def _safetensors(content: bytes) -> Iterator[Boundary]:
    import json

    (size,) = struct.unpack_from("<Q", content)
    yield Boundary(8 + size, "after the header")
    tensors = json.loads(content[8 : 8 + size])
    tensors.pop("__metadata__", None)
    for name in sorted(tensors, key=lambda name: tensors[name]["data_offsets"]):
        yield Boundary(8 + size + tensors[name]["data_offsets"][1], "after a tensor")


@layout("SQLite", magic=b"SQLite format 3\0")
def _sqlite(content: bytes) -> Iterator[Boundary]:
    size = struct.unpack_from(">H", content, 16)[0]
    size = 65536 if size == 1 else size
    pages = len(content) // size
    for page in range(1, pages):
        yield Boundary(page * size, f"after page {page} of {pages}")


@layout("TFRecord", suffixes=(".tfrecord", ".tfrecords"))
def _tfrecord(content: bytes) -> Iterator[Boundary]:
    place, ends = 0, []
    while place + 12 <= len(content):
        place += 16 + struct.unpack_from("<Q", content, place)[0]
        ends.append(place)
    for number, end in enumerate(ends, 1):
        yield Boundary(end, f"after record {number} of {len(ends)}")


@layout("event file", named="tfevents")
def _events(content: bytes) -> Iterator[Boundary]:
    yield from _tfrecord(content)

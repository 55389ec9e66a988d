"""Register the layouts of archives, compressed files and images: their members and checksums."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from .layouts import Boundary, layout

__all__: list[str] = []

BLOCK_BYTES = 512


def _gzip_members(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each member."""
    start = 0
    while content[start : start + 2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        member.decompress(content[start:])
        end = len(content) - len(member.unused_data)
        yield start, end
        start = end


def _gzip_covered(content: bytes) -> Iterator[tuple[int, int]]:
    # The header's ten bytes (time, system) are not covered, nor is a name after them.
    for start, end in _gzip_members(content):
        body = start + 10
        if content[start + 3] & 8:
            body = content.index(b"\0", body) + 1
        yield body, end


@layout("gzip", magic=b"\x1f\x8b", cover=_gzip_covered)
def _gzip(content: bytes) -> Iterator[Boundary]:
    members = list(_gzip_members(content))
    for number, (_, end) in enumerate(members, 1):
        yield Boundary(end, f"after member {number} of {len(members)}")
    yield Boundary(10, "after the header")
    yield Boundary(len(content) - 8, "before the checksum")


def _whole(content: bytes) -> Iterator[tuple[int, int]]:
    yield 16, len(content) - 4


def _zstd_covered(content: bytes) -> Iterator[tuple[int, int]]:
    if content[4] & 4:  # the frame has a checksum of its content
        yield 12, len(content)


def _lz4_covered(content: bytes) -> Iterator[tuple[int, int]]:
    if content[4] & 4:
        yield 7, len(content)


def _streams(decompressor: Callable[[], Any]) -> Callable[[bytes], Iterator[int]]:
    """Return a function that yields the end of each compressed stream of a file."""

    def ends(content: bytes) -> Iterator[int]:
        rest = content
        while rest:
            stream = decompressor()
            stream.decompress(rest)
            if not stream.eof:
                return
            rest = stream.unused_data
            yield len(content) - len(rest)

    return ends


def _zstd_ends(content: bytes) -> Iterator[int]:
    """Yield the end of each frame (RFC 8878)."""
    place = 0
    while place + 8 <= len(content):
        magic, size = struct.unpack_from("<II", content, place)
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # a frame to skip
            place += 8 + size
        elif magic == 0xFD2FB528:
            flags = content[place + 4]
            single = flags >> 5 & 1
            size_bytes = (single, 2, 4, 8)[flags >> 6]
            place += 5 + (not single) + (0, 1, 2, 4)[flags & 3] + size_bytes
            last = False
            while not last:
                head = int.from_bytes(content[place : place + 3], "little")
                last, is_run = bool(head & 1), head >> 1 & 3 == 1
                place += 3 + (1 if is_run else head >> 3)
            place += 4 * (flags >> 2 & 1)
        else:
            return
        yield place


def _lz4_ends(content: bytes) -> Iterator[int]:
    """Yield the end of each frame."""
    place = 0
    while content[place : place + 4] == b"\x04\x22\x4d\x18":
        flags = content[place + 4]
        place += 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)
        while block := struct.unpack_from("<I", content, place)[0] & 0x7FFFFFFF:
            place += 4 + block + 4 * (flags >> 4 & 1)
        place += 4 + 4 * (flags >> 2 & 1)
        yield place


def _parts(ends: Callable[[bytes], Iterator[int]], what: str) -> Callable[[bytes], Any]:
    """Return a function that yields the ends of parts that a reader may take for the whole file."""

    def find(content: bytes) -> Iterator[Boundary]:
        yield Boundary(len(content) - 4, "before the last four bytes")
        found = list(ends(content))
        for number, end in enumerate(found, 1):
            yield Boundary(end, f"after {what} {number} of {len(found)}")

    return find


layout("xz", magic=b"\xfd7zXZ\0", cover=_whole)(
    _parts(_streams(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)), "stream")
)
layout("bzip2", magic=b"BZh", cover=_whole)(_parts(_streams(bz2.BZ2Decompressor), "stream"))
layout("zstd", magic=b"\x28\xb5\x2f\xfd", cover=_zstd_covered)(_parts(_zstd_ends, "frame"))
layout("lz4", magic=b"\x04\x22\x4d\x18", cover=_lz4_covered)(_parts(_lz4_ends, "frame"))


def _members(content: bytes) -> list[tarfile.TarInfo]:
    """Return the members of a tar archive, up to a damaged one."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        try:
            while (member := archive.next()) is not None:
                found.append(member)
        except tarfile.TarError:
            pass
    return found


def _tar_covered(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the headers. The content of members has no checksum of its own."""
    for member in _members(content):
        start = member.offset_data - BLOCK_BYTES
        yield start, start + 257


@layout("tar", magic=b"ustar", at=257, cover=_tar_covered)
def _tar(content: bytes) -> Iterator[Boundary]:
    members = _members(content)
    for number, member in enumerate(members, 1):
        end = member.offset_data + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
        yield Boundary(end, f"after member {number} of {len(members)}")
    for number, member in enumerate(members, 1):
        yield Boundary(member.offset_data, f"after the header of member {number} of {len(members)}")


def _is_model(archive: zipfile.ZipFile) -> bool:
    """Return True for the archive of a saved model, whose reader does not compare checksums."""
    return any(name.endswith("/data.pkl") for name in archive.namelist())


def _zip_covered(content: bytes) -> Iterator[tuple[int, int]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if _is_model(archive):
            return
        for member in archive.infolist():
            start = _data_of(content, member)
            yield start, start + member.compress_size


def _data_of(content: bytes, member: zipfile.ZipInfo) -> int:
    name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
    return int(member.header_offset + 30 + name + extra)


@layout("zip", magic=b"PK\x03\x04", cover=_zip_covered)
def _zip(content: bytes) -> Iterator[Boundary]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        start = archive.start_dir
    for number, member in enumerate(members[1:], 1):
        yield Boundary(member.header_offset, f"after member {number} of {len(members)}")
    yield Boundary(start, "before the list of members")


def _chunks(content: bytes) -> Iterator[tuple[int, int]]:
    place = 8
    while place + 12 <= len(content):
        end = place + 12 + struct.unpack_from(">I", content, place)[0]
        yield place + 4, end
        place = end


@layout("PNG", magic=b"\x89PNG\r\n\x1a\n", cover=_chunks)
def _png(content: bytes) -> Iterator[Boundary]:
    chunks = list(_chunks(content))
    for number, (_, end) in enumerate(chunks, 1):
        yield Boundary(end, f"after chunk {number} of {len(chunks)}")

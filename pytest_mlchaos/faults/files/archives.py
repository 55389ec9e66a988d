"""Register the layouts of archives, compressed files and images: their members and checksums."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

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


def _halves(content: bytes) -> Iterator[Boundary]:
    yield Boundary(len(content) - 4, "before the last four bytes")


layout("xz", magic=b"\xfd7zXZ\0", cover=_whole)(_halves)
layout("bzip2", magic=b"BZh", cover=_whole)(_halves)
layout("zstd", magic=b"\x28\xb5\x2f\xfd", cover=_zstd_covered)(_halves)
layout("lz4", magic=b"\x04\x22\x4d\x18", cover=_lz4_covered)(_halves)


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

"""Digest what a file packs, without what its format notes about the packing: times, owners, free space.

Two archives of equal members differ in their bytes if they were written at different times.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["MAX_PACKED", "is_packed", "packed_digest"]

MAX_PACKED = 1 << 24
"""Larger files are compared by their bytes."""
MAX_KNOWN = 100
_TAR_OFFSET = 257
_known: dict[bytes, bytes | None] = {}


def packed_digest(content: bytes, digest: bytes) -> bytes | None:
    """Return a digest of what is packed in a gzip, zip, tar or HDF5 file.

    Return None for other files, for large ones, and if it cannot be read to its end.

    Args:
        content: The bytes of the file.
        digest: A digest of them. Equal files are read once.
    """
    unpack = _unpacker(content)
    if unpack is None or len(content) > MAX_PACKED:
        return None
    if digest not in _known:
        if len(_known) > MAX_KNOWN:
            _known.clear()
        try:
            _known[digest] = _digest_of(unpack(content))
        except Exception:  # noqa: BLE001  # a damaged file is compared by its bytes
            _known[digest] = None
    return _known[digest]


def is_packed(path: Path) -> bool:
    """Return True if a file has such a format, by its first bytes."""
    with path.open("rb") as file:
        return _unpacker(file.read(_TAR_OFFSET + 5)) is not None


def _unpacker(content: bytes) -> Callable[[bytes], Iterator[bytes]] | None:
    if content.startswith(b"\x1f\x8b"):
        return _gzip
    if content.startswith(b"PK\x03\x04"):
        return _zip
    if content[_TAR_OFFSET : _TAR_OFFSET + 5] == b"ustar":
        return _tar
    return _hdf5 if content.startswith(b"\x89HDF\r\n\x1a\n") and "h5py" in sys.modules else None


def _digest_of(parts: Iterator[bytes]) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()


def _gzip(content: bytes) -> Iterator[bytes]:
    inner = gzip.decompress(content)
    unpack = _unpacker(inner)
    yield from [b"gzip", inner] if unpack is None else unpack(inner)


def _zip(content: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield archive.comment
        for member in archive.infolist():
            yield member.filename.encode()
            yield archive.read(member)


def _tar(content: bytes) -> Iterator[bytes]:
    end = 0
    yield str(len(content)).encode()  # the padding at its end is part of it
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            yield repr((member.name, member.type, member.mode, member.linkname)).encode()
            if (data := archive.extractfile(member)) is not None:
                yield data.read()
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    if content[end : end + 2 * tarfile.BLOCKSIZE] != bytes(2 * tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end")


def _hdf5(content: bytes) -> Iterator[bytes]:
    import h5py

    parts: list[bytes] = []

    def visit(name: str, held: Any) -> None:
        parts.append(name.encode())
        for key in sorted(held.attrs):
            parts.extend((key.encode(), _bytes_of(held.attrs[key])))
        if isinstance(held, h5py.Dataset):
            if held.is_virtual or held.external:
                raise OSError("other files hold its values")
            parts.append(repr((held.dtype, held.shape)).encode())
            parts.append(_bytes_of(held[()]))

    with h5py.File(io.BytesIO(content), "r") as file:
        visit("", file)
        file.visititems(visit)
    yield from parts


def _bytes_of(values: Any) -> bytes:
    import numpy as np

    array = np.asarray(values)
    about = repr((array.dtype, array.shape)).encode()
    return about + (repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())

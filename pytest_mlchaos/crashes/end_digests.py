"""Digest the files at the end of a run, so that results can be compared.

The digests show differences in meaning rather than in bytes.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .pickle_values import pickle_digest

__all__ = ["digest_of_values", "endings"]

MAX_TEXT_BYTES = 1 << 16
"""Texts of at most this many bytes are kept as a whole."""
MAX_DECOMPRESSED_BYTES = 1 << 25
"""Compressed files with more content are compared by their bytes."""
MAX_PARSED_BYTES = 1 << 22
"""Larger files are compared by their bytes instead of being parsed."""
_MAX_KNOWN_FORMS = 256
"""Keep the digests of at most this many contents. Most runs end with the golden run's files."""
_UNTOLD = (".data/serialization_id",)
"""Members of a torch archive that only hash the other members."""
_known_forms: dict[tuple[tuple[str, ...], bytes], bytes] = {}
"""Digests of canonical forms, by the directory and by a digest of the bytes.

To parse a checkpoint takes 50 times longer than to hash its bytes.
"""


def endings(root: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return digests of the files below a directory, and the bytes of short texts.

    Both are by path. A database is digested by its rows, JSON by its entries in any order, and a
    pickle by its values, whichever of them share memory. A file name in a pickle is replaced by
    that file's content, because a run that finds a name taken chooses a new one.
    """
    found, texts = {}, {}
    named = _Named.below(root)
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            with contextlib.suppress(OSError):
                found[relative] = _digest(path, named)
                if os.path.getsize(path) <= MAX_TEXT_BYTES and b"\0" not in (
                    data := Path(path).read_bytes()
                ):
                    texts[relative] = data
    return found, texts


def digest_of_values(path: str) -> bytes:
    """Return a digest of a file that is equal for equal values, as those of ``endings``.

    File names in it are compared as they are.
    """
    return _digest(path, _Named(()))


class _Named:
    """Files below a directory that pickles name, each as a digest of its content.

    Inside such a file, all names count as equal. ``found`` counts the names so far.
    """

    def __init__(self, prefixes: tuple[str, ...], *, nested: bool = False) -> None:
        self._nested = nested
        self._known: dict[str, bytes] = {}
        self.prefixes = prefixes
        self.found = 0

    @classmethod
    def below(cls, root: Path) -> _Named:
        """Return the files below a directory, by its path and by its resolved path."""
        return cls((f"{root}{os.sep}", f"{os.path.realpath(root)}{os.sep}"))

    def told(self, text: str) -> bytes | None:
        """Return the digest of the file that a text names, or None if it names none."""
        if not text.startswith(self.prefixes):
            return None
        self.found += 1
        if self._nested:
            return b"named"
        if text not in self._known:
            self._known[text] = b"gone"
            with contextlib.suppress(OSError, ValueError):
                self._known[text] = _digest(text, _Named(self.prefixes, nested=True))
        return self._known[text]


def _digest(path: str, named: _Named) -> bytes:
    told = hashlib.blake2b()
    with open(path, "rb") as file:
        head = file.read(16)
        size = os.fstat(file.fileno()).st_size
        if head.startswith(b"SQLite format 3\0"):
            with contextlib.suppress(sqlite3.Error):
                told.update(_rows(path))
                return told.digest()
        if head and size <= MAX_PARSED_BYTES:
            file.seek(0)
            return _digest_of_form(file.read(), named)
        file.seek(0)
        return hashlib.file_digest(file, "blake2b").digest()


def _digest_of_form(data: bytes, named: _Named) -> bytes:
    """Return a digest of the canonical form. It is kept unless it depends on further files."""
    key = named.prefixes, hashlib.blake2b(data).digest()
    if key in _known_forms:
        return _known_forms[key]
    told, before = hashlib.blake2b(), named.found
    for part in _canonical_form(data, named):
        told.update(part)
    if named.found == before:
        if len(_known_forms) >= _MAX_KNOWN_FORMS:
            _known_forms.clear()
        _known_forms[key] = told.digest()
    return told.digest()


def _canonical_form(data: bytes, named: _Named) -> Iterator[bytes]:
    """Yield a form of the content that is equal for equal values.

    If the format is unknown, yield the bytes.
    """
    if data.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                parts = [
                    (name, archive.read(name))
                    for name in archive.namelist()
                    if not name.endswith(_UNTOLD)
                ]
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError):
            parts = [("", data)]
        # Torch names its only folder after the file.
        folders = {name.partition("/")[0] for name, _ in parts}
        for name, part in parts:
            yield (name.partition("/")[2] if len(folders) == 1 else name).encode()
            yield pickle_digest(part, named.told) if part.startswith(b"\x80") else part
    elif data.startswith(b"\x80"):
        yield pickle_digest(data, named.told)
    elif data[:1] in (b"{", b"["):
        try:
            yield json.dumps(json.loads(data), sort_keys=True).encode()
        except (ValueError, RecursionError):
            yield data
    elif (inner := _decompressed(data)) is not None:
        yield from _canonical_form(inner, named)
    else:
        yield data


def _decompressed(data: bytes) -> bytes | None:
    """Return the content of a compressed file, or None if it is not one, is cut or is too large."""
    for start, opened in _COMPRESSED.items():
        if data.startswith(start):
            with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
                with opened(io.BytesIO(data)) as file:
                    inner: bytes = file.read(MAX_DECOMPRESSED_BYTES + 1)
                return inner if len(inner) <= MAX_DECOMPRESSED_BYTES else None
    return None


def _open_zlib(file: io.BytesIO) -> io.BytesIO:
    """Return the content of a zlib stream, which has no file format around it."""
    stream = zlib.decompressobj()
    inner = stream.decompress(file.read(), MAX_DECOMPRESSED_BYTES + 1)
    if not stream.eof and len(inner) <= MAX_DECOMPRESSED_BYTES:
        raise EOFError("the stream is cut")
    return io.BytesIO(inner)


_COMPRESSED: dict[bytes, Any] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x5d\x00\x00": lzma.LZMAFile,
    b"x\x01": _open_zlib,
    b"x^": _open_zlib,
    b"x\x9c": _open_zlib,
    b"x\xda": _open_zlib,
}
"""How to open a compressed file, by its first bytes."""


def _rows(path: str) -> bytes:
    """Return a database's schema and rows.

    This reads a copy, because opening a database may replay its journal and so change it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy")
        for suffix in ("", "-wal", "-journal"):
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, copy + suffix)
        with contextlib.closing(sqlite3.connect(copy)) as database:
            return "\n".join(database.iterdump()).encode()

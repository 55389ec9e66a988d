"""Read the tables in files: their numbers of rows, and the values of a column.

Each format is one function of a path, which yields its tables. Their libraries are imported when a
file of that format is read.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import lzma
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "LINES",
    "StoredTable",
    "database_tables",
    "format_of",
    "is_database_log",
    "is_store_metadata",
    "read_tables",
]

LINES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
"""Suffixes of files whose records are lines."""
COMPRESSED: Mapping[str, Callable[..., Any]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
}
STORE_METADATA = frozenset({".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Names that are part of a store, although they begin with a dot."""
DATABASES = {"sqlite": "sqlite3", "duckdb": "duckdb"}
"""The formats of databases, with the module of each."""
LOGS = ("-wal", "-journal", "-shm", ".wal")
"""The suffixes that the logs of a database add to its name."""
MAX_DATABASE = 1 << 26
"""Larger databases are compared by their bytes."""
MAX_KNOWN = 100
_known: dict[tuple[Any, ...], Mapping[str, tuple[int, bytes]]] = {}
_MAGIC = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow stream"),
    (b"ORC", "orc"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"SQLite format 3\0", "sqlite"),
    (b"\x93NUMPY", "numpy"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)
_DUCKDB_OFFSET, _TAR_OFFSET, _HEAD_BYTES = 8, 257, 265


@dataclasses.dataclass(frozen=True)
class StoredTable:
    """A table in a file.

    Attributes:
        name: Its name in the file. Empty if the file is one table.
        rows: Its number of rows.
        unit: The word for one of them.
        column: Return the values of the column of this name, or None if there is none.
    """

    name: str
    rows: int
    unit: str = "row"
    column: Callable[[str], Sequence[Any] | None] = lambda name: None
    digest: Callable[[], bytes] = bytes
    """Return a digest of the content, for tables of databases."""


def is_store_metadata(name: str) -> bool:
    """Return True if a name that begins with a dot is part of a store's content."""
    return name in STORE_METADATA


def format_of(path: Path) -> str | None:
    """Return the format of a file by its content and suffix, or None if its rows are unknown."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return None
    if head[_DUCKDB_OFFSET : _DUCKDB_OFFSET + 4] == b"DUCK":
        return "duckdb"
    if head[_TAR_OFFSET : _TAR_OFFSET + 5] == b"ustar":
        return "tar"
    if found := next((name for magic, name in _MAGIC if head.startswith(magic)), None):
        return found
    if path.name in (".zarray", "zarr.json"):
        return "zarr"
    suffix = path.suffix.lower()
    return {".jsonl": "json lines", ".ndjson": "json lines", ".json": "json"}.get(
        suffix, "lines" if suffix in LINES else None
    )


def read_tables(path: Path, kind: str) -> list[StoredTable]:
    """Return the tables of a file of this format.

    Raise ``ImportError`` if its library is missing, and the library's error if the file is damaged.
    """
    return list(_READERS[kind](path))


# -- text ------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[StoredTable]:
    yield _text_table(path.read_bytes(), path.suffix.lower())


def _text_table(content: bytes, suffix: str) -> StoredTable:
    def column(name: str) -> Sequence[Any] | None:
        text = content.decode("utf-8-sig")
        if suffix in (".jsonl", ".ndjson"):
            return _of_records([json.loads(line) for line in text.splitlines() if line], name)
        if suffix not in (".csv", ".tsv"):
            return None
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",")
        return [row[name] for row in reader] if name in (reader.fieldnames or ()) else None

    return StoredTable("", content.count(b"\n"), "line", column)


def _json(path: Path) -> Iterator[StoredTable]:
    found = json.loads(path.read_bytes())
    if isinstance(found, list):
        yield StoredTable("", len(found), "item", lambda name: _of_records(found, name))
    elif isinstance(found, dict):
        yield StoredTable("", len(found), "entry", found.get)
        for name, held in found.items():
            if isinstance(held, list):
                yield StoredTable(name, len(held), "item", functools.partial(_of_records, held))


def _of_records(records: Sequence[Any], name: str) -> Sequence[Any] | None:
    found = [one[name] for one in records if isinstance(one, dict) and name in one]
    return found or None


def _compressed(path: Path) -> Iterator[StoredTable]:
    kind = format_of(path)
    with COMPRESSED[kind or ""](path, "rb") as file:
        content = file.read()
    inner = Path(path.stem).suffix.lower()
    if inner in LINES:
        yield _text_table(content, inner)
    else:
        yield StoredTable("", len(content), "byte")


# -- columns ---------------------------------------------------------------------------------------


def _parquet(path: Path) -> Iterator[StoredTable]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        rows, names = file.metadata.num_rows, file.schema_arrow.names

    def column(name: str) -> Sequence[Any] | None:
        if name not in names:
            return None
        with pq.ParquetFile(path) as file:
            found: list[Any] = file.read(columns=[name]).column(0).to_pylist()
            return found

    yield StoredTable("", rows, "row", column)


def _arrow(path: Path) -> Iterator[StoredTable]:
    import pyarrow as pa

    is_stream = format_of(path) == "arrow stream"
    with (
        path.open("rb") as file,
        (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(file) as reader,
    ):
        table = reader.read_all()
    yield _arrow_table(table)


def _orc(path: Path) -> Iterator[StoredTable]:
    from pyarrow import orc

    with path.open("rb") as file:
        yield _arrow_table(orc.ORCFile(file).read())


def _arrow_table(table: Any) -> StoredTable:
    return StoredTable(
        "",
        table.num_rows,
        "row",
        lambda name: table.column(name).to_pylist() if name in table.column_names else None,
    )


# -- arrays ----------------------------------------------------------------------------------------


def _hdf5(path: Path) -> Iterator[StoredTable]:
    import h5py

    found: list[StoredTable] = []

    def visit(name: str, held: Any) -> None:
        if isinstance(held, h5py.Dataset):
            fields, values = held.dtype.names or (), held[()]
            found.append(
                StoredTable(
                    name,
                    len(values) if held.shape else 1,
                    "row",
                    lambda key: values[key].tolist() if key in fields else None,
                )
            )

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    yield from found


def _zarr(path: Path) -> Iterator[StoredTable]:
    """Yield an array by its metadata. Its chunks are files of their own."""
    shape = json.loads(path.read_bytes()).get("shape")
    if shape:
        yield StoredTable("", shape[0])


def _numpy(path: Path) -> Iterator[StoredTable]:
    import numpy as np

    yield _array_table("", np.load(path, allow_pickle=False))


def _zip(path: Path) -> Iterator[StoredTable]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"a member is damaged: number {names.index(damaged) + 1}")
    if path.suffix.lower() == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            yield from [_array_table(name, arrays[name]) for name in arrays.files]
    else:
        yield StoredTable("", len(names), "member")


def _array_table(name: str, array: Any) -> StoredTable:
    fields = array.dtype.names or ()
    return StoredTable(
        name,
        array.shape[0] if array.shape else 1,
        "row",
        lambda key: array[key].tolist() if key in fields else None,
    )


def _tar(path: Path) -> Iterator[StoredTable]:
    import tarfile

    with tarfile.open(path) as archive:
        yield StoredTable("", len(archive.getmembers()), "member")


# -- databases -------------------------------------------------------------------------------------


@contextlib.contextmanager
def copy_of_database(path: Path) -> Iterator[Path]:
    """Copy a database with its write-ahead log, because reading in place may change both."""
    with tempfile.TemporaryDirectory(prefix="mlchaos-") as folder:
        for name in (path.name, *(path.name + ending for ending in LOGS)):
            if (file := path.with_name(name)).is_file():
                shutil.copyfile(file, Path(folder, name))
        yield Path(folder, path.name)


def is_database_log(path: Path) -> bool:
    """Return True if a file is the log of a database beside it, which is read with it."""
    for ending in LOGS:
        base = path.with_name(path.name.removesuffix(ending))
        if base != path and base.is_file():
            return format_of(base) in DATABASES
    return False


def database_tables(path: Path, digest: bytes) -> Mapping[str, tuple[int, bytes]] | None:
    """Return the tables of a database, each with its number of rows and a digest of them.

    The order of the rows does not count. Return None for any other file, and for a database that
    cannot be read.

    Args:
        path: The file.
        digest: A digest of its bytes. Equal files are read once.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not (head.startswith(b"SQLite format 3\0") or head[8:12] == b"DUCK"):
        return None
    kind = format_of(path)
    if kind is None or DATABASES[kind] not in sys.modules or path.stat().st_size > MAX_DATABASE:
        return None
    logs = tuple(log.read_bytes() for ending in LOGS if (log := Path(f"{path}{ending}")).is_file())
    key = (str(path), digest, *(hashlib.blake2b(log).digest() for log in logs))
    if key not in _known:
        try:
            found = _READERS[kind](path)
            tables = {table.name: (table.rows, table.digest()) for table in found}
        except Exception:  # noqa: BLE001  # a damaged database is compared by its bytes
            return None
        if len(_known) > MAX_KNOWN:
            _known.clear()
        _known[key] = tables
    return _known[key]


def _sqlite(path: Path) -> Iterator[StoredTable]:
    import sqlite3

    with copy_of_database(path) as copy, contextlib.closing(sqlite3.connect(copy)) as database:
        names = [
            name
            for (name,) in database.execute(
                "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
            )
        ]
        for name in names:
            yield _sql_table(name, database.execute(f"select * from {_quoted(name)}"))


def _duckdb(path: Path) -> Iterator[StoredTable]:
    import duckdb

    with copy_of_database(path) as copy, duckdb.connect(str(copy), read_only=True) as database:
        for schema, name in database.execute(
            "select table_schema, table_name from information_schema.tables "
            "where table_type = 'BASE TABLE'"
        ).fetchall():
            query = f"select * from {_quoted(schema)}.{_quoted(name)}"  # quoted
            yield _sql_table(name, database.execute(query))


def _sql_table(name: str, cursor: Any) -> StoredTable:
    names, rows = [one[0] for one in cursor.description], cursor.fetchall()
    return StoredTable(
        name,
        len(rows),
        "row",
        lambda key: [row[names.index(key)] for row in rows] if key in names else None,
        lambda: hashlib.blake2b(repr((names, sorted(map(repr, rows)))).encode()).digest(),
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_READERS: Mapping[str, Callable[[Path], Iterator[StoredTable]]] = {
    "lines": _lines,
    "json lines": _lines,
    "json": _json,
    "gzip": _compressed,
    "bzip2": _compressed,
    "xz": _compressed,
    "parquet": _parquet,
    "arrow": _arrow,
    "arrow stream": _arrow,
    "orc": _orc,
    "hdf5": _hdf5,
    "zarr": _zarr,
    "numpy": _numpy,
    "zip": _zip,
    "tar": _tar,
    "sqlite": _sqlite,
    "duckdb": _duckdb,
}

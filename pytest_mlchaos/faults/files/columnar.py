"""Register the layouts of columnar files: Parquet, Arrow IPC and ORC."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from .layouts import Boundary, layout

__all__: list[str] = []

CONTINUES = b"\xff\xff\xff\xff"


@layout("Parquet", magic=b"PAR1")
def _parquet(content: bytes) -> Iterator[Boundary]:
    """Yield the ends of the row groups, and the start of the footer."""
    yield Boundary(4, "after the first four bytes")
    (size,) = struct.unpack_from("<I", content, len(content) - 8)
    yield Boundary(len(content) - 8 - size, "before the footer")
    yield Boundary(len(content) - 8, "before the length of the footer")
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata
    groups = metadata.num_row_groups
    for number in range(groups):
        group = metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        end = max(
            min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
            + column.total_compressed_size
            for column in columns
        )
        yield Boundary(end, f"after row group {number + 1} of {groups}")


@layout("Arrow file", magic=b"ARROW1")
def _arrow_file(content: bytes) -> Iterator[Boundary]:
    yield Boundary(8, "after the first eight bytes")
    yield from _messages(content, 8)
    (size,) = struct.unpack_from("<i", content, len(content) - 10)
    yield Boundary(len(content) - 10 - size, "before the footer")


@layout("Arrow stream", magic=CONTINUES)
def _arrow_stream(content: bytes) -> Iterator[Boundary]:
    yield from _messages(content, 0)


def _messages(content: bytes, start: int) -> Iterator[Boundary]:
    """Yield the end of each message: the schema, then dictionaries and record batches."""
    ends = list(_ends(content, start))
    for number, end in enumerate(ends):
        text = f"after batch {number} of {len(ends) - 1}" if number else "after the schema"
        yield Boundary(end, text)


def _ends(content: bytes, place: int) -> Iterator[int]:
    while content[place : place + 4] == CONTINUES:
        (size,) = struct.unpack_from("<i", content, place + 4)
        if not size:
            return  # the end of the stream
        place += 8
        place += size + _body_size(content, place)
        yield place


def _body_size(content: bytes, message: int) -> int:
    """Return the field ``bodyLength`` of a message, a table of flatbuffers (its fourth field)."""
    table = message + struct.unpack_from("<I", content, message)[0]
    fields = table - struct.unpack_from("<i", content, table)[0]
    (size,) = struct.unpack_from("<H", content, fields)
    if size < 12:
        return 0  # a field at the end that is 0 is left out
    (offset,) = struct.unpack_from("<H", content, fields + 4 + 2 * 3)
    return int(struct.unpack_from("<q", content, table + offset)[0]) if offset else 0


@layout("ORC", magic=b"ORC")
def _orc(content: bytes) -> Iterator[Boundary]:
    yield Boundary(3, "after the first three bytes")
    yield Boundary(len(content) - 1 - content[-1], "before the postscript")
    yield Boundary(len(content) // 2, "in the middle")

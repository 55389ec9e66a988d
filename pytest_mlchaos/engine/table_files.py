"""Read tables from the content of files, and write them in the same format.

Properties of a format that a fault does not mean to change are kept: delimiter, quotes, texts of
values that are not hit, row groups, compression and metadata.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["TableFile", "UnsupportedFile", "open_table"]

_INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")
_FLOAT = re.compile(r"-?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
_OBJECTS = re.compile(rb"\s*\{[^\n]*\}\s*\n\s*\{")
_TRUTHS = ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"})
FORMATS = "CSV, TSV, JSON lines, Parquet, Arrow IPC (Feather) and ORC, also with .gz"


class UnsupportedFile(Exception):
    """Signal that a file cannot be read or rewritten as a table. The text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class TableFile:
    """A table in a file.

    Attributes:
        value: The table, as an object that faults of tables can change.
        encode: A function that returns the content of a file with a changed table.
    """

    value: Any
    encode: Callable[[Any], bytes]


def open_table(content: bytes, path: str) -> TableFile:
    """Return the table in a file.

    Raise ``UnsupportedFile`` if the format is unknown, or the file cannot be read.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            inner = open_table(gzip.decompress(content), path.removesuffix(".gz"))
        except (OSError, EOFError) as error:
            raise UnsupportedFile(f"it cannot be unpacked: {error}") from None
        return TableFile(inner.value, lambda value: gzip.compress(inner.encode(value), mtime=0))
    try:
        if content[:4] == b"PAR1":
            return _parquet(content)
        if content[:6] == b"ARROW1" or content[:4] == b"\xff\xff\xff\xff":
            return _arrow(content, stream=content[:6] != b"ARROW1")
        if content[:3] == b"ORC":
            return _orc(content)
    except ImportError:
        raise UnsupportedFile(
            "its format needs pyarrow: pip install 'pytest-mlchaos[data]'"
        ) from None
    except Exception as error:
        if isinstance(error, UnsupportedFile) or not type(error).__module__.startswith("pyarrow"):
            raise
        raise UnsupportedFile(f"it cannot be read: {error}") from None
    suffix = path.rpartition(".")[2].lower()
    try:
        if suffix in ("csv", "tsv", "tab"):
            return _csv(content, "\t" if suffix != "csv" else None)
        # A single object may be a configuration or a manifest, which is not a table.
        if suffix in ("jsonl", "ndjson") or _OBJECTS.match(content):
            return _json_lines(content)
    except UnicodeDecodeError:
        raise UnsupportedFile("it is not text in UTF-8") from None
    raise UnsupportedFile(f"its format cannot be rewritten. These can: {FORMATS}")


# -- CSV -------------------------------------------------------------------------------------------


class _Integer(int):
    """A number with its text in the file."""

    text: str | None = None


class _Number(float):
    """A number with its text in the file."""

    text: str | None = None


_Integer.__name__, _Number.__name__ = "int", "float"  # errors name the types of a column


def _typed(texts: Sequence[str]) -> list[Any]:
    """Return the values of a column. An empty text is a missing value."""
    present = [text for text in texts if text]
    kind: Any = None
    if present and all(map(_INTEGER.fullmatch, present)):
        kind = _Integer
    elif present and all(map(_FLOAT.fullmatch, present)) and not all(map(str.isdigit, present)):
        kind = _Number
    if kind is not None:
        values = []
        for text in texts:
            value = kind(text) if text else None
            if value is not None:
                value.text = text
            values.append(value)
        return values
    if present and any(set(present) <= truths for truths in _TRUTHS):
        return [text.lower() == "true" if text else None for text in texts]
    return [text or None for text in texts]


def _cell(value: Any, truths: tuple[str, str]) -> str:
    """Return the text of a value: that of the file, if it is not changed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return truths[value]
    text = getattr(value, "text", None)
    if text is not None:
        return str(text)
    return repr(float(value)) if isinstance(value, float) else str(value)


def _delimiter(line: str) -> str:
    return max(",;\t|", key=lambda one: (line.count(one), one == ","))


def _csv(content: bytes, delimiter: str | None) -> TableFile:
    mark = "\ufeff" if content[:3] == b"\xef\xbb\xbf" else ""
    text = content.decode("utf-8-sig")
    first = text.partition("\n")[0]
    end = "\r\n" if first.endswith("\r") else "\n"
    how: dict[str, Any] = {"delimiter": delimiter or _delimiter(first)}
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), **how) if row]
    if not rows:
        raise UnsupportedFile("it is empty")
    width = len(rows[0])
    short = next((number for number, row in enumerate(rows, 1) if len(row) != width), None)
    if short is not None:
        raise UnsupportedFile(
            f"record {short} has {len(rows[short - 1])} fields, and the first one {width}"
        )
    named = not any(map(_FLOAT.fullmatch, rows[0]))
    names: list[Any] = rows[0] if named else list(range(width))
    if len(set(names)) < width:
        raise UnsupportedFile("two of its columns have the same name")
    body = rows[1:] if named else rows
    columns = [_typed([row[place] for row in body]) for place in range(width)]
    records = list(zip(*columns, strict=True))
    value: list[Any] = (
        [dict(zip(names, record, strict=True)) for record in records]
        if named
        else [list(record) for record in records]
    )
    every = all(field.startswith('"') for field in first.split(how["delimiter"]))
    style = next((one for one in _TRUTHS if any(set(row) & one for row in body)), _TRUTHS[0])
    truths = (min(style), max(style))
    how |= {"lineterminator": end, "quoting": csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL}

    def encode(changed: Any) -> bytes:
        sink = io.StringIO(newline="")
        writer = csv.writer(sink, **how)
        if named:
            header = list(dict.fromkeys(name for row in changed for name in row))
            writer.writerow(header)
            lines = [[row.get(name) for name in header] for row in changed]
        else:
            lines = [list(row) for row in changed]
        writer.writerows([[_cell(one, truths) for one in line] for line in lines])
        written = sink.getvalue()
        return (mark + (written if text.endswith("\n") else written.removesuffix(end))).encode()

    return TableFile(value, encode)


# -- JSON lines ------------------------------------------------------------------------------------


def _json_lines(content: bytes) -> TableFile:
    lines = content.decode("utf-8").splitlines()
    records: list[Any] = []
    kept: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise UnsupportedFile(f"line {number} is not a JSON object") from None
        if not isinstance(record, dict):
            raise UnsupportedFile(f"line {number} is not a JSON object")
        records.append(record)
        kept[id(record)] = line
    if not records:
        raise UnsupportedFile("it is empty")
    compact = '": ' not in lines[0]
    plain = content.isascii()

    def encode(changed: Any) -> bytes:
        written = [
            kept.get(id(record))
            or json.dumps(
                record, ensure_ascii=plain, separators=(",", ":") if compact else (", ", ": ")
            )
            for record in changed
        ]
        return ("\n".join(written) + ("\n" if content.endswith(b"\n") else "")).encode()

    return TableFile(records, encode)


# -- columnar files --------------------------------------------------------------------------------


def _parquet(content: bytes) -> TableFile:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    table, metadata = file.read(), file.metadata
    how: dict[str, Any] = {"version": "2.6", "compression": "none"}
    if metadata.num_row_groups:
        group = metadata.row_group(0)
        how["row_group_size"] = max(1, group.num_rows)
        if group.num_columns:
            column = group.column(0)
            known = column.compression.lower()
            how["compression"] = "none" if known == "uncompressed" else known
            how["use_dictionary"] = any("DICTIONARY" in one for one in column.encodings)

    def encode(changed: Any) -> bytes:
        sink = io.BytesIO()
        pq.write_table(changed, sink, **how)
        return sink.getvalue()

    return TableFile(table, encode)


def _arrow(content: bytes, *, stream: bool) -> TableFile:
    import pyarrow as pa

    if stream:
        with pa.ipc.open_stream(content) as reader:
            table = reader.read_all()
    else:
        with pa.ipc.open_file(content) as reader:
            table = reader.read_all()
    sizes = [len(batch) for batch in table.to_batches()]

    def encode(changed: Any) -> bytes:
        sink = io.BytesIO()
        begin = pa.ipc.new_stream if stream else pa.ipc.new_file
        with begin(sink, changed.schema) as writer:
            writer.write_table(changed.combine_chunks(), max_chunksize=max([1, *sizes]))
        return sink.getvalue()

    return TableFile(table, encode)


def _orc(content: bytes) -> TableFile:
    from pyarrow import orc

    file = orc.ORCFile(io.BytesIO(content))

    def encode(changed: Any) -> bytes:
        sink = io.BytesIO()
        orc.write_table(changed, sink, compression=str(file.compression))
        return sink.getvalue()

    return TableFile(file.read(), encode)

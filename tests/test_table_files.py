"""Faults of tables that rewrite one of several files, and keep the rest of it."""

from __future__ import annotations

import gzip
import io

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.storage import StoredFile
from pytest_mlchaos.errors import PayloadMismatch
from pytest_mlchaos.testing import strike
from tests.storage import running

CSV = b'id;name;amount;when\r\n007;"a;b";1.50;2024-01-01\r\n12;c;;2024-01-02\r\n13;d;2e3;2024-01-03\r\n'
LINES = b'{"id":1,"tags":["x"],"v":1.0}\n{"id":2,"v":2.50}\n{"id":3,"tags":[],"v":3}\n'


def changed(name, content, path, **keywords):
    """The content of a file after the fault has struck it."""
    file = StoredFile(path, given=content)
    (outcome,) = strike(create(name, at=0, file="*", **keywords), [file], seed=3).outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome.read()


def test_a_csv_file_keeps_the_texts_that_are_not_hit():
    """Its delimiter, its line ends, leading zeros, and numbers as they were written."""
    found = changed("schema_drift", CSV, "a.csv", kind="renamed", column="id", to="key")
    assert found == CSV.replace(b"id;", b"key;")
    found = changed("missing_values", CSV, "a.csv", column="name", fraction=1.0)
    assert found == CSV.replace(b'"a;b"', b"").replace(b";c;", b";;").replace(b";d;", b";;")
    found = changed("schema_drift", CSV, "a.csv", kind="units", column="amount", factor=10.0)
    assert found == CSV.replace(b"1.50", b"15.0").replace(b"2e3", b"20000.0")


def test_rows_of_a_csv_file_come_twice_and_columns_change_places():
    """Whole records, as they were written."""
    found = changed("duplicate_rows", CSV, "a.csv", fraction=0.3).split(b"\r\n")
    assert len(found) == 6
    assert found[4] in CSV.split(b"\r\n")[1:4]
    found = changed("schema_drift", b"a\tb\n1\tx\n", "a.tsv", kind="reordered")
    assert found == b"b\ta\nx\t1\n"


def test_json_lines_keep_the_lines_that_are_not_hit():
    """A line that changes keeps its style."""
    found = changed("missing_values", LINES, "a.jsonl", column="v", fraction=0.3).split(b"\n")
    before = LINES.split(b"\n")
    (hit,) = [place for place in range(4) if found[place] != before[place]]
    assert b'"v":null' in found[hit]


def test_a_compressed_file_stays_compressed():
    """With its format inside."""
    found = changed("missing_feature", gzip.compress(CSV), "a.csv.gz", column="when")
    assert gzip.decompress(found).startswith(b"id;name;amount\r\n")


def table():
    """A table with metadata."""
    pa = pytest.importorskip("pyarrow")
    values = pa.table({"id": list(range(60)), "x": [n / 2 for n in range(60)]})
    return values.replace_schema_metadata({"made": "today"})


def test_a_parquet_file_keeps_its_row_groups_and_compression():
    """And the metadata of its schema."""
    pq = pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    pq.write_table(table(), sink, row_group_size=20, compression="zstd")
    found = pq.ParquetFile(
        io.BytesIO(
            changed("schema_drift", sink.getvalue(), "a.parquet", kind="dropped", column="x")
        )
    )
    assert found.metadata.num_row_groups == 3
    assert found.metadata.row_group(0).column(0).compression == "ZSTD"
    assert found.schema_arrow.names == ["id"]
    assert found.schema_arrow.metadata[b"made"] == b"today"


@pytest.mark.parametrize("kind", ["new_file", "new_stream"])
def test_an_arrow_file_keeps_its_kind_and_batches(kind):
    """A stream stays a stream."""
    pa = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    with getattr(pa.ipc, kind)(sink, table().schema) as writer:
        writer.write_table(table(), max_chunksize=20)
    found = changed("missing_values", sink.getvalue(), "a.arrow", column="x", fraction=0.5)
    assert found[:4] == sink.getvalue()[:4]
    read = pa.ipc.open_file if kind == "new_file" else pa.ipc.open_stream
    after = read(found).read_all()
    assert after.column("x").null_count == 30
    assert [len(batch) for batch in after.to_batches()] == [20, 20, 20]


def test_an_orc_file_is_rewritten():
    """With its values."""
    orc = pytest.importorskip("pyarrow.orc")
    sink = io.BytesIO()
    orc.write_table(table(), sink)
    found = changed("schema_drift", sink.getvalue(), "a.orc", kind="renamed", column="x")
    assert orc.read_table(io.BytesIO(found)).column_names == ["id", "x_1"]


@pytest.mark.parametrize(
    ("content", "path", "said"),
    [
        (b"\x93NUMPY", "a.npy", "its format cannot be rewritten. These can: CSV"),
        (b"a,b\n1\n", "a.csv", "record 2 has 1 fields, and the first one 2"),
        (b"a,a\n1,2\n", "a.csv", "two of its columns have the same name"),
        (b"[1]\n", "a.jsonl", "line 1 is not a JSON object"),
        (b'{"part-0.csv": "1f0c"}\n', "manifest.json", "its format cannot be rewritten"),
        (b"PAR1xxxx", "a.parquet", "cannot be read"),
        (b"a\xff\n", "a.csv", "not text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_rewritten_is_refused(content, path, said):
    """With the reason."""
    if path == "a.parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(PayloadMismatch, match=said):
        changed("missing_values", content, path)


def test_a_column_that_is_not_in_the_file_is_refused():
    """With the names of those that are."""
    with pytest.raises(PayloadMismatch, match=r"has no column 'amonut'.*, in the file a.csv"):
        changed("missing_values", CSV, "a.csv", column="amonut")


def test_a_reader_in_c_meets_one_of_several_files(tmp_path):
    """Only the second file differs, and both are whole afterwards."""
    dataset = pytest.importorskip("pyarrow.dataset")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes(b"id,v\n1,2\n2,3\n")
    fault = create("missing_values", file="*.csv", column="v", fraction=1.0, at=1)
    with running(tmp_path, fault) as controller:
        found = dataset.dataset(tmp_path, format="csv").to_table()
    assert found.column("v").null_count == 2
    assert controller.journal[0].details["file"] == "b.csv"
    assert (tmp_path / "b.csv").read_bytes() == b"id,v\n1,2\n2,3\n"


def test_fractions_in_a_csv_file_are_texts_with_a_decimal_comma():
    """Without a change of its text, a number in a CSV file is a number for each reader."""
    found = changed("schema_drift", b"a,b\n1,2.5\n3,-0.5\n", "a.csv", kind="retyped", column="b")
    assert found == b'a,b\n1,"2,5"\n3,"-0,5"\n'

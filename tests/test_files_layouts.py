"""Check where each file format may end, and which bytes its checksums cover."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib

import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.faults.files.damage import flip, swap, zero
from pytest_mlchaos.faults.files.layouts import MAX_SPOTS, boundaries, covered, spots

faults.load()
ROWS = list(range(60))


def texts(content, path):
    """The descriptions of a file's boundaries, by offset."""
    return {one.offset: one.text for one in boundaries(content, path)}


def test_a_quoted_line_end_is_not_the_end_of_a_csv_record():
    """A record with a quoted line end is one record."""
    content = b'id,text\n1,"a\nb"\n2,c\n'
    assert texts(content, "x.csv") == {
        8: "after the line of names",
        16: "after record 1 of 2",
        19: "before the last line end",
    }


def test_json_lines_end_between_records():
    """Each line is a record."""
    assert texts(b'{"a":1}\n{"a":2}\n', "x.jsonl")[8] == "at the end of record 1 of 2"


def test_parquet_ends_after_row_groups_and_before_its_footer():
    """The last row group ends where the footer begins."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": ROWS, "y": ROWS}), sink, row_group_size=20)
    found = list(texts(sink.getvalue(), "x.parquet").values())
    assert found == [
        "after the first four bytes",
        "after row group 1 of 3",
        "after row group 2 of 3",
        "before the footer",
        "before the length of the footer",
    ]


@pytest.mark.parametrize("kind", ["new_file", "new_stream"])
def test_arrow_ends_between_its_batches(kind):
    """A stream that is cut after a batch is a whole, shorter stream for a reader."""
    pa = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    with getattr(pa.ipc, kind)(sink, pa.schema([("x", pa.int64())])) as writer:
        for start in (0, 20, 40):
            writer.write_batch(pa.record_batch({"x": ROWS[start : start + 20]}))
    content = sink.getvalue()
    found = {text: offset for offset, text in texts(content, "x.arrow").items()}
    assert {"after the schema", "after batch 1 of 3", "after batch 3 of 3"} <= found.keys()
    start = 8 if kind == "new_file" else 0
    rest = content[start : found["after batch 2 of 3"]]
    assert pa.ipc.open_stream(rest).read_all().num_rows == 40


def archive():
    """A tar archive of two files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as target:
        for name in ("a.txt", "b.txt"):
            member = tarfile.TarInfo(name)
            member.size = 700
            target.addfile(member, io.BytesIO(bytes(700)))
    return sink.getvalue()


def test_tar_ends_between_its_members():
    """A reader takes an archive that ends after a member for a whole one."""
    content = archive()
    found = {text: offset for offset, text in texts(content, "x.tar").items()}
    assert found["after member 1 of 2"] == 512 + 1024
    with tarfile.open(fileobj=io.BytesIO(content[: found["after member 1 of 2"]])) as source:
        assert source.getnames() == ["a.txt"]


def test_zip_ends_between_its_members_and_before_its_list():
    """The list of the members is at the end."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as target:
        target.writestr("a", b"x" * 50)
        target.writestr("b", b"y" * 50)
    assert list(texts(sink.getvalue(), "x.zip").values()) == [
        "after member 1 of 2",
        "before the list of members",
    ]
    start, stop = covered(sink.getvalue(), "x.zip")[1]
    assert sink.getvalue()[start:stop] == b"y" * 50


def test_gzip_ends_between_its_members():
    """Writers append members."""
    one = gzip.compress(b"first\n" * 9)
    found = texts(one + gzip.compress(b"second\n"), "x.gz")
    assert found[len(one)] == "after member 1 of 2"


def test_tensors_and_arrays_end_after_their_headers():
    """The header says how much follows."""
    np = pytest.importorskip("numpy")
    sink = io.BytesIO()
    np.save(sink, np.arange(10))
    assert texts(sink.getvalue(), "x.npy")[128] == "after the header"
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    assert texts(content, "x.safetensors")[8 + len(header)] == "after the header"


def test_a_flip_in_a_covered_byte_is_noticed():
    """The middle of each covered range of gzip and tar."""
    content = gzip.compress(bytes(range(256)) * 20)
    ((start, stop),) = covered(content, "x.gz")
    with pytest.raises((zlib.error, gzip.BadGzipFile, EOFError)):
        gzip.decompress(flip(content, (start + stop) // 2))
    start, stop = covered(archive(), "x.tar")[0]
    with pytest.raises(tarfile.ReadError):
        tarfile.open(fileobj=io.BytesIO(flip(archive(), (start + stop) // 2)))


@pytest.mark.parametrize("path", ["x.csv", "x.npy", "x.parquet"])
def test_formats_without_checksums_cover_nothing(path):
    """No reader notices a flipped digit."""
    assert covered(b"id\n1\n2\n", path) == []


def test_spots_are_few_and_start_between_two_parts():
    """The general ones come soon after."""
    content = b"x\n" * 5000
    found = spots(content, "x.txt")
    assert len(found) <= MAX_SPOTS
    assert found[0].text.startswith("at the end of line")
    assert {3, len(content) - 1, 0} <= {one.offset for one in found}


@pytest.mark.parametrize("content", [b"", b"x", b"PAR1", b"\x1f\x8b\x08", b"PK\x03\x04", b"ORC"])
def test_a_damaged_file_has_spots_without_an_error(content):
    """A layout that cannot be read has the general places."""
    assert all(0 <= one.offset < len(content) for one in spots(content, "x"))


def test_blocks_are_zeroed_and_swapped():
    """The size stays the same."""
    content = b"a" * 4096 + b"b" * 4096 + b"c" * 100
    assert zero(content, 5000) == b"a" * 4096 + bytes(4096) + b"c" * 100
    assert swap(content, 0) == b"b" * 4096 + b"a" * 4096 + b"c" * 100
    assert sorted(swap(b"12345678", 0)) == sorted(b"12345678") != list(swap(b"12345678", 0))


def test_spots_of_alternating_parts_include_both_kinds():
    """Members and their headers alternate in an archive. Cuts after both are tried."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as target:
        for number in range(12):
            target.addfile(tarfile.TarInfo(f"{number}.txt"))
            member = tarfile.TarInfo(f"{number}.bin")
            member.size = 300 * number
            target.addfile(member, io.BytesIO(bytes(member.size)))
    texts = [one.text for one in spots(sink.getvalue(), "x.tar")]
    assert sum(text.startswith("after member") for text in texts) >= 4
    assert sum(text.startswith("after the header") for text in texts) >= 4


def frames(module):
    """Three compressed streams in one file, and their ends."""
    parts = [module.compress(bytes(range(200)) * (number + 1)) for number in range(3)]
    return b"".join(parts), [len(parts[0]), len(parts[0] + parts[1])]


@pytest.mark.parametrize("name", ["gzip", "bz2", "lzma", "zstandard", "lz4.frame"])
def test_compressed_streams_in_one_file_end_between_each_other(name):
    """A reader takes the first streams of a file for the whole of it."""
    content, ends = frames(pytest.importorskip(name))
    found = [offset for offset, text in texts(content, "x").items() if text.startswith("after ")]
    assert [offset for offset in found if offset in ends] == ends

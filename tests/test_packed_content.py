"""Check which files are equal, or whole, although their bytes differ."""

from __future__ import annotations

import contextlib
import gzip
import io
import sqlite3
import tarfile
import zipfile

import pytest

from pytest_mlchaos.pipelines.left_files import _is_cut
from pytest_mlchaos.runs.workdirs import _state, content_state


def gzipped(content, year):
    """A gzip file of this year."""
    return gzip.compress(content, mtime=(year - 1970) * 31_000_000)


def zipped(content, year):
    """A zip archive of this year."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a", (year, 1, 1, 0, 0, 0)), content)
    return sink.getvalue()


def tarred(content, year):
    """A tar archive of this year."""
    sink = io.BytesIO()
    member = tarfile.TarInfo("a")
    member.size, member.mtime = len(content), (year - 1970) * 31_000_000
    with tarfile.open(fileobj=sink, mode="w") as archive:
        archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def hdf5(content, year):
    """An HDF5 file, in which as many other datasets were removed."""
    h5py = pytest.importorskip("h5py")
    sink = io.BytesIO()
    with h5py.File(sink, "w") as file:
        for number in range(year % 5):
            file[f"old-{number}"] = range(100)
        file["x"] = list(content)
        file.attrs["unit"] = "m"
        for number in range(year % 5):
            del file[f"old-{number}"]
    return sink.getvalue()


@pytest.mark.parametrize("pack", [gzipped, zipped, tarred, hdf5])
def test_archives_are_equal_if_their_members_are(pack):
    """A retry that waits writes a different time. Different or cut members still differ."""
    one, later = pack(b"abc" * 400, 2001), pack(b"abc" * 400, 2004)
    assert one != later
    assert content_state(one) == content_state(later)
    assert content_state(one) != content_state(pack(b"abd" * 400, 2001))
    assert content_state(one) != content_state(later[:-600] if len(later) > 1000 else later[:-3])


def test_a_tar_archive_without_its_end_is_not_whole():
    """A reader of whole members would take it for the archive."""
    whole = tarred(b"abc", 2001)
    assert content_state(whole) != content_state(whole[:1024])


@pytest.mark.parametrize(("made", "cut"), [("create table t(x)", False), (None, True)])
def test_an_empty_file_is_a_whole_database_without_tables(tmp_path, made, cut):
    """SQLite creates an empty file before its first write. An empty text is half a text."""
    path = tmp_path / "out.db"
    if made is None:
        path.write_text("rows\n")
    else:
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute(made)
    assert _is_cut(content_state(b""), [_state(path)], renamed=False) is cut

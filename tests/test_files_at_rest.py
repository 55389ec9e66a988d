"""Files that are damaged on disk before a subject reads them, for readers of every kind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.subjects import subject_runs
from pytest_mlchaos.errors import BadArgument, MlchaosError, PayloadMismatch
from pytest_mlchaos.runs.borrowed_inputs import with_copies
from tests.storage import armed, running

CONTENT = b"x\n" + b"".join(b"%d\n" % n for n in range(50))


def damaged(**keywords):
    """The fault at the first file."""
    return create("damaged_file", at=0, **keywords)


@pytest.fixture
def file(tmp_path):
    """A file of the subject."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.csv"
    path.write_bytes(CONTENT)
    return path


def by_child(path):
    """The size that a child process reads."""
    code = f"print(len(open({str(path)!r}, 'rb').read()))"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def by_pyarrow(path):
    """The rows that a reader in C++ finds."""
    dataset = pytest.importorskip("pyarrow.dataset")
    return dataset.dataset(path, format="csv").to_table().num_rows


def by_duckdb(path):
    """The rows that DuckDB finds."""
    duckdb = pytest.importorskip("duckdb")
    return duckdb.sql(f"select count(*) from '{path}'").limit(1).fetchall()[0][0]


def by_polars(path):
    """The rows that a lazy reader in Rust finds."""
    polars = pytest.importorskip("polars")
    return polars.scan_csv(path).collect().height


@pytest.mark.parametrize("read", [by_child, by_pyarrow, by_duckdb, by_polars])
def test_each_kind_of_reader_meets_a_cut_file(tmp_path, file, read):
    """The file itself differs, so the reader's language does not matter."""
    whole = read(file)
    with running(tmp_path, damaged(kind="cut", offset=22)) as controller:
        found = read(file)
    assert 0 < found < whole
    assert read(file) == whole
    (strike,) = controller.journal
    assert (strike.visit, strike.details["path"], strike.details["offset"]) == (0, "in/a.csv", 22)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_original_returns_after_an_error(tmp_path, file, error):
    """With its content, its mode and its times."""
    file.chmod(0o640)
    before = file.stat()
    with pytest.raises(error), running(tmp_path, damaged(kind="empty")):
        assert file.read_bytes() == b""
        assert file.stat().st_mtime_ns == before.st_mtime_ns
        raise error
    after = file.stat()
    assert file.read_bytes() == CONTENT
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["in"]


def test_what_the_subject_writes_itself_stays(tmp_path, file):
    """A cache that is made again replaces the damaged one."""
    with running(tmp_path, damaged(kind="cut", offset=3)):
        file.write_bytes(b"made again")
    assert file.read_bytes() == b"made again"
    with running(tmp_path, damaged(kind="cut", offset=3)):
        file.unlink()
    assert not file.exists()


def test_a_missing_file_is_absent_and_a_copy_is_removed(tmp_path, file):
    """Both are undone."""
    with running(tmp_path, damaged(kind="missing")):
        assert not file.exists()
    with running(tmp_path, damaged(kind="duplicated")):
        assert (file.parent / "a (1).csv").read_bytes() == CONTENT
    assert os.listdir(file.parent) == ["a.csv"]


def test_a_late_file_appears_on_the_virtual_clock(tmp_path, file):
    """A subject that waits finds it."""
    with running(tmp_path, damaged(kind="late", delay="30s"), clock="virtual") as controller:
        controller.clock.sleep(20)
        assert not file.exists()
        controller.clock.sleep(20)
        assert file.read_bytes() == CONTENT
    assert file.exists()


def test_a_replaced_file_has_the_content_of_another(tmp_path, file):
    """Without another, the fault says so."""
    with (
        pytest.raises(PayloadMismatch, match="needs a second file"),
        running(tmp_path, damaged(kind="replaced")),
    ):
        pass
    (file.parent / "b.csv").write_bytes(b"y\n")
    with running(tmp_path, damaged(kind="replaced")):
        assert file.read_bytes() == b"y\n"
    assert file.read_bytes() == CONTENT


def test_a_file_that_no_reader_opens_is_not_struck(tmp_path, file):
    """The damage alone is not a strike."""
    with running(tmp_path, damaged(kind="cut", offset=3)) as controller:
        pass
    assert not list(controller.journal)
    assert "in/a.csv" not in controller.names["storage.file"]


def test_the_trial_without_faults_offers_the_opened_files(tmp_path, file):
    """Files that no reader opens are left out, also if C++ is the reader."""
    (file.parent / "b.csv").write_bytes(CONTENT)
    with running(tmp_path, create("damaged_file", path="*.csv"), probing=True) as controller:
        by_pyarrow(file.parent / "b.csv")
    (scheduled,) = controller.scheduled
    assert scheduled.eligible == [1]
    assert scheduled.measures["spot"] > 5
    assert file.read_bytes() == CONTENT


def test_an_offset_beyond_the_end_is_refused(tmp_path, file):
    """With the size."""
    said = pytest.raises(BadArgument, match="at most the size of the file, got 7000")
    with said, running(tmp_path, damaged(offset=7000)):
        pass


def write_and_read(folder):
    """A body that makes its file itself, and reads it by C++."""
    path = folder / "late.csv"
    path.write_bytes(CONTENT)
    return by_pyarrow(path)


def test_in_a_test_body_a_file_is_struck_before_the_next_call(tmp_path):
    """The call that wrote it does not consume the fault."""
    with running(tmp_path, damaged(kind="cut", offset=22), stepwise=True) as controller:
        assert write_and_read(tmp_path) == 10
    assert len(controller.journal) == 1


def test_two_faults_strike_one_file(tmp_path, file):
    """Each is recorded."""
    declared = (damaged(path="*.csv", offset=30), damaged(path="in/*", kind="bit_flip", offset=3))
    with running(tmp_path, *declared) as controller:
        found = file.read_bytes()
    assert len(found) == 30
    assert found[3] != CONTENT[3]
    assert len(controller.journal) == 2


def test_a_file_of_the_user_is_struck_in_a_copy(tmp_path, tmp_path_factory):
    """The subject gets the copy, and the original is compared."""
    outside = tmp_path_factory.mktemp("data") / "a.csv"
    outside.write_bytes(CONTENT)
    scratch = tmp_path / "own"
    (scratch / "test").mkdir(parents=True)
    with armed(scratch / "test", damaged(kind="empty")) as controller:
        given, number = with_copies(controller, (outside, 3), scratch)
        assert (given.name, given.read_bytes(), number) == ("a.csv", CONTENT, 3)
        with subject_runs(controller, [given]) as begin:
            begin()
            assert given.read_bytes() == b""
            assert outside.read_bytes() == CONTENT
    assert os.listdir(scratch) == ["test"]
    assert len(controller.journal) == 1
    said = pytest.raises(MlchaosError, match="outside of the test's directories changed")
    with said, armed(scratch / "test", damaged(kind="empty")) as controller:
        with_copies(controller, (outside,), scratch)
        outside.write_bytes(b"changed")


def test_a_relative_path_of_the_user_is_struck_in_a_copy(tmp_path, monkeypatch):
    """A word that is also the name of a folder stays as it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").write_bytes(CONTENT)
    scratch = tmp_path / "own"
    (scratch / "test").mkdir(parents=True)
    with armed(scratch / "test", damaged(kind="empty")) as controller:
        given, word = with_copies(controller, ("data/a.csv", "data"), scratch)
        assert os.path.isabs(given)
        assert Path(given).read_bytes() == CONTENT
        assert word == "data"


def hdf5(folder):
    """An HDF5 file, and its reader."""
    h5py = pytest.importorskip("h5py")
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = list(range(3000))

    def read():
        with h5py.File(path) as file:
            return file["x"][:].sum()

    return path, read


def zarr_chunk(folder):
    """A chunk of a zarr array, and the array's reader."""
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        store=str(folder / "z"), shape=(90,), chunks=(30,), dtype="i8", compressors=None
    )
    array[:] = 7
    return folder / "z" / "c" / "1", lambda: zarr.open(str(folder / "z"), mode="r")[:].sum()


def model(folder):
    """A saved model, and its reader."""
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.arange(500)}, folder / "m.pt")
    return folder / "m.pt", lambda: torch.load(folder / "m.pt")["w"].sum()


def lines_of_datasets(folder):
    """A file of a data set that is read by ``datasets``."""
    datasets = pytest.importorskip("datasets")
    path = folder / "a.csv"
    path.write_bytes(CONTENT)
    how = {"data_files": str(path), "cache_dir": str(folder / "cache"), "split": "train"}
    return path, lambda: datasets.load_dataset("csv", **how).num_rows


@pytest.mark.slow
@pytest.mark.parametrize("make", [hdf5, zarr_chunk, model, lines_of_datasets])
def test_readers_of_arrays_and_data_sets_meet_a_cut_file(tmp_path, make):
    """They raise, or return something else, and the whole file afterwards."""
    path, read = make(tmp_path)
    fault = damaged(path=path.name, kind="cut", offset=0.5)
    found = None
    with contextlib.suppress(Exception), running(tmp_path, fault) as controller:
        found = read()
    assert controller.journal
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert found != read()


def test_without_inotify_the_files_that_match_are_struck(tmp_path, file, monkeypatch):
    """A search tries all of them, and each damage counts as a strike."""
    monkeypatch.setattr("pytest_mlchaos.engine.inotify.available", lambda: False)
    with running(tmp_path, create("damaged_file"), probing=True) as controller:
        pass
    assert controller.scheduled[0].eligible == [0]
    with running(tmp_path, damaged(kind="empty")) as controller:
        assert file.read_bytes() == b""
    assert len(controller.journal) == 1
    assert file.read_bytes() == CONTENT

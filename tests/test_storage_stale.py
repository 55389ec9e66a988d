"""Storage that shows an earlier state: old versions, and listings that are out of date."""

from __future__ import annotations

import glob
import os

import pytest

from pytest_mlchaos.core.faults import create
from tests.storage import armed


def test_a_stale_read_returns_the_previous_version(tmp_path):
    """The next read is right."""
    (tmp_path / "a.json").write_text("old")
    with armed(tmp_path, create("stale_read", at=0)) as controller:
        assert (tmp_path / "a.json").read_text() == "old"
        (tmp_path / "a.json").write_text("newer")
        assert (tmp_path / "a.json").read_text() == "old"
        assert (tmp_path / "a.json").read_text() == "newer"
        (tmp_path / "b").write_text("1")
        assert (tmp_path / "b").read_text() == "1"
    assert len(controller.journal.lines()) == 1


def test_a_stale_read_of_an_object_returns_the_previous_version(tmp_path):
    """It is read as a whole, or downloaded."""
    fs = pytest.importorskip("fsspec").filesystem("memory")
    with armed(tmp_path, create("stale_read", path="memory://*", at=[0, 2])) as controller:
        fs.pipe("/stale/a", b"old")
        fs.pipe("/stale/a", b"new")
        assert fs.cat("/stale/a") == b"old"
        assert fs.cat("/stale/a") == b"new"
        fs.get("/stale/a", f"{tmp_path}/a")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert len(controller.journal.lines()) == 2
    fs.rm("/stale", recursive=True)


LISTINGS = {
    "os.listdir": lambda path: os.listdir(path),
    "os.scandir": lambda path: [entry.name for entry in os.scandir(path)],
    "glob": lambda path: [os.path.basename(name) for name in glob.glob(f"{path}/*")],
    "iterdir": lambda path: [entry.name for entry in path.iterdir()],
    "exists": lambda path: [name for name in ("old", "new") if (path / name).exists()],
    "isfile": lambda path: [name for name in ("old", "new") if os.path.isfile(path / name)],
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_stale_listing_misses_a_new_file(tmp_path, name):
    """The next listing shows it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("1")
    with armed(tmp_path, create("stale_listing", at=0)) as controller:
        assert LISTINGS[name](folder) == ["old"]
        (folder / "new").write_text("1")
        assert LISTINGS[name](folder) == ["old"]
        assert sorted(LISTINGS[name](folder)) == ["new", "old"]
    assert len(controller.journal.lines()) == 1


def test_a_stale_listing_still_shows_a_removed_file(tmp_path):
    """It cannot be opened."""
    (tmp_path / "a").write_text("1")
    with armed(tmp_path, create("stale_listing", at=0)):
        (tmp_path / "a").unlink()
        assert "a" in os.listdir(tmp_path)
        assert "a" not in os.listdir(tmp_path)


def test_a_stale_listing_of_objects_misses_a_new_one(tmp_path):
    """It is not listed, not found, and not there."""
    fs = pytest.importorskip("fsspec").filesystem("memory")
    fs.pipe("/list/old", b"1")
    with armed(tmp_path, create("stale_listing", at=[0, 1, 2, 3])) as controller:
        fs.pipe("/list/new", b"1")
        assert fs.ls("/list", detail=False) == ["/list/old"]
        assert fs.find("/list") == ["/list/old"]
        assert fs.glob("/list/*") == ["/list/old"]
        assert not fs.exists("/list/new")
        assert fs.exists("/list/new")
    assert len(controller.journal.lines()) == 4
    fs.rm("/list", recursive=True)

"""Test what a power loss may take: unsynced data, and names in unsynced directories."""

import os

import pytest

from pytest_mlchaos.engine import inotify
from tests.crashes import Recorded


@pytest.fixture(params=["events", "comparing"])
def losses(tmp_path, request):
    """The states of a program that only a power loss leaves, by what they hold; without files that
    are cut while they are written.
    """
    if request.param == "events" and not inotify.available():
        pytest.skip("needs inotify")

    def losses(program, prepare=None):
        one = Recorded(
            program, tmp_path / "work", tmp_path / "store", prepare=prepare, by=request.param
        ).checked()
        process = [tree for _, tree in one.states()]
        found = [
            tree
            for state, tree in one.states(power=True)
            if tree not in process and "cut at byte" not in state.what
        ]
        one.contents.close()
        return [{name: held for name, held in tree.items() if name} for tree in found]

    return losses


def replaced(root, *, data=False, names=False, everything=False):
    """A new checkpoint takes the place of the old one."""
    with open(root / "tmp", "wb") as file:
        file.write(b"new")
        if data:
            file.flush()
            os.fsync(file.fileno())
    os.replace(root / "tmp", root / "last")
    if names:
        fd = os.open(root, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    if everything:
        os.sync()


def old(root):
    """The checkpoint that is there."""
    (root / "last").write_bytes(b"old")


def test_renamed_but_never_written_back(losses):
    """A file that was renamed without fsync may be empty or zeros under its new name."""
    found = losses(replaced, old)
    assert {"last": b""} in found
    assert {"last": b"\0\0\0"} in found


def test_written_back_before_the_rename(losses):
    """A file that was written back first is whole under its new name."""
    found = losses(lambda root: replaced(root, data=True), old)
    assert not any(tree.get("last") in (b"", b"\0\0\0") for tree in found)


def test_what_was_there_is_safe(losses):
    """Files from before the run have been written back long ago."""
    assert all(
        tree.get("keep") == b"kept"
        for tree in losses(replaced, lambda root: (root / "keep").write_bytes(b"kept"))
    )


def test_removed_while_the_new_data_are_not_there(losses):
    """The old checkpoint is gone for good, and the new one's data never were written."""

    def program(root):
        (root / "new").write_bytes(b"new")
        os.unlink(root / "last")

    found = losses(program, old)
    assert {"new": b""} in found
    assert {"new": b"\0\0\0"} in found


@pytest.mark.parametrize("how", ["fsync", "fdatasync", "sync"])
def test_removed_once_the_new_data_are_there(losses, how):
    """However they were written back: then nothing is lost with the old one."""

    def program(root):
        with open(root / "new", "wb", buffering=0) as file:
            file.write(b"new")
            getattr(os, how)(*([] if how == "sync" else [file.fileno()]))
        os.unlink(root / "last")

    found = losses(program, old)
    assert {"new": b""} not in found
    assert {"new": b"\0\0\0"} not in found


def test_a_name_that_was_not_written_back(losses):
    """A new file's name may be lost though its data were written back, until its directory is."""

    def program(root, *, names):
        (root / "other").mkdir()
        with open(root / "new", "wb", buffering=0) as file:
            file.write(b"new")
            os.fsync(file.fileno())
            if names:
                fd = os.open(root, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
            os.symlink("new", root / "link")

    assert losses(lambda root: program(root, names=True)) == []

"""Armed faults that never strike change nothing that the code under test could see."""

from __future__ import annotations

import collections.abc
import gc
import io
import pickle
import sys
import weakref

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.stand_ins import Proxy
from pytest_mlchaos.sites.watched_files import Watched
from tests.storage import armed

LATE = 10**9
"""A visit that no test reaches."""


@pytest.fixture
def quiet(tmp_path):
    """Trials in which these faults are armed, or those of storage, and nothing is due."""
    storage = (create("flaky_storage", at=LATE), create("truncated_read", path="*", at=LATE))
    return lambda *declared: armed(tmp_path, *(declared or storage))


# -- files of filesystems ------------------------------------------------------------------------------------------


def test_an_archive_is_finished_when_its_filesystem_is_freed(quiet):
    """A file that is still there keeps no filesystem alive: a zip file gets its index from the filesystem's finalizer."""
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    with quiet():
        with fsspec.open("zip://a::memory://o.zip", "wb", zip={"mode": "w"}) as file:
            file.write(b"content")
        with fsspec.open("zip://a::memory://o.zip", "rb") as file:
            assert file.read() == b"content"


def test_an_opened_file_keeps_no_filesystem_alive(quiet):
    """Of any class, also without a cycle collection."""
    spec = pytest.importorskip("fsspec.spec")

    class Plain(spec.AbstractFileSystem):
        protocol = "plain-files"
        cachable = False

        def _open(self, path, mode="rb", **kwargs):
            return io.BytesIO(b"content")

    with quiet():
        fs = Plain()
        file = fs.open("a")
        freed = weakref.ref(fs)
        gc.disable()
        try:
            del fs
            assert freed() is None
        finally:
            gc.enable()
        assert file.read() == b"content"


def test_arming_imports_no_package_again(quiet, monkeypatch):
    """A test may have taken one out of ``sys.modules``, to import it under a patch of its own."""
    pytest.importorskip("fsspec.spec")
    monkeypatch.delitem(sys.modules, "fsspec")
    with quiet():
        assert "fsspec" not in sys.modules


class Odd:
    """A file object with methods and attributes of its own, and without some that others have."""

    def __init__(self):
        self.mode, self.closed_with = "rb", None

    def read(self, size=-1):
        return b"content"[: None if size == -1 else size]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed_with = error

    def __len__(self):
        return 7

    def __bool__(self):
        return False

    def __eq__(self, other):
        return type(other) is Odd

    def __hash__(self):
        return 5

    def __getitem__(self, key):
        return key

    def __contains__(self, item):
        return item == "x"


def test_a_file_object_keeps_its_protocols():
    """Special methods are those of its type, and it has no method that the file does not have."""
    odd = Odd()
    file = Watched(odd, lambda storage: None)
    assert isinstance(file, Odd)
    assert file.__class__ is Odd
    assert (len(file), bool(file), hash(file), file[3], "x" in file, "y" in file) == (7, False, 5, 3, True, False)
    assert file == odd
    assert file == Watched(Odd(), lambda storage: None)
    assert file.read(size=3) == b"con"
    with file as entered:
        assert entered is file
    assert odd.closed_with == (None, None, None)
    for name in ("write", "readline", "readinto", "read1", "seek", "__iter__", "__next__"):
        assert not hasattr(file, name) or name.startswith("__")
    assert not isinstance(file, collections.abc.Iterable)
    with pytest.raises(TypeError, match="not iterable"):
        iter(Watched(type("Bare", (), {"read": lambda self: b""})(), lambda storage: None))
    with pytest.raises(AttributeError, match="'Odd' object has no attribute 'write'"):
        file.write(b"")


def test_attributes_that_are_set_on_a_file_are_set_on_the_file():
    """Its own methods see them."""
    odd = Odd()
    file = Watched(odd, lambda storage: None)
    file.mode = "wb"
    file.more = 1
    assert (odd.mode, odd.more, vars(file) is vars(odd)) == ("wb", 1, True)
    del file.more
    assert not hasattr(odd, "more")


def test_a_file_object_is_pickled_as_the_file():
    """What is loaded is an object of its type."""
    loaded = pickle.loads(pickle.dumps(Watched(Odd(), lambda storage: None)))
    assert type(loaded) is Odd


def test_iterating_and_filling_are_those_of_the_file():
    """A file is its own iterator, a hint ends ``readlines``, and a buffer is filled."""
    file = Watched(io.BytesIO(b"one\ntwo\nthree\n"), lambda storage: None)
    assert iter(file) is file
    assert next(file) == b"one\n"
    assert file.readlines(2) == [b"two\n"]
    buffer = bytearray(3)
    assert file.readinto(buffer) == 3
    assert (bytes(buffer), file.readlines()) == (b"thr", [b"ee\n"])
    with pytest.raises(StopIteration):
        next(file)


def test_a_stand_in_is_freed_with_its_last_name():
    """Without a cycle collection, and the file with it."""
    odd = Odd()
    freed = weakref.ref(odd)
    file = Watched(odd, lambda storage: None)
    gc.disable()
    try:
        del odd, file
        assert freed() is None
    finally:
        gc.enable()


def test_a_stand_in_is_told_from_what_it_stands_for():
    """By its type, which is how the plugin finds its own."""
    file = Watched(Odd(), lambda storage: None)
    assert issubclass(type(file), Proxy)
    assert not issubclass(type(Odd()), Proxy)

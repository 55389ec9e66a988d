"""Armed faults that never strike change nothing that the code under test could see."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import importlib
import inspect
import io
import math
import os
import pickle
import sys
import tempfile
import time
import weakref

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.import_hooks import when_imported
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.stand_ins import Proxy
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.sites.storage.file_wrappers import FileProxy
from tests.armed_quiet import FAULTS, compare
from tests.storage import armed

LATE = 10**9
"""A visit that no test reaches."""


@pytest.fixture
def quiet(tmp_path):
    """Trials in which these faults are armed, or those of storage, and nothing is due."""
    storage = (create("flaky_storage", at=LATE), create("truncated_read", path="*", at=LATE))
    return lambda *declared: armed(tmp_path, *(declared or storage))


# -- files of filesystems --------------------------------------------------------------------------


def test_an_archive_is_finished_when_its_filesystem_is_freed(quiet):
    """A file that is still there keeps no filesystem alive: a zip file gets its index from the
    filesystem's finalizer.
    """
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    with quiet():
        with fsspec.open("zip://a::memory://o.zip", "wb", zip={"mode": "w"}) as file:
            file.write(b"content")
        with fsspec.open("zip://a::memory://o.zip", "rb") as file:
            assert file.read() == b"content"


def test_an_opened_file_keeps_no_filesystem_alive(quiet):
    """It holds for any class, also without a cycle collection."""
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
    file = FileProxy(odd, lambda storage: None)
    assert isinstance(file, Odd)
    assert file.__class__ is Odd
    assert (len(file), bool(file), hash(file), file[3], "x" in file, "y" in file) == (
        7,
        False,
        5,
        3,
        True,
        False,
    )
    assert file == odd
    assert file == FileProxy(Odd(), lambda storage: None)
    assert file.read(size=3) == b"con"
    with file as entered:
        assert entered is file
    assert odd.closed_with == (None, None, None)
    for name in ("write", "readline", "readinto", "read1", "seek", "__iter__", "__next__"):
        assert not hasattr(file, name) or name.startswith("__")
    assert not isinstance(file, collections.abc.Iterable)
    with pytest.raises(TypeError, match="not iterable"):
        iter(FileProxy(type("Bare", (), {"read": lambda self: b""})(), lambda storage: None))
    with pytest.raises(AttributeError, match="'Odd' object has no attribute 'write'"):
        file.write(b"")


def test_attributes_that_are_set_on_a_file_are_set_on_the_file():
    """Its own methods see them."""
    odd = Odd()
    file = FileProxy(odd, lambda storage: None)
    file.mode = "wb"
    file.more = 1
    assert (odd.mode, odd.more, vars(file) is vars(odd)) == ("wb", 1, True)
    del file.more
    assert not hasattr(odd, "more")


def test_a_file_object_is_pickled_as_the_file():
    """The loaded object has the same type."""
    loaded = pickle.loads(pickle.dumps(FileProxy(Odd(), lambda storage: None)))
    assert type(loaded) is Odd


def test_iterating_and_filling_are_those_of_the_file():
    """A file is its own iterator, a hint ends ``readlines``, and a buffer is filled."""
    file = FileProxy(io.BytesIO(b"one\ntwo\nthree\n"), lambda storage: None)
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
    file = FileProxy(odd, lambda storage: None)
    gc.disable()
    try:
        del odd, file
        assert freed() is None
    finally:
        gc.enable()


def test_a_stand_in_is_told_from_what_it_stands_for():
    """By its type, which is how the plugin finds its own."""
    file = FileProxy(Odd(), lambda storage: None)
    assert issubclass(type(file), Proxy)
    assert not issubclass(type(Odd()), Proxy)


# -- functions that have a wrapper -----------------------------------------------------------------


def test_built_in_functions_kept_in_a_class_take_no_self(quiet, tmp_path):
    """They are not descriptors, and neither are their stand-ins."""
    (tmp_path / "a").write_text("content")
    with trial(
        Schedule(
            (create("flaky_storage", at=LATE), create("call_delay", target="math:sqrt", at=LATE))
        ),
        Patches(),
        clock="virtual",
    ):

        class Tools:
            now, wait, reader, low, renamer, remover = (
                time.monotonic,
                time.sleep,
                open,
                os.open,
                os.rename,
                os.remove,
            )
            root = math.sqrt

        tools = Tools()
        assert tools.now() < tools.now()
        tools.wait(3)
        with tools.reader(tmp_path / "a") as file:
            assert file.read() == "content"
        os.close(tools.low(tmp_path / "a", os.O_RDONLY))
        tools.renamer(tmp_path / "a", tmp_path / "b")
        tools.remover(tmp_path / "b")
        assert tools.root(4) == 2


@pytest.mark.parametrize("name", ["os:remove", "os:open", "io:open", "time:sleep", "math:sqrt"])
def test_a_stand_in_of_a_built_in_function_passes_for_one(name):
    """To ``inspect``, ``isinstance``, ``pickle`` and by its attributes."""
    module, _, function = name.partition(":")
    before = getattr(sys.modules[module], function)
    signature = _signature(before)
    with trial(
        Schedule(
            (create("flaky_storage", at=LATE), create("call_delay", target="math:sqrt", at=LATE))
        ),
        Patches(),
        clock="virtual",
    ):
        held = getattr(sys.modules[module], function)
        assert held is not before
        assert inspect.isbuiltin(held)
        assert not inspect.isfunction(held)
        assert (held.__name__, held.__module__, repr(held)) == (
            before.__name__,
            before.__module__,
            repr(before),
        )
        assert _signature(held) == signature
        assert pickle.loads(pickle.dumps(held)) is held
    assert getattr(sys.modules[module], function) is before


def _signature(function):
    try:
        return inspect.signature(function)
    except ValueError:
        return None


class Talks:
    """Generators that answer what is sent, as methods: plain and asynchronous."""

    def __init__(self):
        self.log = []

    def plain(self):
        got = "start"
        try:
            while got != "end":
                try:
                    got = yield got
                except KeyError as error:
                    got = f"caught {error}"
            return "done"
        finally:
            self.log.append("closed")

    async def later(self):
        got = "start"
        try:
            while got != "end":
                try:
                    got = yield got
                except KeyError as error:
                    got = f"caught {error}"
        finally:
            self.log.append("closed")


@pytest.mark.parametrize("fault", ["call_delay", "stale_batch"])
def test_what_is_sent_to_a_generator_reaches_it(quiet, fault):
    """Values, errors and its result too."""
    with quiet(create(fault, target=f"{__name__}:Talks.plain", at=LATE)):
        talks = Talks()
        talk = talks.plain()
        assert inspect.isgenerator(talk)
        assert [next(talk), talk.send("a"), talk.throw(KeyError("b")), next(talk)] == [
            "start",
            "a",
            "caught 'b'",
            None,
        ]
        with pytest.raises(StopIteration) as stopped:
            talk.send("end")
        assert stopped.value.value == "done"
        with pytest.raises(ValueError, match="own"):
            _begun(talks.plain()).throw(ValueError("own"))
        _begun(talks.plain()).close()
        assert talks.log == ["closed"] * 3


def _begun(generator):
    next(generator)
    return generator


@pytest.mark.parametrize("fault", ["call_delay", "stale_batch"])
def test_what_is_sent_to_an_asynchronous_generator_reaches_it(quiet, fault):
    """Values, errors and its end: it is closed when the generator is, not when the loop is."""
    with quiet(create(fault, target=f"{__name__}:Talks.later", at=LATE)):
        talks = Talks()

        async def main():
            talk = talks.later()
            assert inspect.isasyncgenfunction(Talks.later)
            assert [await anext(talk), await talk.asend("a"), await talk.athrow(KeyError("b"))] == [
                "start",
                "a",
                "caught 'b'",
            ]
            with pytest.raises(StopAsyncIteration):
                await talk.asend("end")
            begun = talks.later()
            await anext(begun)
            await begun.aclose()
            assert talks.log == ["closed"] * 2
            begun = talks.later()
            await anext(begun)
            with pytest.raises(ValueError, match="own"):
                await begun.athrow(ValueError("own"))

        asyncio.run(main())
        assert talks.log == ["closed"] * 3


# -- what outlives a trial -------------------------------------------------------------------------


def test_a_directory_that_a_library_makes_once_outlives_the_trial(quiet):
    """``multiprocessing`` remembers such a directory, and removes it at the end of the process."""
    with quiet():
        kept = tempfile.mkdtemp()
        remembered = tempfile.gettempdir()
    assert os.path.isdir(kept)
    os.mkdir(os.path.join(remembered, "later"))
    with quiet():
        assert os.listdir(tempfile.gettempdir()) == []


def test_trials_that_leave_no_temporary_file_share_a_directory(quiet):
    """An exploration of many trials makes one directory."""
    with quiet():
        first = tempfile.gettempdir()
        tempfile.TemporaryFile().close()
    with quiet():
        assert tempfile.gettempdir() == first


def test_a_class_of_filesystems_is_freed_while_storage_is_watched(quiet):
    """Also one whose methods hold it by ``super()``."""
    spec = pytest.importorskip("fsspec.spec")
    with quiet():

        class Local(spec.AbstractFileSystem):
            protocol = "short-lived"
            cachable = False

            def _open(self, path, mode="rb", **kwargs):
                return super()._open(path, mode, **kwargs)

        freed = weakref.ref(Local)
        assert hasattr(Local._open, "__wrapped__")
        del Local
        gc.collect()
        assert freed() is None


def test_a_module_that_is_imported_while_armed_has_its_own_loader(quiet, tmp_path, monkeypatch):
    """Two layers wait for one module; each acts at the import and at a reload, and leaves nothing
    on the loader.
    """
    (tmp_path / "late_module.py").write_text("loaded = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    acted = []
    with Patches() as patches:
        when_imported("late_module", patches, lambda: acted.append("first"))
        when_imported("late_module", patches, lambda: acted.append("second"))
        module = importlib.import_module("late_module")
        assert sorted(acted) == ["first", "second"]
        assert "exec_module" not in vars(module.__loader__)
        importlib.reload(module)
        assert sorted(acted) == ["first", "first", "second", "second"]
        assert "exec_module" not in vars(module.__loader__)
    monkeypatch.delitem(sys.modules, "late_module")


# -- the comparison of other projects' tests -------------------------------------------------------


ALONE = ["-p", "mlchaos"]


@pytest.fixture
def alone(monkeypatch):
    """Runs of pytest load no plugin but those that are named: that is faster."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.usefixtures("alone")
def test_the_comparison_finds_what_armed_faults_change(tmp_path, capsys):
    """It covers plain tests and ``unittest.TestCase``. A test that fails anyway does not count."""
    (tmp_path / "test_it.py").write_text(
        "import unittest\n"
        "from pytest_mlchaos.engine.controller import current\n"
        "def test_same(): pass\n"
        "def test_failing(): assert False\n"
        "def test_changed(): assert current() is None\n"
        "class TestOld(unittest.TestCase):\n"
        "    def test_same(self): pass\n"
        "    def test_changed(self): assert current() is None\n"
    )
    assert compare(tmp_path, ALONE, FAULTS["storage"]) == 2
    shown = capsys.readouterr().out
    assert "5 tests (1 fail anyway, 0 flaky), 2 differ with armed faults" in shown
    assert "test_it.py::test_changed\n  plain: passed\n  armed: call failed" in shown
    assert "test_it.py::TestOld::test_changed\n  plain: passed\n  armed: call failed" in shown


@pytest.mark.usefixtures("alone")
def test_a_comparison_of_nothing_is_a_failure(tmp_path):
    """A folder without tests proves nothing."""
    assert compare(tmp_path, ALONE, [])


@pytest.mark.parametrize("layer", FAULTS)
def test_the_layers_of_the_comparison_can_be_armed(layer):
    """Each of their faults exists."""
    for fault in FAULTS[layer]:
        keywords = dict(fault)
        assert create(keywords.pop("fault"), at=LATE, **keywords).at == (LATE,)

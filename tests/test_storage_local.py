"""Storage: local files at Python's level."""

from __future__ import annotations

import builtins
import contextlib
import errno
import gc
import gzip
import io
import json
import os
import pathlib
import pickle
import shutil
import sys
import tarfile
import tempfile
import threading
import zipfile

import numpy as np
import pytest

from pytest_mlchaos import chaos
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.errors import BadArgument, MissingExtra, SimulatedCrash
from pytest_mlchaos.sites.storage import base as storages
from pytest_mlchaos.sites.storage.clients import watch_filesystem
from tests.storage import armed, counts, made, watching

OPEN, REPLACE, UNLINK = io.open, os.replace, os.unlink


def write_json(path, value):
    """Write it in place."""
    with open(path, "w") as file:
        json.dump(value, file)


def read_json(path):
    """Read it."""
    with open(path) as file:
        return json.load(file)


class Folder:
    """A filesystem-like client of local files."""

    def open(self, path, mode="rb"):
        """Open a file below Python's level, which nothing else counts."""
        return io.BytesIO(pathlib.Path(path).name.encode())


def chaos_filesystem():
    """Return such a client, watched."""
    return watch_filesystem(Folder())


# -- what is counted -------------------------------------------------------------------------------


def test_a_file_that_is_written_and_read_passes_four_sites(tmp_path):
    """They are an open and a raw write, an open and a raw read. A write to a buffer is not an
    operation.
    """
    path = tmp_path / "a.json"
    assert made(tmp_path, lambda: write_json(path, {"a": 1})) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: read_json(path)) == {"open": 1, "read": 1}


def test_each_buffer_that_is_flushed_is_a_write(tmp_path):
    """Buffers decide how often the disk is asked."""

    def write():
        with open(tmp_path / "a", "wb", buffering=100) as file:
            for _ in range(5):
                file.write(b"x" * 80)

    assert made(tmp_path, write)["write"] == 5


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda d: os.replace(d / "a", d / "b"), {"rename": 1}),
        (lambda d: (d / "a").rename(d / "b"), {"rename": 1}),
        (lambda d: shutil.move(str(d / "a"), str(d / "b")), {"rename": 1}),
        (lambda d: os.remove(d / "a"), {"remove": 1}),
        (lambda d: (d / "a").unlink(), {"remove": 1}),
        (lambda d: shutil.rmtree(d / "folder"), {"remove": 2}),
        (lambda d: (d / "a").write_bytes(b"1"), {"open": 1, "write": 1}),
        (lambda d: os.close(os.open(d / "a", os.O_RDONLY)), {"open": 1}),
        (lambda d: os.close(os.open(d / "folder", os.O_RDONLY)), {}),
        (lambda d: shutil.copy(d / "a", d / "b"), {"open": 2, "read": 3, "write": 1}),
        (lambda d: os.listdir(d), {}),
    ],
)
def test_operations_are_counted_once_whatever_they_are_called(tmp_path, action, expected):
    """Functions of os, methods of Path, and what shutil makes of them."""
    (tmp_path / "a").write_text("text")
    (tmp_path / "folder").mkdir()
    for name in "xy":
        (tmp_path / "folder" / name).touch()
    assert made(tmp_path, lambda: action(tmp_path)) == expected


def test_an_atomic_save_is_four_operations(tmp_path):
    """A temporary file by descriptor, one write, one rename: the file that mkstemp opened is
    watched, too.
    """

    def save():
        number, name = tempfile.mkstemp(dir=tmp_path)
        with os.fdopen(number, "wb") as file:
            file.write(b"content")
        os.replace(name, tmp_path / "final")

    assert made(tmp_path, save) == {"open": 1, "write": 1, "rename": 1}


def test_a_named_temporary_file_is_opened_once(tmp_path):
    """Its opener is the user's code: what it opens is counted there."""

    def use():
        with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
            file.write(b"x")
            file.flush()

    assert made(tmp_path, use) == {"open": 1, "write": 1, "remove": 1}


def test_libraries_on_top_of_open_are_seen(tmp_path):
    """gzip, zipfile, tarfile, pickle, NumPy: exactly these operations, each time."""

    def save_gzip():
        with gzip.open(tmp_path / "a.gz", "wb") as file:
            file.write(b"x" * 1000)

    def save_zip():
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("member", "text")

    def save_tar():
        with tarfile.open(tmp_path / "a.tar", "w") as file:
            file.add(tmp_path / "a.gz", "member")

    def save_pickle():
        with open(tmp_path / "a.pkl", "wb") as file:
            pickle.dump({"a": 1}, file)

    array = np.arange(3000.0)
    assert made(tmp_path, save_gzip) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: gzip.open(tmp_path / "a.gz").read())["read"] >= 2
    assert made(tmp_path, save_zip)["write"] >= 1
    assert made(tmp_path, save_tar)["open"] == 2
    assert made(tmp_path, save_pickle) == {"open": 1, "write": 1}
    written = made(tmp_path, lambda: np.save(tmp_path / "a.npy", array))
    assert written == made(tmp_path, lambda: np.save(tmp_path / "a.npy", array))
    assert written["open"] == 1
    assert written["write"] >= 1
    assert made(tmp_path, lambda: np.load(tmp_path / "a.npy"))["read"] >= 2
    assert (np.load(tmp_path / "a.npy") == array).all()


def test_pandas_reads_and_writes_through_it(tmp_path):
    """Comma-separated values."""
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"a": [1, 2]})
    assert made(tmp_path, lambda: table.to_csv(tmp_path / "a.csv")) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: pd.read_csv(tmp_path / "a.csv"))["open"] == 1


def test_a_name_kept_in_a_default_argument_is_seen_by_the_audit_hook(tmp_path):
    """No wrapper reaches it; the operation fails all the same."""

    def rename(source, target, function=os.rename):
        function(source, target)

    (tmp_path / "a").touch()
    with (
        armed(tmp_path, create("flaky_storage", op="rename", at=0)),
        pytest.raises(OSError, match="injected"),
    ):
        rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").exists()
    with watching(tmp_path) as controller:
        rename(tmp_path / "a", tmp_path / "b")
        os.rename(tmp_path / "b", tmp_path / "a")
    assert counts(controller) == {"rename": 2}


def test_files_elsewhere_are_left_alone(tmp_path, tmp_path_factory, monkeypatch):
    """Only what lies below the own directory counts: relative paths are looked at where they lead
    to.
    """
    own, other = tmp_path / "own" / "test0", tmp_path / "elsewhere"
    own.mkdir(parents=True)
    other.mkdir()
    monkeypatch.chdir(own)

    def work():
        (other / "a").write_text("x")
        os.remove(other / "a")
        write_json("../../elsewhere/b", 1)
        write_json("here", 1)
        importlib_like = pathlib.Path(json.__file__).read_text()
        assert importlib_like

    with armed(own, create("flaky_storage", at=99)) as controller:
        work()
    assert controller.passed() == {"storage": 2}
    assert list(controller.names["storage"]) == ["here"]


def test_a_path_that_a_fault_names_counts_wherever_it_lies(tmp_path):
    """But never the interpreter's or an installed package's files, whatever the pattern."""
    own, other = tmp_path / "own" / "test0", tmp_path / "elsewhere"
    own.mkdir(parents=True)
    other.mkdir()
    with armed(
        own,
        create("flaky_storage", path="*.cfg", at=EVERY),
        create("flaky_storage", path="*.py", at=EVERY),
    ) as controller:
        assert pathlib.Path(json.__file__).read_text()
        with pytest.raises(OSError, match=r"a\.cfg"):
            (other / "a.cfg").write_text("x")
    assert controller.passed() == {("storage", "*.cfg"): 1}


@pytest.mark.parametrize(
    "pattern", ["model.pt", "*.pt", "ckpt/*", "ckpt/model.pt", "*/ckpt/*", "/*/test*/ckpt/model.pt"]
)
def test_a_pattern_is_matched_by_the_whole_path_the_own_part_or_the_name(tmp_path, pattern):
    """Each pattern has a counter of its own."""
    (tmp_path / "ckpt").mkdir()
    with armed(tmp_path, create("flaky_storage", path=pattern, at=99)) as controller:
        for name in ("ckpt/model.pt", "ckpt2", "model.pth"):
            (tmp_path / name).write_text("x")
    assert controller.passed() == {("storage", pattern): 2}


@pytest.mark.parametrize(
    "open_file",
    [open, lambda path: chaos_filesystem().open(str(path))],
    ids=["local", "filesystem"],
)
def test_a_pattern_does_not_match_the_names_of_directories_above(tmp_path, open_file):
    """Only an absolute pattern sees where pytest put the test's directory."""
    own = tmp_path / "test_cache_is_kept0"
    own.mkdir()
    (own / "model.pt").write_text("x")
    patterns = ["*cache*", f"{own}/*", "*model*"]
    with armed(
        own, *(create("flaky_storage", op="open", path=pattern, at=99) for pattern in patterns)
    ) as controller:
        open_file(own / "model.pt").close()
    assert controller.passed() == {("storage.open", f"{own}/*"): 1, ("storage.open", "*model*"): 1}


def test_a_pattern_does_not_match_the_path_of_the_project(tmp_path, monkeypatch):
    """Files in the current directory are found by their path in it."""
    project, own = tmp_path / "cache_project", tmp_path / "base" / "test0"
    for folder in (project, own):
        folder.mkdir(parents=True)
    monkeypatch.chdir(project)
    with armed(
        own,
        create("flaky_storage", path="*cache*", at=99),
        create("flaky_storage", path="*.cfg", at=99),
    ) as controller:
        (project / "a.cfg").touch()
    assert controller.passed() == {("storage", "*.cfg"): 1}


def test_a_rename_is_found_by_either_name(tmp_path):
    """Its path is where it goes, its source where it comes from."""
    seen = []
    for pattern in ("*.tmp", "*.pt"):
        (tmp_path / "a.tmp").touch()
        fault = create(
            "flaky_storage",
            op="rename",
            path=pattern,
            at=0,
            where=lambda visit: seen.append(dict(visit.attributes)) or True,
        )
        with armed(tmp_path, fault), pytest.raises(OSError) as caught:
            os.replace(tmp_path / "a.tmp", tmp_path / "a.pt")
        assert (caught.value.filename, caught.value.filename2) == ("a.tmp", "a.pt")
    assert seen == [{"path": "a.pt", "op": "rename", "source": "a.tmp"}] * 2


# -- what open gives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "r"},
        {"mode": "rb"},
        {"mode": "w"},
        {"mode": "wb"},
        {"mode": "a"},
        {"mode": "ab"},
        {"mode": "r+"},
        {"mode": "rb+"},
        {"mode": "w+b"},
        {"mode": "rb", "buffering": 0},
        {"mode": "wb", "buffering": 0},
        {"mode": "w", "buffering": 1},
        {"mode": "wb", "buffering": 16},
        {"mode": "r", "encoding": "latin-1", "errors": "replace", "newline": ""},
        {"mode": "rt"},
    ],
)
@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_a_watched_file_is_as_the_plain_one(tmp_path, arguments, kind):
    """Same types, names, modes, buffers; paths may be text, bytes or Path."""
    path = tmp_path / "a"
    path.write_text("text")
    plain = OPEN(kind(path), **arguments)
    with watching(tmp_path), open(kind(path), **arguments) as file:
        assert isinstance(file, type(plain))
        assert (file.name, file.mode, repr(file)) == (plain.name, plain.mode, repr(plain))
        if hasattr(plain, "encoding"):
            assert type(file) is io.TextIOWrapper
            for name in ("encoding", "errors", "line_buffering"):
                assert getattr(file, name) == getattr(plain, name)
        elif arguments.get("buffering") != 0:
            assert type(file) is type(plain)
        assert (file.readable(), file.writable(), file.seekable()) == (
            plain.readable(),
            plain.writable(),
            plain.seekable(),
        )
    plain.close()
    assert file.closed


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "q"},
        {"mode": "rw"},
        {"mode": "rbt"},
        {"mode": "rr"},
        {"mode": ""},
        {"mode": 3},
        {"mode": "rb", "encoding": "utf-8"},
        {"mode": "r", "buffering": 0},
        {"mode": "x"},
        {"mode": "r", "closefd": False},
        {"mode": "r", "encoding": "no-such-encoding"},
    ],
)
def test_wrong_arguments_get_the_error_they_always_got(tmp_path, arguments):
    """Type and text."""
    path = tmp_path / "a"
    path.write_text("text")
    with pytest.raises(Exception) as plain:  # compared below
        OPEN(path, **arguments)
    with watching(tmp_path), pytest.raises(type(plain.value)) as caught:
        open(path, **arguments)
    assert str(caught.value) == str(plain.value)


def test_exclusive_creation_descriptors_and_openers_work(tmp_path):
    """Modes that create, a descriptor that stays open, an opener of the user's."""
    path = tmp_path / "a"
    with watching(tmp_path) as controller:
        with open(path, "x") as file:
            file.write("1")
        number = os.open(path, os.O_RDWR)
        with open(number, "w", closefd=False) as file:
            file.write("22")
        os.fstat(number)
        os.close(number)
        with open("a", opener=lambda name, flags: os.open(path, flags)) as file:
            assert file.read() == "22"
    assert counts(controller) == {"open": 3, "write": 2, "read": 1}


def test_pipes_and_files_that_are_gone_are_no_storage(tmp_path):
    """A descriptor without a path of the test's own is left alone."""

    def use():
        reading, writing = os.pipe()
        with open(reading, "rb") as source, open(writing, "wb") as target:
            target.write(b"x")
            target.close()
            assert source.read() == b"x"
        with tempfile.TemporaryFile() as file:
            file.write(b"x")

    assert made(tmp_path, use) == {}


def test_threads_share_the_count(tmp_path):
    """Each operation has a number of its own."""
    with watching(tmp_path) as controller:
        threads = [
            threading.Thread(target=write_json, args=(tmp_path / str(number), number))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts(controller) == {"open": 8, "write": 8}


def test_everything_is_as_before_after_a_trial(tmp_path):
    """Names, aliases in modules, switches; a file that is still open goes on without visits."""

    def state():
        names = (
            io.open,
            builtins.open,
            os.open,
            os.rename,
            os.replace,
            os.remove,
            os.unlink,
            gzip.builtins.open,
            tarfile.bltn_open,
        )
        return (
            *names,
            shutil._USE_CP_SENDFILE,
            np.lib.format.isfileobj,
            set(os.supports_dir_fd),
            tempfile._name_sequence,
            list(sys.meta_path),
        )

    before = state()
    with pytest.raises(KeyboardInterrupt), watching(tmp_path) as controller:
        assert all(one is not other for one, other in zip(state()[:9], before[:9], strict=True))
        left_open = open(tmp_path / "a", "w")
        raise KeyboardInterrupt
    assert state() == before
    left_open.write("x")
    left_open.close()
    assert counts(controller) == {"open": 1}
    assert (tmp_path / "a").read_text() == "x"


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "number"),
    [
        ("EIO", OSError, errno.EIO),
        ("ENOSPC", OSError, errno.ENOSPC),
        ("EACCES", PermissionError, errno.EACCES),
        ("ESTALE", OSError, errno.ESTALE),
        ("timeout", TimeoutError, errno.ETIMEDOUT),
        ("throttled", OSError, errno.EBUSY),
    ],
)
def test_an_error_has_its_type_number_and_path(tmp_path, error, kind, number):
    """The system would raise the same error. The path is the one that the call used."""
    (tmp_path / "folder").mkdir()
    with armed(tmp_path, create("flaky_storage", error=error, at=0)), pytest.raises(kind) as caught:
        open(tmp_path / "folder" / "a", "w")
    assert (caught.value.errno, caught.value.filename) == (number, "folder/a")


def test_before_nothing_has_happened(tmp_path):
    """No file is made, renamed or removed."""
    (tmp_path / "a").write_text("old")
    for op, action in {
        "open": lambda: open(tmp_path / "a", "w"),
        "rename": lambda: os.replace(tmp_path / "a", tmp_path / "b"),
        "remove": lambda: os.remove(tmp_path / "a"),
        "write": lambda: (tmp_path / "new").write_bytes(b"1"),
    }.items():
        with armed(tmp_path, create("flaky_storage", op=op, at=0)), pytest.raises(OSError):
            action()
    assert (tmp_path / "a").read_text() == "old"
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "new").read_text() == ""


def test_after_it_has_taken_effect(tmp_path):
    """The file is truncated, written, renamed, removed, and the caller gets an error."""

    def after(op, action):
        with armed(tmp_path, create("flaky_storage", op=op, when="after", at=0)) as controller:
            with pytest.raises(OSError, match="injected"):
                action()
            assert [strike.details["op"] for strike in controller.journal] == [op]

    (tmp_path / "a").write_text("old")
    after("open", lambda: open(tmp_path / "a", "w"))
    assert (tmp_path / "a").read_text() == ""
    after("write", lambda: write_json(tmp_path / "a", "new"))
    assert (tmp_path / "a").read_text() == '"new"'
    after("rename", lambda: os.replace(tmp_path / "a", tmp_path / "b"))
    assert not (tmp_path / "a").exists()
    after("remove", lambda: os.unlink(tmp_path / "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_position_and_a_retry_completes_the_file(tmp_path):
    """The kernel does the same. A buffer that is flushed again is not written twice, also in append
    mode.
    """
    for when in ("before", "after"):
        for mode in ("wb", "ab", "w+b"):
            path = tmp_path / f"{when}-{mode}"
            with armed(tmp_path, create("flaky_storage", op="write", when=when, at=0)):
                file = open(path, mode)
                file.write(b"content")
                with pytest.raises(OSError):
                    file.flush()
                file.write(b", and more")
                file.close()
            assert path.read_bytes() == b"content, and more"


@pytest.mark.parametrize("buffering", [0, 4])
def test_a_caller_that_retries_a_write_that_took_effect_writes_twice(tmp_path, buffering):
    """Without a buffer, or past it, only the caller keeps the bytes."""
    fault = create("flaky_storage", op="write", when="after", at=0)
    with armed(tmp_path, fault), open(tmp_path / "a", "ab", buffering=buffering) as file:
        with pytest.raises(OSError):
            file.write(b"content")
        file.write(b"content")
    assert (tmp_path / "a").read_bytes() == b"content" * 2


def test_a_full_disk_leaves_half_a_file(tmp_path):
    """A write that fails half-way is one of several."""

    def write():
        with open(tmp_path / "a", "wb", buffering=10) as file:
            for _ in range(5):
                file.write(b"0123456789")

    with (
        armed(tmp_path, create("flaky_storage", error="ENOSPC", op="write", at=range(2, 99))),
        pytest.raises(OSError),
    ):
        write()
    assert (tmp_path / "a").stat().st_size == 20


def test_slow_storage_takes_its_time(tmp_path):
    """The delay of each operation, and that of its bytes."""
    slept = []

    class Clock:
        def now(self):
            return 0.0

        peek = now

        def sleep(self, seconds):
            slept.append(seconds)

    def act(**parameters):
        slept.clear()
        with armed(tmp_path, create("slow_storage", at=EVERY, **parameters)) as controller:
            controller.clock = Clock()
            (tmp_path / "a").write_bytes(b"x" * 1000)
            (tmp_path / "a").read_bytes()
        return list(slept)

    assert act() == [1.0] * 4
    assert act(delay="150ms", op="read") == [0.15]
    assert act(bandwidth="10kB/s") == [0.1, 0.1]
    assert act(bandwidth=500, delay=3, op="write") == [3.0, 2.0]


def test_a_truncated_read_ends_early_and_the_file_is_whole(tmp_path):
    """For the reader that was struck; the next one gets everything."""
    path = tmp_path / "a.json"
    write_json(path, list(range(100)))
    with armed(tmp_path, create("truncated_read", path="*.json", at=0)):
        with pytest.raises(json.JSONDecodeError):
            read_json(path)
        assert read_json(path) == list(range(100))


@pytest.mark.parametrize(
    "read",
    [lambda f: f.read(), lambda f: b"".join(f), lambda f: b"".join(iter(lambda: f.read(7), b""))],
)
@pytest.mark.parametrize(("keep", "expected"), [(0.5, 5000), (33, 33), (0, 0), (10**6, 10_000)])
def test_however_it_is_read_the_file_ends_at_the_cut(tmp_path, read, keep, expected):
    """It is read as a whole, by lines, or in pieces. ``keep`` is a share or a number of bytes."""
    content = b"".join(b"%09d\n" % number for number in range(1000))
    (tmp_path / "a").write_bytes(content)
    with (
        armed(tmp_path, create("truncated_read", keep=keep, at=0)),
        open(tmp_path / "a", "rb") as file,
    ):
        assert read(file) == content[:expected]
        assert file.read() == b""


def test_a_truncated_array_is_not_read_around_the_file_object(tmp_path):
    """NumPy reads real files with C's own functions, but not watched ones."""
    np.save(tmp_path / "a.npy", np.arange(100.0))
    with armed(tmp_path, create("truncated_read", at=0)), pytest.raises(ValueError, match="EOF"):
        np.load(tmp_path / "a.npy")


def test_faults_meet_in_one_operation(tmp_path):
    """It passes the counter of each that matches, and a delay comes before an error."""
    declared = [
        create("slow_storage", delay=0.001, at=0),
        create("flaky_storage", op="open", path="a*", at=0),
    ]
    with armed(tmp_path, *declared) as controller, pytest.raises(OSError):
        open(tmp_path / "a", "w")
    assert [strike.site for strike in controller.journal] == ["storage", "storage.open"]


def test_what_a_dead_process_had_in_its_buffers_is_lost(tmp_path):
    """A file that was left open when the process died writes nothing later, when its memory is
    freed.
    """
    with armed(tmp_path, create("crash", site="storage", at=1)) as controller:
        with controller.attempt():
            file = open(tmp_path / "a", "w")
            file.write("never flushed")
            with pytest.raises(SimulatedCrash):
                os.rename(tmp_path / "x", tmp_path / "y")
            with pytest.raises(SimulatedCrash):
                open(tmp_path / "b", "w")
        controller.restart()
        del file
        gc.collect()
        assert (tmp_path / "a").read_text() == ""


@chaos.crash(site="storage.rename", at=0)
def test_a_file_that_the_test_holds_survives_the_subject(mlchaos, tmp_path):
    """It is the subject's process that dies: what the test has opened before, it can go on writing."""

    def subject():
        with contextlib.suppress(FileNotFoundError):
            os.rename(tmp_path / "x", tmp_path / "y")

    with open(tmp_path / "log", "w") as log:
        log.write("before\n")
        assert mlchaos.run(subject).restarts == 1
        log.write("after\n")
    assert (tmp_path / "log").read_text() == "before\nafter\n"


def test_an_operation_that_cannot_begin_ends_what_had_begun_of_it(tmp_path):
    """Its second counter raises: what the first one's fault had entered is left."""
    left = []

    class Entered(contextlib.AbstractContextManager):
        def __exit__(self, *error):
            left.append(error[0])

    with armed(
        tmp_path, create("slow_storage", delay=0, at=0), create("crash", site="storage.open", at=0)
    ) as controller:
        slow, apply = type(controller.scheduled[0].fault), type(controller.scheduled[0].fault).apply
        try:
            slow.apply = lambda fault, visit: visit.keep_open(Entered()) and None
            (storage,) = storages._active
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(controller, "begin", _second_raises(controller.begin))
                with pytest.raises(ZeroDivisionError):
                    storage.begin("open", storage.local(str(tmp_path / "a")))
        finally:
            slow.apply = apply
    assert left == [ZeroDivisionError]


def _second_raises(begin):
    calls = []

    def called(*arguments):
        calls.append(arguments)
        return begin(*arguments) if len(calls) == 1 else 1 / 0

    return called


def test_the_journal_says_what_was_struck(tmp_path):
    """The operation and the path below the own directory; no content."""
    (tmp_path / "folder").mkdir()
    with (
        armed(tmp_path, create("flaky_storage", op="write", at=0)) as controller,
        pytest.raises(OSError),
    ):
        write_json(tmp_path / "folder" / "a.json", "secret")
    assert [strike.as_dict() for strike in controller.journal] == [
        {
            "fault": "flaky_storage(at=0, op='write')",
            "site": "storage.write",
            "visit": 0,
            "details": {"op": "write", "path": "folder/a.json"},
        }
    ]


def test_temporary_files_have_the_same_names_in_each_trial(tmp_path):
    """They are in the journal."""
    names = []
    for _ in range(2):
        with watching(tmp_path) as controller, tempfile.NamedTemporaryFile(dir=tmp_path):
            pass
        names.append(list(controller.names["storage"]))
    assert names[0] == names[1] != []


def test_temporary_files_meet_no_leftovers(tmp_path):
    """The directory of temporary files is the trial's own: what an earlier one, or another process,
    has left changes nothing.
    """
    before, passed, names = tempfile.gettempdir(), [], []
    for _ in range(2):
        with watching(tmp_path) as controller:
            number, left = tempfile.mkstemp()
            os.close(number)
            folder = tempfile.gettempdir()
            assert os.path.dirname(folder) == str(tmp_path.parent) != before
        assert os.path.exists(left)
        open(os.path.join(before, os.path.basename(left)), "w").close()
        passed.append(counts(controller))
        names.append(list(controller.names["storage"]))
        os.remove(os.path.join(before, os.path.basename(left)))
    assert names[0] == names[1] == [os.path.basename(left)]
    assert passed == [{"open": 1}] * 2
    assert tempfile.gettempdir() == before


@pytest.mark.parametrize(
    ("name", "keywords", "text"),
    [
        (
            "flaky_storage",
            {"error": "ENOSPACE"},
            "'timeout', 'throttled', an errno's name .EIO, .* got 'ENOSPACE' .* mean 'ENOSPC'",
        ),
        ("flaky_storage", {"when": "later"}, "when must be 'before' or 'after'"),
        ("flaky_storage", {"op": "append"}, "op must be 'open' or"),
        ("flaky_storage", {"path": " "}, "path must be a pattern"),
        ("flaky_storage", {"path": "nosuch://x"}, "fsspec does not know the protocol 'nosuch'"),
        ("slow_storage", {"bandwidth": "fast"}, "bandwidth must be bytes per second"),
        ("slow_storage", {"bandwidth": 0}, "bandwidth must be bytes per second"),
        ("slow_storage", {"delay": "soon"}, "slow_storage: delay must be in seconds"),
        ("truncated_read", {"keep": 1.5}, "keep must be a share below 1"),
        ("truncated_read", {"keep": -1}, "keep must be a share below 1"),
    ],
)
def test_wrong_parameters_are_refused(name, keywords, text):
    """The message shows the argument, the value, and what it may be."""
    if "nosuch" in str(keywords):
        pytest.importorskip("fsspec")
    with pytest.raises(BadArgument, match=text):
        create(name, **keywords)


def test_a_protocol_whose_package_is_missing_is_said_so(monkeypatch):
    """One line, with what to install; ours where it is fsspec itself."""
    import importlib.util

    find, missing = importlib.util.find_spec, set()
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in missing else find(name, *rest),
    )
    if find("fsspec") is not None:
        used = importlib.import_module("fsspec.registry")._registry
        monkeypatch.delitem(used, "s3", raising=False)  # another test may have used it
        missing.add("s3fs")
        with pytest.raises(
            MissingExtra,
            match=r"flaky_storage\(path='s3://b/\*'\) needs s3fs, .*: python -m pip install s3fs$",
        ):
            create("flaky_storage", path="s3://b/*")
    missing.add("fsspec")
    with pytest.raises(MissingExtra, match=r"needs fsspec, .*'pytest-mlchaos\[storage\]'"):
        create("flaky_storage", path="s3://b/*")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10MB/s", 1e7),
        ("64KiB/s", 65536.0),
        ("1.5kB/s", 1500.0),
        ("7B/s", 7.0),
        (1000, 1000.0),
        ("1GB", 1e9),
    ],
)
def test_bandwidths_are_numbers_or_texts(given, expected):
    """Decimal and binary units."""
    assert create("slow_storage", bandwidth=given).bandwidth == expected


def test_decorators_take_them():
    """They are ordinary faults."""
    assert chaos.flaky_storage(error="ENOSPC", when="after", path="*.pt", op="rename", at=3)


def test_what_a_full_disk_refused_is_not_written_by_closing(tmp_path):
    """A buffer tries once more when it is closed; the disk is still full then. The next file is
    written.
    """
    with armed(tmp_path, create("flaky_storage", op="write", error="ENOSPC", at=0)) as controller:
        with (
            pytest.raises(OSError, match="No space left"),
            (tmp_path / "a.json").open("w") as file,
        ):
            # Closing raises.
            json.dump({"step": 1}, file)
        assert (tmp_path / "a.json").read_bytes() == b""
        (tmp_path / "a.json").write_text("whole")
        assert (tmp_path / "a.json").read_text() == "whole"
    assert len(controller.journal) == 1


def test_a_truncated_read_without_keep_ends_between_two_lines(tmp_path):
    """The place is in the journal, and a pinned visit without a spot ends in the middle."""
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\nthree\n")
    with armed(tmp_path, create("truncated_read", spot=0, at=0)) as controller:
        assert file.read_text() == "one\ntwo\n"
    assert controller.journal[0].details["place"] == "at the end of line 2 of 3"
    with armed(tmp_path, create("truncated_read", at=0)):
        assert file.read_text() == "one\ntwo"
    assert create("truncated_read", at=0).is_pinned
    assert not create("truncated_read").is_pinned

"""Note what a run can have learned about the directory that it started from, and use that."""

import concurrent.futures
import contextlib
import ctypes
import glob
import mmap
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from os import stat as bound_early

import pytest

from pytest_mlchaos.crashes.model import Content, File, Folder, Link, Observed
from pytest_mlchaos.crashes.observations import Observations, looks_the_same
from pytest_mlchaos.crashes.recording.observer import reserve_far_block
from pytest_mlchaos.crashes.recording.read_log import InotifyReadLog
from pytest_mlchaos.engine import inotify

needs_events = pytest.mark.skipif(
    not inotify.available(), reason="a run's opens are seen by Linux' inotify"
)
TEXT = b"text " * 50
NOTHING = frozenset()


@pytest.fixture
def folder(tmp_path):
    """A directory as an exploration restores it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for name in ("a", "b", "empty", "sub/c"):
        fd = os.open(root / name, os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"" if name == "empty" else TEXT)
        reserve_far_block(fd)
        os.close(fd)
    return root


def observed(folder, actions):
    """Return what a run that does this can have learned."""
    before = os.getcwd()
    try:
        with InotifyReadLog.of(folder) as reads:
            actions(folder)
    finally:
        os.chdir(before)
    return reads.observed


def forked(actions):
    """Return the same actions, in a process that is forked."""

    def act(folder):
        pid = os.fork()
        if not pid:
            actions(folder)
            os._exit(0)
        os.waitpid(pid, 0)

    return act


def shell(command):
    """Return actions that run this command in the directory."""
    return lambda folder: subprocess.run(command, shell=True, cwd=folder, check=True)


LIBC = ctypes.CDLL(None)


def by_c(folder, name, flags, text=b""):
    """Open a file as C++ code does, which no audit event tells."""
    fd = LIBC.open(os.fsencode(folder / name), flags, 0o644)
    assert fd >= 0
    if text:
        LIBC.write(fd, text, len(text))
    return fd


def writes_by_c(name, flags, text=b"new"):
    """Return actions that open and write a file as C++ code does."""
    return lambda folder: os.close(by_c(folder, name, flags, text))


def maps_by_c(folder):
    """Map a file and read from the mapping."""
    fd = by_c(folder, "a", os.O_RDONLY)
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as memory:
        assert memory[:4] == b"text"
    os.close(fd)


def maps(folder):
    """Map a file that is open for writing."""
    with open(folder / "a", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        assert memory[:4] == b"text"


def appends_and_reads_by_c(folder):
    """Append to a file, read it, and write it anew."""
    writes_by_c("a", os.O_WRONLY | os.O_APPEND)(folder)
    fd = by_c(folder, "a", os.O_RDONLY)
    os.read(fd, 10)
    os.close(fd)
    writes_by_c("a", os.O_WRONLY | os.O_TRUNC)(folder)


def appends_and_reads_at_once_by_c(folder):
    """Append to a file and read it by one descriptor, and write it anew later."""
    fd = by_c(folder, "a", os.O_RDWR | os.O_APPEND, b"more")
    os.pread(fd, 10, 0)
    os.close(fd)
    writes_by_c("a", os.O_WRONLY | os.O_TRUNC)(folder)


def opens_twice_by_c(folder, closes=True):
    """Keep a file open, which may be mapped, while it is written anew."""
    first = by_c(folder, "a", os.O_RDONLY)
    writes_by_c("b", os.O_WRONLY | os.O_TRUNC)(folder)
    writes_by_c("a", os.O_WRONLY | os.O_TRUNC)(folder)
    if closes:
        os.close(first)


def maps_and_writes(folder):
    """Write a file anew while a mapping of it is open."""
    with open(folder / "a", "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with memory:
        assert memory[:4] == b"text"
        (folder / "a").write_bytes(TEXT)


def renames_by_c(source, target):
    """Return actions that append to a file, and rename something, as C++ code does."""

    def act(folder):
        writes_by_c("sub/c", os.O_WRONLY | os.O_APPEND)(folder)
        assert LIBC.rename(os.fsencode(folder / source), os.fsencode(folder / target)) == 0

    return act


def fails_to_truncate(folder):
    """Open a file for writing when no descriptor is left, and read it later."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(folder / "a", os.O_WRONLY | os.O_TRUNC)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    (folder / "a").read_text()


def writes_below_a_descriptor(folder):
    """Write sub/a, by its name and the descriptor of its directory, and append to a by C."""
    (folder / "sub" / "a").write_text("text")
    below = os.open(folder / "sub", os.O_RDONLY)
    before = os.getcwd()
    os.chdir(folder)
    try:
        os.close(os.open("a", os.O_WRONLY | os.O_TRUNC, dir_fd=below))
        writes_by_c("a", os.O_WRONLY | os.O_APPEND)(folder)
    finally:
        os.chdir(before)
        os.close(below)


def saves_and_replaces(folder):
    """Write a temporary file and rename it over another one."""
    writes_by_c("a", os.O_WRONLY | os.O_TRUNC)(folder)
    os.replace(folder / "a", folder / "b")


def saves_and_loads(folder):
    """Write a file anew and read it."""
    writes_by_c("a", os.O_WRONLY | os.O_TRUNC)(folder)
    (folder / "a").read_bytes()


def moves_away(folder):
    """Move a file into a new directory, and read it there."""
    (folder / "new").mkdir()
    (folder / "a").rename(folder / "new" / "a")
    (folder / "new" / "a").read_text()


def reads_a_link(folder):
    """Read a file by a second name that it has just been given."""
    os.link(folder / "a", folder / "z")
    (folder / "z").read_text()


def creates(folder):
    """Try to make a file that is there."""
    with contextlib.suppress(FileExistsError):
        open(folder / "a", "x")


def lists_by_c(folder):
    """List a directory as C++ code does."""
    LIBC.opendir.restype = ctypes.c_void_p
    directory = LIBC.opendir(os.fsencode(folder / "sub"))
    LIBC.closedir(ctypes.c_void_p(directory))


def opens_database(folder):
    """Open a file as a database."""
    with contextlib.suppress(sqlite3.DatabaseError):
        sqlite3.connect(folder / "a").execute("create table t(x)")


READS = {
    "nothing": (lambda folder: None, ""),
    "read": (lambda folder: (folder / "a").read_text(), "a"),
    "read an empty file": (lambda folder: (folder / "empty").read_text(), "empty"),
    "read below": (lambda folder: (folder / "sub" / "c").read_text(), "sub/c"),
    "only opened": (lambda folder: open(folder / "a").close(), "a"),
    "only opened by C": (lambda folder: os.close(by_c(folder, "a", os.O_RDONLY)), "a"),
    "left open by C": (lambda folder: by_c(folder, "a", os.O_RDONLY), "a"),
    "mapped": (maps, "a"),
    "mapped by C": (maps_by_c, "a"),
    "written anew": (lambda folder: (folder / "a").write_text("new"), ""),
    "written anew by C": (writes_by_c("a", os.O_WRONLY | os.O_TRUNC), ""),
    "written anew by C, longer": (writes_by_c("a", os.O_WRONLY | os.O_TRUNC, TEXT * 99), ""),
    "an empty file written by C": (writes_by_c("empty", os.O_WRONLY | os.O_TRUNC), ""),
    "appended": (lambda folder: open(folder / "a", "a").write("more"), "a"),
    "appended by C": (writes_by_c("a", os.O_WRONLY | os.O_APPEND), "a"),
    "appended to an empty file by C": (writes_by_c("empty", os.O_WRONLY | os.O_APPEND), "empty"),
    "written in part": (lambda folder: open(folder / "a", "r+").write("more"), "a"),
    "written in part by C": (writes_by_c("a", os.O_WRONLY), "a"),
    "appended and read, then written anew by C": (appends_and_reads_by_c, "a"),
    "written anew, then read": (saves_and_loads, ""),
    "written anew, then renamed": (saves_and_replaces, ""),
    "removed": (lambda folder: (folder / "a").unlink(), ""),
    "read, then removed": (lambda f: ((f / "a").read_text(), (f / "a").unlink()), "a"),
    "renamed, then read": (lambda f: (f / "a").rename(f / "z").read_text(), "a"),
    "renamed over another, then read": (lambda f: (f / "a").rename(f / "b").read_text(), "a"),
    "moved into a new directory": (moves_away, "a"),
    "its directory renamed, then read": (
        lambda f: ((f / "sub").rename(f / "old") / "c").read_text(),
        "sub/c",
    ),
    "linked, then read": (reads_a_link, "a"),
    "cut by its path": (lambda folder: os.truncate(folder / "a", 3), "a"),
    "cut by a descriptor": (lambda folder: open(folder / "a", "r+b").truncate(3), "a"),
    "not created, because it is there": (creates, ""),
    "cut by its path by C": (
        lambda folder: LIBC.truncate(os.fsencode(folder / "a"), ctypes.c_long(3)),
        "a",
    ),
    "appended and read at once, then written anew by C": (appends_and_reads_at_once_by_c, "a"),
    "open while it is written anew by C": (opens_twice_by_c, "a"),
    "left open while it is written anew by C": (
        lambda folder: opens_twice_by_c(folder, closes=False),
        "a",
    ),
    "mapped while it is written anew": (maps_and_writes, "a"),
    "mapped while it is written anew in a fork": (forked(maps_and_writes), "a"),
    "open while a program writes it anew": (shell("exec 3< a; echo new > a"), "a"),
    "written anew by a program, then read by it": (shell("echo new > a; cat a > /dev/null"), ""),
    "appended, then replaced by C": (renames_by_c("b", "sub/c"), "sub/c"),
    "appended, and its directory renamed by C": (renames_by_c("sub", "old"), "sub/c"),
    "written anew by a relative path": (
        lambda folder: contextlib.chdir(folder / "sub").__enter__() or open("c", "w").write("new"),
        "",
    ),
    "an open that would truncate fails, then read": (fails_to_truncate, "a"),
    "written anew below a descriptor, another one appended by C": (writes_below_a_descriptor, "a"),
    "copied": (lambda folder: shutil.copyfile(folder / "a", folder / "z"), "a"),
    "opened as a database": (opens_database, "a"),
    "read in a fork": (forked(lambda folder: (folder / "a").read_text()), "a"),
    "appended in a fork": (forked(lambda folder: open(folder / "a", "a").write("more")), "a"),
    "written anew in a fork": (forked(lambda folder: (folder / "a").write_text("new")), ""),
    "read by a program": (shell("cat a > /dev/null"), "a"),
    "appended by a program": (shell("echo more >> a"), "a"),
    "written anew by a program": (shell("echo new > a"), ""),
}


@needs_events
@pytest.mark.parametrize("case", READS)
def test_a_file_that_is_opened_counts_as_read_unless_that_truncates_it(folder, case):
    """By Python, by C++, by a forked process and by a program. A later read of one's own data does
    not count.
    """
    actions, found = READS[case]
    assert observed(folder, actions).read == frozenset(found.split())


def in_a_spawned_process(folder):
    """Start a process that is not forked."""
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()


def asks_in_a_removed_directory(folder):
    """Ask for a current directory that was removed, which the kernel still answers."""
    gone = folder.parent / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert os.stat(".").st_nlink == 0
    assert os.listdir(".") == os.listdir() == list(os.scandir()) == []


ASKS = {
    "nothing": (lambda folder: None, ""),
    "os.stat": (lambda folder: os.stat(folder / "a"), "a"),
    "a name of os.stat in a module": (lambda folder: bound_early(folder / "a"), "a"),
    "os.lstat": (lambda folder: os.lstat(folder / "a"), "a"),
    "bytes": (lambda folder: os.stat(os.fsencode(folder / "a")), "a"),
    "a descriptor and a name": (
        lambda folder: os.stat("c", dir_fd=os.open(folder / "sub", os.O_RDONLY)),
        "sub/c",
    ),
    "a relative path": (
        lambda folder: contextlib.chdir(folder).__enter__() or os.stat("a"),
        "a",
    ),
    "in a removed directory": (asks_in_a_removed_directory, None),
    "getsize": (lambda folder: os.path.getsize(folder / "a"), "a"),
    "getmtime": (lambda folder: os.path.getmtime(folder / "a"), "a"),
    "Path.stat": (lambda folder: (folder / "a").stat(), "a"),
    "DirEntry.stat": (lambda folder: [one.stat() for one in os.scandir(folder / "sub")], "sub/c"),
    "the size by pathlib's glob": (
        lambda folder: max(folder.glob("a*"), key=lambda path: path.stat().st_mtime),
        "a",
    ),
    "exists": (lambda f: (os.path.exists(f / "a"), (f / "a").exists(), os.path.lexists(f)), ""),
    "the kind": (
        lambda f: (os.path.isfile(f / "a"), (f / "a").is_file(), (f / "sub").is_dir()),
        "",
    ),
    "real path": (lambda folder: (os.path.realpath(folder / "a"), (folder / "a").resolve()), ""),
    "listings": (
        lambda f: (os.listdir(f), list(os.walk(f)), list(f.rglob("*")), glob.glob(f"{f}/*")),
        "",
    ),
    "make a directory that is there": (lambda f: os.makedirs(f / "sub", exist_ok=True), ""),
    "in a fork": (forked(lambda folder: os.path.getsize(folder / "a")), "a"),
    "a listing in a fork": (forked(lambda folder: os.listdir(folder)), ""),
    "by a program": (shell("ls -l > /dev/null"), None),
    "a program that stats a path": (shell("test -s a"), None),
    "a listing by C": (lists_by_c, None),
    "a listing by Python and one by C": (
        lambda folder: (os.listdir(folder / "sub"), lists_by_c(folder)),
        None,
    ),
    "a program that C starts": (lambda folder: LIBC.system(b"true"), None),
    "in a spawned process": (in_a_spawned_process, None),
    "a program that a fork starts": (forked(shell("test -s a")), None),
}


@needs_events
@pytest.mark.parametrize("case", ASKS)
def test_sizes_and_times_are_noted_where_python_asks_for_them(folder, case, monkeypatch):
    """To ask if a path exists, or for its kind, shows no size. A program may ask for everything."""
    actions, found = ASKS[case]
    asked = observed(folder, actions).asked
    assert asked == (None if found is None else frozenset(found.split()))


@needs_events
def test_a_process_may_be_forked_while_a_thread_looks_at_events(folder):
    """It opens files, although no thread of it releases the lock."""

    def fork():
        pid = os.fork()
        if not pid:
            signal.alarm(5)
            (folder / "z").write_text("new")
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    pool = concurrent.futures.ThreadPoolExecutor(1)
    with pool, InotifyReadLog.of(folder) as reads, reads._lock:
        assert pool.submit(fork).result() == 0


@needs_events
def test_files_that_a_run_leaves_alone_are_known(folder):
    """A removed, replaced or rewritten one is the run's own."""

    def acts(root):
        (root / "a").unlink()
        (root / "b").write_text("new")
        (root / "empty").read_text()

    assert observed(folder, acts).kept == {"empty", "sub/c"}


@needs_events
def test_a_file_without_reserved_blocks_counts_as_read_when_it_is_written(folder):
    """Nothing shows if it was truncated: the filesystem reserves no blocks, or a copy lost them."""
    (folder / "a").write_bytes(TEXT)
    assert observed(folder, writes_by_c("a", os.O_WRONLY | os.O_TRUNC)).read == {"a"}


@needs_events
def test_a_directory_that_cannot_be_watched_leaves_nothing_known(folder, monkeypatch):
    """A limit of the system is reached below the directory, so its reads would not be seen."""
    add = inotify.Inotify.add

    def refused(self, path, **keywords):
        if path.endswith("sub"):
            raise inotify.NoInotify(28, "refused")
        return add(self, path, **keywords)

    monkeypatch.setattr(inotify.Inotify, "add", refused)
    with InotifyReadLog.of(folder) as reads:
        (folder / "sub" / "c").read_text()
    assert reads.observed is None
    assert reads.files is None


@needs_events
def test_lost_events_leave_nothing_known(folder, monkeypatch):
    """If the queue of the kernel overflows, no state follows from the run."""
    lost = inotify.Event(-1, inotify.OVERFLOW, 0, "")
    monkeypatch.setattr(inotify.Inotify, "read", lambda self: iter([lost]))
    assert observed(folder, lambda folder: None) is None


@needs_events
def test_the_recorders_own_reads_hide_those_of_a_process(folder):
    """If both read at the same time, nothing is known."""
    with InotifyReadLog.of(folder) as reads:
        subprocess.run(["true"], check=True)
        with reads.unseen():
            (folder / "a").read_text()
    assert reads.observed is None
    with InotifyReadLog.of(folder) as reads, reads.unseen():
        (folder / "a").read_text()
    assert reads.observed.read == NOTHING


@needs_events
def test_nothing_stays_patched(folder):
    """The functions of ``os`` are the same after a run as before it."""
    before = os.stat, os.lstat, os.scandir, set(os.supports_follow_symlinks)

    def acts(root):
        assert os.stat in os.supports_follow_symlinks
        assert os.stat is not before[0]

    observed(folder, acts)
    assert before == (os.stat, os.lstat, os.scandir, set(os.supports_follow_symlinks))
    assert bound_early is os.stat


@needs_events
def test_entries_of_a_listing_are_as_pythons_own(folder):
    """They have the same attributes, and are of the same class for ``isinstance``."""
    (real,) = os.scandir(folder / "sub")

    def acts(root):
        with os.scandir(root / "sub") as entries:
            (entry,) = entries
        assert isinstance(entry, os.DirEntry)
        for name in (name for name in dir(real) if not name.startswith("_")):
            mine, theirs = getattr(entry, name), getattr(real, name)
            assert (mine() if callable(mine) else mine) == (
                theirs() if callable(theirs) else theirs
            )
        assert os.fspath(entry) == os.fspath(real)
        assert repr(entry) == repr(real)
        assert pathlib.Path(entry) == root / "sub" / "c"

    observed(folder, acts)


@needs_events
@pytest.mark.skipif(sys.platform != "linux", reason="blocks are reserved on Linux")
def test_reserved_blocks_do_not_change_a_file(folder):
    """Its size and its content are as written."""
    assert (folder / "a").stat().st_size == len(TEXT)
    assert (folder / "a").read_bytes() == TEXT


# -- the rule --------------------------------------------------------------------------------------


def file(text, mtime=0, mode=0o644):
    """Return a file with that content."""
    return File(Content(len(text), text.encode()), mode, mtime)


BASE = {
    "": Folder(),
    "last": file("last", 5),
    "tmp": file("tmp", 7),
    "link": Link("last"),
    "sub": Folder(mtime=6),
}
SAW = Observed(frozenset({"last"}), NOTHING, frozenset({"last", "tmp"}))


@pytest.mark.parametrize(
    ("changes", "saw", "compared", "same"),
    [
        ({}, {}, (), True),
        ({"tmp": file("t")}, {}, (), True),
        ({"tmp": file("tmx")}, {}, (), True),
        ({"tmp": file("tmp", 1)}, {}, (), True),
        ({"last": file("lost", 5)}, {}, (), False),
        ({"last": file("las", 5)}, {}, (), False),
        ({"tmp": None}, {}, (), False),
        ({"new": file("")}, {}, (), False),
        ({"tmp": Folder(mode=0o644)}, {}, (), False),
        ({"tmp": Link("last")}, {}, (), False),
        ({"link": Link("tmp")}, {}, (), False),
        ({"tmp": file("tmp", 7, 0o600)}, {}, (), False),
        ({"sub": Folder(mode=0o500, mtime=6)}, {}, (), False),
        ({"tmp": file("t", 7)}, {"asked": {"tmp"}}, (), False),
        ({"tmp": file("tmx", 7)}, {"asked": {"tmp"}}, (), True),
        ({"tmp": file("tmp", 1)}, {"asked": {"tmp"}}, (), False),
        ({"tmp": file("tmp", 9)}, {"asked": {"tmp"}}, (), False),
        ({"last": file("last", 4)}, {}, (), False),
        ({"sub": Folder(mtime=1)}, {"asked": {"sub"}}, (), False),
        ({"sub": Folder(mtime=1)}, {}, (), True),
        ({"tmp": file("t", 7)}, {"asked": None}, (), False),
        ({"tmp": file("tmp", 1)}, {"asked": None}, (), False),
        ({"tmp": file("tmx", 7)}, {"asked": None}, (), True),
        ({"tmp": file("t")}, {}, ("tmp",), False),
        ({"tmp": file("t")}, {"kept": {"last"}}, ("tmp",), True),
        ({"tmp": file("t")}, {"read": {"last", "tmp"}}, (), False),
        ({"last": file("lost", 5)}, {"read": {"tmp"}}, (), True),
    ],
)
def test_a_run_goes_the_same_way_if_all_that_it_saw_is_the_same(changes, saw, compared, same):
    """Names, kinds, links and permissions always count; contents if the file was opened or is
    compared; sizes if they were asked for; times if the file was opened or they were asked for.
    """
    other = {path: node for path, node in {**BASE, **changes}.items() if node is not None}
    told = {
        name: None if paths is None else frozenset(paths)
        for name, paths in {
            "read": SAW.read,
            "asked": SAW.asked,
            "kept": SAW.kept,
            **saw,
        }.items()
    }
    seen = Observed(**told)
    assert looks_the_same(BASE, other, seen, compared) is same
    known = Observations(compared)
    known.add(BASE, seen, 3)
    assert known.find(other) == (3 if same else None)

"""Test that a recorder sees every content of a directory in order, and none that it never had."""

import collections
import ctypes
import errno
import importlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import operator
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

import numpy as np
import pytest

from pytest_mlchaos.crashes.recording import content_store as contents_module
from pytest_mlchaos.crashes.recording import hooks
from pytest_mlchaos.engine import inotify
from tests.crashes import Recorded, really, walked

by_events = pytest.mark.parametrize("by", ["events"], indirect=True)
"""What only a system sees that tells of each change."""


@pytest.fixture(params=["events", "comparing"])
def by(request):
    """Return the recorder."""
    if request.param == "events" and not inotify.available():
        pytest.skip("needs inotify")
    return request.param


@pytest.fixture
def record(tmp_path, by):
    """Records a program."""
    recorded = []

    def record(program, prepare=None):
        place = tmp_path / f"work{len(recorded)}", tmp_path / f"store{len(recorded)}"
        recorded.append(Recorded(program, *place, prepare=prepare, by=by).checked())
        return recorded[-1]

    yield record
    for one in recorded:
        one.contents.close()


@pytest.fixture
def exactly(record, tmp_path):
    """A program of which every content is seen, in order."""

    def exactly(program, prepare=None):
        expected = really(program, tmp_path / "real", prepare=prepare)
        # On a machine that has more to do, the watcher thread may lose its turn in the middle of a
        # look, and a state is passed over.
        for _ in range(3):
            one = record(program, prepare)
            if one.trees() == expected:
                break
        assert one.trees() == expected
        return one

    return exactly


# -- imports ---------------------------------------------------------------------------------------

WRITES_AT_IMPORT = """
import os, sys
hooked = sys.monitoring.get_events(4) != 0 if hasattr(sys, "monitoring") else sys.getprofile() is not None
with open(os.environ["WRITTEN"], "wb") as file:
    for part in (b"one", b"two", b"three"):
        file.write(part)
        file.flush()
"""


def importing(folder, monkeypatch):
    """Return a program that imports a module which writes, and what it has seen."""
    seen = []
    # Which files are the user's depends on the session's folders, and a test that ran before has
    # set these.
    monkeypatch.setattr(
        hooks, "is_users", lambda file: file.startswith(str(folder)) and "site-packages" not in file
    )
    folder.mkdir(parents=True)
    (folder / "writes_at_import.py").write_text(WRITES_AT_IMPORT)
    monkeypatch.syspath_prepend(folder)

    def program(root):
        monkeypatch.setenv("WRITTEN", str(root / "a"))
        sys.modules.pop("writes_at_import", None)
        seen.append(importlib.import_module("writes_at_import").hooked)
        (root / "b").write_bytes(b"after")

    return program, seen


def test_a_module_of_the_users_is_followed_while_it_is_imported(exactly, tmp_path, monkeypatch):
    """It may be the training script."""
    program, seen = importing(tmp_path / "project", monkeypatch)
    exactly(program)
    assert seen[-1]


def test_a_librarys_import_is_seen_when_it_is_over(record, tmp_path, monkeypatch):
    """A million calls of an import are not looked at one by one."""
    program, seen = importing(tmp_path / "venv" / "lib" / "python3" / "site-packages", monkeypatch)
    one = record(program)
    # From Python 3.12 on the hooks are those of all threads, and stay if there are others.
    others = hasattr(sys, "monitoring") and len(sys._current_frames()) > 1
    assert seen[-1] == others
    assert [tree.get("a") for tree in one.trees() if "b" not in tree][-1] == b"onetwothree"


# -- plain Python ----------------------------------------------------------------------------------


def test_open_and_write(exactly):
    """A file that is created, flushed twice and closed has four lengths."""

    def program(root):
        with open(root / "a", "wb") as file:
            file.write(b"one")
            file.flush()
            file.write(b"two")
            file.flush()
            file.write(b"three")

    one = exactly(program)
    assert [tree.get("a") for tree in one.trees()] == [None, b"", b"one", b"onetwo", b"onetwothree"]


def test_a_large_write_through_a_buffer(exactly):
    """A write that is larger than the buffer goes through it in its own way."""

    def program(root):
        with open(root / "a", "wb") as file:
            for size in (10, 300_000, 10, 9000, 2_500_000, 7):
                file.write(os.urandom(1)[:0] + bytes([size % 251]) * size)

    exactly(program)


def test_append_and_overwrite(exactly):
    """Appending, writing in place and truncating are seen as they happen."""

    def program(root):
        with open(root / "log", "a") as file:
            file.write("more\n")
        with open(root / "log", "r+b") as file:
            file.write(b"XY")
            file.flush()
            file.seek(0, 2)
            file.write(b"end")
            file.flush()
            file.truncate(4)
            file.flush()
        os.truncate(root / "log", 2)
        os.truncate(root / "log", 10)
        with open(root / "log", "w") as file:
            file.write("anew")

    one = exactly(program, prepare=lambda root: (root / "log").write_text("first\n"))
    assert [change.kind for change in one.changes if change.kind not in ("closed",)][:2] == [
        "grew",
        "rewritten",
    ]


def test_descriptors(exactly):
    """Writes on descriptors, at positions, by vectors, in the kernel, and a length that is set
    first.
    """

    def program(root):
        fd = os.open(root / "a", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"abc")
        os.pwrite(fd, b"ZZ", 1)
        os.writev(fd, [b"d", b"e"])
        other = os.open(root / "b", os.O_RDWR | os.O_CREAT)
        os.ftruncate(other, 100)
        os.pwrite(other, b"tail", 96)
        os.posix_fallocate(other, 0, 5000)
        os.lseek(fd, 0, 0)
        os.sendfile(other, fd, 0, 5)
        os.copy_file_range(fd, other, 3, 0, 50)
        os.close(fd)
        os.close(other)

    exactly(program)


def test_renames_links_and_removals(exactly):
    """Renames over files and directories, hard links and symbolic ones: each is one step."""

    def program(root):
        (root / "a.tmp").write_bytes(b"new")
        os.replace(root / "a.tmp", root / "a")
        os.makedirs(root / "d/e/f")
        (root / "d/e/f/x").write_text("x")
        os.rename(root / "d/e", root / "g")
        (root / "g/f/x").write_text("y")
        os.mkdir(root / "empty")
        os.rename(root / "g", root / "empty")
        (root / "empty/f/z").write_text("z")
        os.link(root / "a", root / "b")
        os.symlink("a", root / "latest")
        os.unlink(root / "latest")
        os.symlink("b", root / "latest")
        os.symlink("d", root / "latest.new")
        os.replace(root / "latest.new", root / "latest")
        shutil.rmtree(root / "empty")
        os.unlink(root / "a")

    exactly(program, prepare=lambda root: (root / "a").write_bytes(b"old"))


def test_a_file_of_two_names(exactly):
    """A write under one name of a file is seen under the other."""

    def program(root):
        os.link(root / "a", root / "sub/b")
        with open(root / "sub/b", "ab") as file:
            file.write(b"more")
        os.rename(root / "sub", root / "below")
        with open(root / "a", "ab") as file:
            file.write(b"yet")
        os.unlink(root / "a")
        with open(root / "below/b", "ab") as file:
            file.write(b"again")
        (root / "a").write_bytes(b"another")

    def prepare(root):
        (root / "sub").mkdir()
        (root / "a").write_bytes(b"one")

    exactly(program, prepare)


def test_moves_over_the_border(exactly, tmp_path):
    """A file, and a directory with all that is in it, comes from outside in one piece, and leaves
    in one.
    """
    outside = tmp_path / "outside"

    def program(root):
        shutil.rmtree(outside, ignore_errors=True)
        (outside / "d/e").mkdir(parents=True)
        for name in ("d/x", "d/e/y", "f"):
            (outside / name).write_text(name)
        os.replace(outside / "f", root / "f")
        os.rename(outside / "d", root / "d")
        (root / "d/e/y").write_text("changed")
        (root / "d/e/new").write_text("new")
        os.rename(root / "f", outside / "f")
        os.rename(root / "d", outside / "d")
        (outside / "d/x").write_text("outside again")
        os.rename(outside / "d/e", root / "e")
        os.rename(outside / "f", root.parent / f"{root.name}-beside")
        os.rename(root.parent / f"{root.name}-beside", root / "f")
        os.rename(root / "f", root.parent / f"{root.name}-beside")

    one = exactly(program)
    arrivals = [change for change in one.changes if change.kind == "arrived"]
    assert [change.path for change in arrivals] == ["f", "d", "e", "f"]
    assert not any(state.torn and state.path == "f" for state, _ in one.states())


def test_the_directory_itself(exactly):
    """It is removed and made again, renamed away and back."""

    def program(root):
        (root / "a").write_text("a")
        shutil.rmtree(root)
        os.mkdir(root)
        (root / "b").write_text("b")
        os.rename(root, root.parent / "other")
        (root.parent / "other/unseen").write_text("?")
        os.mkdir(root)
        (root / "c").write_text("c")
        os.rmdir(root) if not os.listdir(root) else shutil.rmtree(root)
        os.rename(root.parent / "other", root)
        (root / "d").write_text("d")

    exactly(program)


def test_copies(exactly):
    """Copies and trees of them, made by ``shutil``."""

    def program(root):
        shutil.copy(root / "src/a", root / "b")
        shutil.copy2(root / "src/a", root / "c")
        shutil.copytree(root / "src", root / "dst")
        shutil.move(root / "dst", root / "moved")
        shutil.copytree(root / "src", root / "moved", dirs_exist_ok=True)
        shutil.rmtree(root / "src")

    def prepare(root):
        (root / "src/in").mkdir(parents=True)
        (root / "src/a").write_bytes(b"a" * 200_000)
        (root / "src/in/b").write_bytes(b"b")
        os.symlink("a", root / "src/l")

    exactly(program, prepare)


def test_odd_names(exactly):
    """Names may contain any characters, also bytes that are not text."""

    def program(root):
        for name in (
            "ünïcödé 模型",
            "a\nb",
            " ",
            "a@5#1",
            "~",
            "*",
            "x" * 255,
            os.fsdecode(b"\xff\xfe"),
        ):
            os.mkdir(root / f"{name[:200]}-d")
            (root / f"{name[:200]}-d" / name).write_text("x")

    exactly(program)


def test_archives(exactly):
    """A zip file's headers are mended after its members were written."""

    def program(root):
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for number in range(3):
                with archive.open(
                    zipfile.ZipInfo(f"{number}", (2020, 1, 1, 0, 0, 0)), "w"
                ) as member:
                    for _ in range(4):
                        member.write(bytes([number]) * 70_000)
        with zipfile.ZipFile(root / "a.zip", "a") as archive:
            archive.writestr(zipfile.ZipInfo("more", (2020, 1, 1, 0, 0, 0)), "more")

    exactly(program)


def test_arrays(exactly):
    """Arrays by ``np.save``, to a path and to a file, and several in one archive, larger than what
    is read at once.
    """

    def program(root):
        np.save(root / "a.npy", np.arange(100_000))
        with open(root / "b.npy", "wb") as file:
            np.save(file, np.arange(1000))
        archive = zipfile.ZipFile(root / "c.npz", "w")
        for name in ("x", "y"):
            with archive.open(
                zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), "w", force_zip64=True
            ) as member:
                np.lib.format.write_array(member, np.arange(400_000))
        archive.close()

    exactly(program)


def test_files_without_a_name(exactly):
    """A temporary file that has no name, or has lost it while it is open, is in no state; one that
    gets a name is.
    """

    def program(root):
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"unseen")
            file.flush()
        with open(root / "a", "wb") as file:
            file.write(b"seen")
            file.flush()
            os.unlink(root / "a")
            file.write(b"unseen")
            file.flush()
            (root / "a").write_text("another")
            file.write(b"unseen")
        with open(root / "b", "wb") as file:
            os.replace(root / "a", root / "b")
            file.write(b"unseen")

    exactly(program)


def test_pipes_and_sockets(exactly):
    """Pipes and sockets block nothing and are in no state. Later files are seen."""

    def program(root):
        os.mkfifo(root / "pipe")
        (root / "a").write_text("a")
        before = os.getcwd()
        os.chdir(root)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
        os.chdir(before)
        os.rename(root / "pipe", root / "pipe2")
        (root / "b").write_text("b")
        os.unlink(root / "pipe2")

    exactly(program)


def test_modes_and_times(record):
    """The states hold the modes and times that a program sets, for files and directories."""

    def program(root):
        (root / "d").mkdir()
        (root / "d/a").write_text("a")
        os.chmod(root / "d/a", 0o440)
        os.utime(root / "d/a", ns=(5, 5))
        os.chmod(root / "d", 0o550)

    one = record(program)
    assert one.end["d/a"].mode == 0o440
    assert one.end["d/a"].mtime == 5
    assert one.end["d"].mode == 0o550


def test_a_database(record):
    """A journal protects its database: no cut of the database without it, and every commit is
    there.
    """

    def program(root):
        with sqlite3.connect(root / "db") as db:
            db.execute("create table t (x)")
            for number in range(5):
                db.execute("insert into t values (?)", (bytes([number]) * 3000,))
                db.commit()
        db.close()

    one = record(program)
    counts = []
    for state, tree in one.states():
        if "db" in tree:
            assert not (state.torn and state.path == "db" and "db-journal" not in tree), state.id
            folder = one.root.parent / "again"
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            for name, data in tree.items():
                if data is not None:
                    (folder / name).write_bytes(data)
            db = sqlite3.connect(folder / "db")
            if db.execute("select 1 from sqlite_master where name = 't'").fetchone():
                counts.append(db.execute("select count(*) from t").fetchone()[0])
            db.close()
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert counts == sorted(counts)


# -- mappings --------------------------------------------------------------------------------------


def test_mappings(tmp_path, record):
    """A write through a mapping raises no event. It is seen at the end of the run."""

    def program(root):
        array = np.memmap(root / "a", dtype="u1", mode="w+", shape=(5000,))
        array[:] = 1
        array[17] = 2

    one = record(program)
    assert one.trees()[-1]["a"] == b"\1" * 17 + b"\2" + b"\1" * 4982
    assert not any(state.torn for state, _ in one.states())


def test_two_mappings_make_no_state_that_never_was(record):
    """A result is written through one mapping, then its flag through another: no content has the
    flag without the result.
    """

    def program(root):
        results = np.memmap(root / "results", dtype="u1", mode="w+", shape=(8,))
        flags = np.memmap(root / "flags", dtype="u1", mode="w+", shape=(8,))
        for number in range(8):
            results[number] = number + 1
            flags[number] = 1

    for tree in record(program).trees():
        flags = tree.get("flags") or b""
        assert tree.get("results", b"")[: sum(flags)] == bytes(range(1, sum(flags) + 1))


@pytest.mark.skipif(not inotify.available(), reason="needs inotify")
def test_mappings_at_each_step(tmp_path):
    """And at each step, again and again."""
    from pytest_mlchaos.crashes.recording.content_store import ContentStore
    from pytest_mlchaos.crashes.recording.inotify_recorder import InotifyRecorder

    (tmp_path / "work").mkdir()
    contents = ContentStore(tmp_path / "store")
    recorder = InotifyRecorder(tmp_path / "work", contents)
    array = np.memmap(tmp_path / "work/a", dtype="u1", mode="w+", shape=(10,))
    seen = []
    for step in range(4):
        array[step] = 9
        recorder.drain(closely=True)
        seen.append(b"".join(contents.blocks(recorder.tree()["a"].content)))
    recorder.close()
    contents.close()
    assert seen == [bytes([9] * (step + 1) + [0] * (9 - step)) for step in range(4)]


# -- others than this thread -----------------------------------------------------------------------


def test_threads(record):
    """Files that threads write are all seen, complete ones too."""

    def program(root):
        def write(number):
            for piece in range(5):
                with open(root / f"{number}", "ab") as file:
                    file.write(bytes([piece]) * 1000)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    one = record(program)
    for number in range(4):
        seen = [tree.get(str(number)) for tree in one.trees()]
        assert all(
            held is None
            or held == b"".join(bytes([piece]) * 1000 for piece in range(len(held) // 1000))
            for held in seen
        )
        assert len({held for held in seen if held}) >= 2


def test_a_thread_that_outlives_the_recording_is_let_go(record, tmp_path):
    """It goes on undisturbed, and a file of its own, that got the number which the queue of events
    had, loses nothing.
    """
    over, told, profiles = threading.Event(), [], []
    (tmp_path / "own").write_bytes(b"mine" * 100)
    later = []

    def works():
        over.wait()
        told.append([file.read(4) for file in later])
        profiles.append(sys.getprofile())

    threads = []
    record(
        lambda root: [
            (root / "a").write_text("a"),
            threads.append(threading.Thread(target=works)),
            threads[0].start(),
        ]
    )
    later += [open(tmp_path / "own", "rb", buffering=0) for _ in range(20)]
    over.set()
    threads[0].join()
    for file in later:
        file.close()
    assert told == [[b"mine"] * 20]
    assert profiles == [None]


def test_a_thread_that_is_being_started_or_ended_keeps_nobody_from_looking(record):
    """It holds the lock of ``threading`` meanwhile, and may itself be waiting for the one that
    looks.
    """
    held, written, in_time = threading.Event(), threading.Event(), []

    def program(root):
        def starts_or_ends():
            with threading._active_limbo_lock:
                held.set()
                in_time.append(written.wait(5))

        thread = threading.Thread(target=starts_or_ends)
        thread.start()
        held.wait()
        (root / "a").write_text("a")
        written.set()
        thread.join()

    record(program)
    assert in_time == [True]


def _child(root):
    for number in range(3):
        (root / f"{number}.tmp").write_bytes(b"x" * 1000)
        os.replace(root / f"{number}.tmp", root / f"{number}")
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er/a").write_text("a")


@by_events
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes(method, record):
    """Only the parent records the writes of a child process, and a forked child takes no event from
    it.
    """

    def program(root):
        process = multiprocessing.get_context(method).Process(target=_child, args=(root,))
        process.start()
        process.join()
        assert process.exitcode == 0
        (root / "after").write_text("after")

    trees = [dict.fromkeys(tree) for tree in record(program).trees()]
    for number in range(3):
        assert any(f"{number}" in tree and f"{number + 1}" not in tree for tree in trees)


def _slow_child(root):
    for number in range(4):
        (root / "checkpoint").write_bytes(b"%d" % number * 1000)
        time.sleep(0.15)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_child_writes_over_is_seen_while_its_parent_waits(method, record):
    """A trainer in a process of its own writes one file again and again: each version was there,
    for as long as training took.
    """

    def program(root):
        process = multiprocessing.get_context(method).Process(target=_slow_child, args=(root,))
        process.start()
        multiprocessing.connection.wait([process.sentinel])
        process.join()

    one = record(program)
    held = [tree["checkpoint"] for tree in one.trees() if "checkpoint" in tree]
    assert {b"%d" % number * 1000 for number in range(4)} <= set(held)


def test_a_fork_that_is_not_multiprocessing(record):
    """A child that was forked off in the middle of the run takes no event away, and is not held up."""

    def program(root):
        for number in range(5):
            pid = os.fork()
            if pid == 0:
                (root / f"child{number}").write_bytes(b"c" * 10)
                [len("x") for _ in range(1000)]
                os._exit(0)
            os.waitpid(pid, 0)
            (root / f"parent{number}").write_text("p")

    one = record(program)
    assert any(set(tree) == {"", "child0"} and tree["child0"] == b"c" * 10 for tree in one.trees())


def shell(command):
    """A program in the shell, which is one call here."""
    return lambda root: subprocess.run(["sh", "-c", command], cwd=root, check=True)


@by_events
def test_a_shell(record):
    """The order of a shell's steps without snapshots is their real order."""
    one = record(shell("echo a > a; echo b > b.tmp; mv b.tmp b; ln -s a latest; ln -sfn b latest"))
    seen = [{**tree} for tree in one.trees()]
    assert {"": None, "a": b"a\n", "b.tmp": b"b\n"} in seen
    assert {"": None, "a": b"a\n", "b": b"b\n"} in seen
    assert seen[-1] == {"": None, "a": b"a\n", "b": b"b\n", "latest": "-> b"}


@pytest.mark.parametrize(
    "command",
    [
        "echo a >> log; cat log > /dev/null; echo b >> log; cat log > /dev/null",
        "echo new > log; cat log > /dev/null",
        "ln log other; echo x >> other; cat other > /dev/null; echo y >> log",
        "mv log moved; echo y > log; cat log > moved",
        "mkdir d; echo a > d/a; echo f > f; echo b > d/b; mkdir d/e; echo c > d/e/c",
        "mkdir d; mv d e; echo a > e/a; echo f > f",
        "mkdir d; echo a > d/a; rm -r d; echo f > f",
        "mkdir -p a/b/c/d; echo x > a/b/c/d/x",
        "cp -r /proc/self/status s; rm log; mkdir log; echo x > log/x",
        "ln -s log l; mv l m; rm log; ln -s m log",
        "rm log; echo 1 > log; mv log x; echo 2 > log; mv x log; echo 3 >> log",
        "mkdir d; echo 1 > d/a; echo 2 > f; echo 3 > d/a; echo 4 > g; rm d/a; echo 5 > h",
        "for i in 1 2 3 4 5 6 7 8 9; do mkdir d$i; echo $i > d$i/a; echo $i > d$i/b; echo $i > "
        "f$i; done",
        "echo 1 > t; ln t u; rm t; echo 2 >> u; cat u > /dev/null; echo 3 >> u",
    ],
)
def test_no_false_state_of_another_process(command, record, tmp_path):
    """Whatever a shell does in one go: no tree is made up of what was never there together, and the
    last one is right.
    """
    real = tmp_path / "real"
    one = record(shell(command), prepare=lambda root: (root / "log").write_text("old\n"))
    real.mkdir()
    (real / "log").write_text("old\n")
    possible = _traced(command, real)
    for tree in one.trees():
        shape = {name: None if name == "s" else held for name, held in tree.items()}
        assert shape in possible, shape
    assert one.trees()[-1].keys() == possible[-1].keys()


def _traced(command, root):
    """Return the directory's contents between the shell's steps, one by one, redirections in three."""
    found = [walked(root)]

    def step(part):
        subprocess.run(["sh", "-c", part], cwd=root, check=True)
        tree = {name: None if name == "s" else held for name, held in walked(root).items()}
        if tree not in found:
            found.append(tree)

    for part in _unrolled(command):
        _, into, target = part.partition(">")
        if into and not target.startswith(">") and "/dev/null" not in target:
            step(f": > {target}")
        if part.startswith("mkdir -p "):
            names = part.split()[2].split("/")
            for depth in range(len(names)):
                step(f"mkdir -p {'/'.join(names[: depth + 1])}")
        elif part.startswith("rm -r "):
            step(f"rm -f {part.split()[2]}/*")
            step(part)
        elif part.startswith("cp"):
            step(": > s")
            step(part)
        else:
            if ">>" in part:
                step(f": >> {part.partition('>>')[2]}")
            step(part)
    return found


def _unrolled(command):
    if command.startswith("for "):
        body = command.partition("do ")[2].removesuffix("; done")
        return [
            part.strip().replace("$i", str(number))
            for number in range(1, 10)
            for part in body.split(";")
        ]
    return [part.strip() for part in command.split(";")]


def test_new_directories_that_another_fills(record):
    """Deep new directories that are filled at once, and written on while they are looked into: what
    is known in the end is right.
    """

    def program(root):
        code = (
            "import os\n"
            "for i in range(40):\n"
            "    os.makedirs(f'{i}/a/b')\n"
            "    for j in range(3):\n"
            "        with open(f'{i}/a/b/{j}', 'w') as f: f.write(str(j) * 100)\n"
            "    os.rename(f'{i}', f'done{i}')\n"
        )
        with subprocess.Popen([sys.executable, "-S", "-c", code], cwd=root) as process:
            while process.poll() is None:
                len("look")

    for tree in record(program).trees():
        for name in tree:
            if name.startswith("done") and "/" not in name:
                assert all(
                    tree.get(f"{name}/a/b/{number}") == str(number).encode() * 100
                    for number in range(3)
                ), name


# -- much of it ------------------------------------------------------------------------------------


class Counting:
    """``os``, with the bytes counted that are read."""

    def __init__(self):
        self.read = 0

    def __getattr__(self, name):
        return getattr(os, name)

    def pread(self, fd, size, offset):
        data = os.pread(fd, size, offset)
        self.read += len(data)
        return data


@pytest.mark.slow
@pytest.mark.parametrize(("pieces", "size"), [(100, 1 << 20), (2000, 100), (1000, 5000)])
def test_what_a_growing_file_costs(pieces, size, tmp_path, monkeypatch, by):
    """A file that grows piece by piece is kept once, and read twice (compared: a few times),
    however many pieces there are.
    """
    counting = Counting()
    monkeypatch.setattr(contents_module, "os", counting)

    def program(root):
        with open(root / "a", "wb", buffering=0) as file:
            for number in range(pieces):
                file.write(number.to_bytes(4, "big") * (size // 4))

    one = Recorded(program, tmp_path / "work", tmp_path / "store", by=by)
    assert (
        len({change.after["a"].content.digest for change in one.changes if "a" in change.after})
        == pieces + 1
    )
    assert one.contents.kept == pieces * size
    assert (
        counting.read
        <= (2 if by == "events" else 10) * pieces * size
        + pieces * (6 * (1 << 12))
        + min(pieces * size, 1 << 17) ** 2 // size
    )
    one.contents.close()


def test_a_large_file_whose_beginning_changes(tmp_path, by):
    """Only the blocks that have changed are kept again, and each content is right."""

    def program(root):
        with open(root / "a", "wb") as file:
            for number in range(20):
                file.write(bytes([number]) * (1 << 20))
        for number in range(20):
            with open(root / "a", "r+b", buffering=0) as file:
                file.seek(number << 20)
                file.write(b"!")

    one = Recorded(program, tmp_path / "work", tmp_path / "store", by=by).checked()
    assert one.contents.kept <= 42 << 20
    last = [change.after["a"] for change in one.changes if change.kind == "rewritten"]
    assert len({file.content.digest for file in last}) == 20
    one.contents.close()


def test_a_beginning_that_changes_while_a_large_file_grows(record):
    """A call that adds to a large file and changes what it held before leaves no content that never
    was.
    """

    def program(root):
        fd = os.open(root / "a", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"a" * 400_000)
        both(fd, 50_000)
        both(fd, 150_000)
        os.close(fd)

    def both(fd, place):
        """In one call, as a writer in C might."""
        code = f"import os; os.pwrite({fd}, b'!', {place}); os.lseek({fd}, 0, 2); os.write({fd}, b'b' * 1000)"
        subprocess.run([sys.executable, "-S", "-c", code], pass_fds=[fd], check=True)

    one = record(program)
    for tree in one.trees():
        held = tree.get("a") or b""
        assert (len(held) > 400_000) <= (held[50_000:50_001] == b"!"), len(held)
        assert (len(held) > 401_000) <= (held[150_000:150_001] == b"!"), len(held)


@by_events
def test_more_events_than_the_queue_holds(record, monkeypatch):
    """Contents during an overflow of the queue are unknown. The end, and all that follows, is
    recorded.
    """
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    def program(root):
        (root / "d").mkdir()
        code = f"import os\nfor i in range({limit // 3}):\n  open('a', 'w').close(); open('d/b', 'w').close(); os.rename('a', 'c')"
        subprocess.run([sys.executable, "-S", "-c", code], cwd=root, check=True)
        (root / "d/after").write_text("after")

    one = record(program)
    assert one.trees()[-1] == {"": None, "d": None, "c": b"", "d/b": b"", "d/after": b"after"}
    assert len(one.trees()) < 10


@by_events
def test_lost_events_are_counted(record, monkeypatch):
    """The queue of events overflows: those that it kept tell how many changes were not seen, at
    least.
    """
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    monkeypatch.setattr(hooks, "_LONG_CALL_SECONDS", 60)  # the watcher thread takes no snapshot

    def program(root):
        fds = [os.open(root / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
        one_call(
            os.pwrite, [(fd, str(number).encode(), 0) for number in range(limit) for fd in fds]
        )
        for fd in fds:
            os.close(fd)

    assert limit - 10 < sum(record(program).unseen) <= limit


def one_call(function, arguments):
    """Call it with each of these, inside one call of a C function."""
    collections.deque(itertools.starmap(function, arguments), 0)


@by_events
def test_changes_inside_one_call_that_left_an_unknown_directory_are_counted(record):
    """Two files are written by turns: of 200 contents of the directory the last is known."""

    def program(root):
        fds = [os.open(root / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
        one_call(os.pwrite, [(fd, str(number).encode(), 0) for number in range(100) for fd in fds])
        for fd in fds:
            os.close(fd)

    one = record(program)
    assert one.unseen == [199]
    assert len(one.trees()) == 4


@by_events
def test_each_call_that_hides_changes_is_counted_by_itself(record):
    """Three calls, each with four writes by turns to two files."""

    def program(root):
        fds = [os.open(root / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
        for call in range(3):
            one_call(
                os.pwrite,
                [(fd, f"{call} {number}".encode(), 0) for number in range(2) for fd in fds],
            )
        for fd in fds:
            os.close(fd)

    assert record(program).unseen == [3, 3, 3]


@by_events
def test_a_file_that_is_gone_before_it_could_be_read_is_counted(record):
    """Its content, and what happened beside it, are not known until it is gone."""

    def program(root):
        names = [str(root / name) for name in "abc"]
        fd = os.open(names[0], os.O_WRONLY | os.O_CREAT)
        steps = [lambda: os.write(fd, b"1"), lambda: os.unlink(names[0])]
        collections.deque(map(operator.call, steps), 0)
        os.close(fd)
        shell = f"for i in 1 2 3; do echo $i > {names[1]}; mv {names[1]} {names[2]}; done"
        libc = ctypes.CDLL(None)
        libc.system(shell.encode())

    one = record(program)
    (unseen,) = one.unseen
    assert 6 <= unseen <= 9


@by_events
def test_a_new_directory_that_is_filled_inside_one_call_is_counted(record):
    """Files that a new directory had before it was watched came in an unknown order."""

    def program(root):
        (root / "new").mkdir()
        libc = ctypes.CDLL(None)
        libc.system(f"mkdir {root}/new/d; for i in 1 2 3 4; do : > {root}/new/d/$i; done".encode())

    assert record(program).unseen == [3]


@by_events
def test_what_is_known_of_changes_inside_one_call_is_not_counted(record):
    """Names that come and go tell all; a directory that is moved in comes as a whole; a file is cut
    where its writes are estimated.
    """

    def program(root):
        outside = root.parent / "outside"
        (outside / "d").mkdir(parents=True)
        for name in "abc":
            (outside / "d" / name).write_text(name)
        os.replace(outside / "d", root / "d")
        (root / "1").write_text("1")
        one_call(
            os.replace,
            [(root / "1", root / "2"), (root / "2", root / "3"), (root / "3", root / "1")],
        )
        one_call(os.symlink, [("1", root / f"link-{number}") for number in range(5)])
        with open(root / "rows", "w", buffering=1) as file:
            file.writelines(f"{number}\n" for number in range(50))

    one = record(program)
    assert one.unseen == []


@by_events
def test_hundreds_of_files(record):
    """Many files that another process writes in one go are taken in as fast as they come, each in
    its place.
    """

    def program(root):
        code = "for i in range(300):\n  with open(f'{i:04}', 'w') as f: f.write(str(i))"
        subprocess.run([sys.executable, "-S", "-c", code], cwd=root, check=True)

    one = record(program)
    assert [len(tree) for tree in one.trees()] == [1, *(2 + number // 2 for number in range(600))]


@by_events
def test_a_long_call_that_writes_several_times_is_looked_into(record, monkeypatch):
    """The writes of one C function are seen while it computes, not only at its end."""
    # Whatever threads and processes other tests have here.
    monkeypatch.setattr(hooks, "is_single_threaded", lambda: True)

    def program(root):
        compute = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1500000) select count(*) from n;"
        db = sqlite3.connect(root / "db", isolation_level=None)
        db.executescript(
            "create table t (a);"
            + "".join(f"insert into t values ({n}); {compute}" for n in range(4))
        )
        db.close()

    assert len({tree["db"] for tree in record(program).trees() if "db" in tree}) > 3


def test_what_was_preallocated_is_not_cut(record):
    """A file that got its length first, by a call that then filled it, has no beginnings that could
    be left.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def program(root):
        fd = os.open(root / "a", os.O_RDWR | os.O_CREAT)
        (root / "b").write_bytes(b"b" * 10_000)
        if libc.ftruncate(fd, 10_000):
            raise OSError(ctypes.get_errno(), errno.errorcode[ctypes.get_errno()])
        os.close(fd)

    torn = [state.path for state, _ in record(program).states() if state.torn]
    assert torn
    assert set(torn) == {"b"}


# -- libraries -------------------------------------------------------------------------------------


def test_torch_save_to_a_file_object(exactly):
    """Each write of ``torch.save`` to a file object is seen."""
    torch = pytest.importorskip("torch")

    def program(root):
        with open(root / "a.pt", "wb") as file:
            torch.save({"w": torch.arange(100_000), "n": 1}, file)

    exactly(program)


def _library(name, write):
    return pytest.param(name, write, id=name)


def _torch(root):
    import torch

    torch.save({"w": torch.arange(100_000), "n": [1]}, root / "file")


def _safetensors(root):
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.arange(100_000)}, root / "file")


def _csv(root):
    import pandas

    pandas.DataFrame({"a": range(5000)}).to_csv(root / "file")


def _parquet(root):
    import pandas

    pytest.importorskip("pyarrow")
    pandas.DataFrame({"a": range(5000)}).to_parquet(root / "file")


def _arrow(root):
    import pyarrow
    from pyarrow import ipc

    table = pyarrow.table({"a": list(range(5000))})
    with (
        pyarrow.OSFile(str(root / "file"), "wb") as sink,
        ipc.new_file(sink, table.schema) as writer,
    ):
        for _ in range(3):
            writer.write_table(table)


def _hdf5(root):
    import h5py

    with h5py.File(root / "file", "w") as file:
        file["a"] = np.arange(10_000)
        file.flush()
        file["b"] = np.arange(10_000)


def _boosting(root):
    import xgboost

    data = xgboost.DMatrix(np.arange(60).reshape(20, 3), label=np.arange(20))
    xgboost.train({"max_depth": 2}, data, 2).save_model(root / "file")


def _cloud(root):
    import fsspec

    with fsspec.open(f"file://{root}/file", "wb") as file:
        file.write(b"x" * 100_000)


@pytest.mark.parametrize(
    ("module", "write"),
    [
        _library("torch", _torch),
        _library("safetensors", _safetensors),
        _library("pandas", _csv),
        _library("pyarrow", _arrow),
        pytest.param("pandas", _parquet, id="parquet"),
        _library("h5py", _hdf5),
        _library("xgboost", _boosting),
        _library("fsspec", _cloud),
    ],
)
def test_libraries(module, write, record, by):
    """A file is seen empty or in part, and when it is complete, whichever language writes it.

    If directories are compared, a file that one call writes and renames, or overwrites, is only
    seen when it is complete.
    """
    pytest.importorskip(module)

    def program(root):
        write(root)
        os.rename(root / "file", root / "step1")
        write(root)

    one = record(program, lambda root: write(root))
    final = (one.root / "step1").stat().st_size
    # Which the comparison cannot look into.
    in_one_call = by == "comparing" and module in ("safetensors", "xgboost")
    assert (
        in_one_call
        or any(
            state.torn or 0 < len(tree.get("file") or b"") < final or tree.get("file") == b""
            for state, tree in one.states()
        )
        or any(".tmp" in name for tree in one.trees() for name in tree)
    )
    assert {"": None, "step1": one.trees()[-1]["step1"]} in one.trees()


@by_events
def test_a_data_loaders_workers(record):
    """Files that a DataLoader's workers write are seen."""
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, Dataset

    class Caching(Dataset):
        def __init__(self, root):
            self.root = root

        def __len__(self):
            return 6

        def __getitem__(self, place):
            (self.root / f"{place}.json").write_text(json.dumps(place))
            return torch.zeros(1)

    def program(root):
        for number, _ in enumerate(DataLoader(Caching(root), batch_size=2, num_workers=2)):
            (root / "progress").write_text(str(number))

    one = record(program)
    assert len(one.trees()[-1]) == 8
    assert len(one.trees()) > 10

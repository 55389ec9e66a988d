"""``explore_crashes(..., record="syscalls")``: strace tells of each change, whatever makes it, and
the states are made again from that.
"""

from __future__ import annotations

import collections
import itertools
import mmap
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import textwrap
import threading

import pytest

from pytest_mlchaos.crashes.recording.strace_parser import Call, parse_calls
from tests.crashes import Recorded, untraceable

SUBJECTS = '''
import itertools, json, os, pathlib, sqlite3, subprocess, sys
import pytest

def in_a_shell(workdir):
    """A child process rewrites a file in place, and goes on from it."""
    script = 'n=$(cat n 2>/dev/null || echo 0); while [ "$n" -lt 11 ]; do n=$((n + 1)); echo $n > n; done; cat n'
    return subprocess.run(["sh", "-c", script], cwd=workdir, check=True, capture_output=True, text=True).stdout

def atomically(workdir):
    script = 'n=$(cat n 2>/dev/null || echo 0); while [ "$n" -lt 4 ]; do n=$((n + 1)); echo $n > n.tmp; mv n.tmp n; done; cat n'
    return subprocess.run(["sh", "-c", script], cwd=workdir, check=True, capture_output=True, text=True).stdout
'''


@pytest.fixture
def strace():
    """Skip the test if system calls cannot be traced."""
    if reason := untraceable():
        pytest.skip(reason)


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests: example.with_tests(SUBJECTS + textwrap.dedent(tests))


@pytest.fixture
def record(tmp_path, strace):
    """Records a program by its system calls."""
    recorded = []

    def record(program, prepare=None):
        place = tmp_path / f"work{len(recorded)}", tmp_path / f"store{len(recorded)}"
        recorded.append(Recorded(program, *place, prepare=prepare, by="syscalls").checked())
        assert recorded[-1].ended.error is None
        return recorded[-1]

    yield record
    for one in recorded:
        one.contents.close()


def _one_call(function, arguments):
    """Call it with each of these, inside one call of a C function."""
    collections.deque(itertools.starmap(function, arguments), 0)


def _by_turns(root):
    fds = [os.open(root / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
    _one_call(os.pwrite, [(fd, f"{number:3}".encode(), 0) for number in range(100) for fd in fds])


def test_each_write_inside_one_call_is_seen(record):
    """Two files are written by turns: each of the 200 contents of the directory is there."""
    one = record(_by_turns)
    pairs = [(tree.get("a"), tree.get("b")) for tree in one.trees()]
    whole = [f"{number:3}".encode() for number in range(100)]
    assert pairs[:4] == [(None, None), (b"", None), (b"", b""), (whole[0], b"")]
    assert pairs[4:] == [(whole[(place + 1) // 2], whole[place // 2]) for place in range(199)]
    assert (one.unseen, one.differs) == ([], ())


def _script(root):
    db = sqlite3.connect(root / "db")
    db.executescript("create table t (x);" + "insert into t values (1);" * 20)
    db.close()


def test_each_transaction_of_a_script_is_seen(record):
    """SQLite runs all of them inside one call; each makes a journal, fills it, writes the database
    and removes the journal.
    """
    changes = record(_script).changes
    assert sum(change.kind == "removed" and change.path == "db-journal" for change in changes) == 21
    assert all(change.after is not None for change in changes)


def _shell(root):
    loop = (
        "for i in 1 2 3; do echo $i > tmp; mv tmp last; done; cp last copy; "
        "ln -s copy link; echo 4 >> link; exec 3> q; echo $(echo a) >&3"
    )
    subprocess.run(["sh", "-c", loop], cwd=root, check=True)


def test_child_processes_are_followed_with_their_descriptors_and_directories(record):
    """A redirection, a copy by another program, a link that is written through, a command in a
    command.
    """
    trees = record(_shell).trees()
    assert [
        tree["last"]
        for tree, _ in itertools.groupby(trees)
        if "last" in tree and "copy" not in tree
    ] == [*(b"1\n", b"1\n", b"1\n", b"2\n", b"2\n", b"2\n", b"3\n")]
    assert {"": None, "last": b"3\n", "copy": b"3\n4\n", "link": "-> copy", "q": b""} in trees
    assert trees[-1]["q"] == b"a\n"


def _adds(root, name, shared):
    for number in range(20):
        with open(root / name, "a") as file:
            file.write(f"{number}\n")
        os.write(shared, name.encode())


def _forks(root):
    shared = os.open(root / "shared", os.O_WRONLY | os.O_CREAT)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_adds, args=(root, name, shared)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join()


def test_forked_processes_share_where_they_write(record):
    """They go on behind what another one has written to the same open file."""
    one = record(_forks)
    assert sorted(one.trees()[-1]["shared"]) == sorted(b"abc" * 20)
    kinds = [change.kind for change in one.changes if change.path == "shared"]
    # It is closed when the last of them has ended. strace may tell of two calls at one moment in
    # the other order: the disk has the say.
    assert kinds[:61] == ["created", *["grew"] * 60]
    assert kinds[61:] in (["closed"], ["closed", "arrived"], ["arrived"])


def _threads(root):
    def saves(name):
        for number in range(20):
            (root / f"{name}.tmp").write_text(str(number))
            os.replace(root / f"{name}.tmp", root / name)

    running = [threading.Thread(target=saves, args=(name,)) for name in "abc"]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def test_threads_are_seen_in_the_order_of_their_calls(record):
    """Each thread makes, writes and renames this many files.

    strace may tell of two calls at one moment in the other order, so one recording of five has to
    have them all.
    """
    for _ in range(5):
        changes = record(_threads).changes
        assert collections.Counter(change.kind for change in changes)["moved"] == 60
        if all(change.after is not None for change in changes):
            return
    pytest.fail("a call is missing in each of five recordings")


def _descriptors(root):
    first = os.open(root / "a", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(first, b"0123456789")
    second = os.dup(first)
    os.write(second, b"ab")
    os.close(first)
    os.writev(second, [b"c", b"d"])
    third = os.open(root / "a", os.O_RDWR)
    os.read(third, 3)
    os.write(third, b"XYZ")
    os.lseek(third, -1, os.SEEK_END)
    os.write(third, b"!")
    os.ftruncate(third, 4)
    os.pwrite(third, b"end", 6)
    fourth = os.open(root / "b", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.sendfile(fourth, third, 1, 5)
    os.lseek(third, 0, os.SEEK_SET)
    os.copy_file_range(third, fourth, 4)
    os.dup2(fourth, third)
    os.write(third, b".")
    os.posix_fallocate(fourth, 0, 12)


def test_descriptors_write_where_they_are(record):
    """Appended, shared, moved on by reading and seeking, cut, copied by the kernel, filled up with
    zeros.
    """
    trees = record(_descriptors).trees()
    assert [tree["a"] for tree in trees[2:10]] == [
        *(
            b"0123456789",
            b"0123456789ab",
            b"0123456789abcd",
            b"012XYZ6789abcd",
            b"012XYZ6789abc!",
            b"012X",
            b"012X\0\0end",
        ),
        b"012X\0\0end",
    ]
    copied = [b"12X" + bytes(2) + more for more in (b"", b"012X", b"012X.", b"012X." + bytes(2))]
    assert [tree["b"] for tree in trees[9:]] == [b"", *copied]


def _names(root):
    outside = root.parent / "outside"
    (outside / "d").mkdir(parents=True)
    (outside / "d" / "f").write_text("f")
    (outside / "g").write_text("g")
    os.rename(outside / "d", root / "d")
    os.replace(outside / "g", root / "g")
    os.link(root / "g", root / "h")
    with open(root / "h", "a") as file:
        file.write("h")
    os.symlink("d", root / "link")
    (root / "link" / "new").write_text("n")
    os.chdir(root)
    os.rename("d", "e")
    here = os.open("e", os.O_RDONLY)
    os.unlink("f", dir_fd=here)
    os.mkdir("sub", dir_fd=here)
    shutil.move(str(root / "e"), str(outside))
    with open("lost", "wb", buffering=0) as file:
        file.write(b"1")
        os.unlink("lost")
        file.write(b"2")


def test_names_are_followed_over_the_border_and_through_links(record):
    """Directories and files are moved in and out, linked, and named from other directories."""
    trees = record(_names).trees()
    assert trees[1] == {"": None, "d": None, "d/f": b"f"}
    assert {
        "": None,
        "d": None,
        "d/f": b"f",
        "g": b"gh",
        "h": b"gh",
        "link": "-> d",
        "d/new": b"n",
    } in trees
    assert {
        "": None,
        "e": None,
        "e/new": b"n",
        "e/sub": None,
        "g": b"gh",
        "h": b"gh",
        "link": "-> d",
    } in trees
    assert trees[-2:] == [
        {"": None, "g": b"gh", "h": b"gh", "link": "-> d", "lost": b"1"},
        {"": None, "g": b"gh", "h": b"gh", "link": "-> d"},
    ]


def _mapped(root):
    with open(root / "m", "w+b") as file:
        file.truncate(5)
        with mmap.mmap(file.fileno(), 5) as memory:
            memory[:3] = b"abc"
    (root / "after").write_text("x")
    os.unlink(root / "m")
    (root / "known").write_text("y")
    shutil.copy(root / "known", root / "n")
    with open(root / "n", "r+b") as file, mmap.mmap(file.fileno(), 1) as memory:
        memory[:] = b"z"


def test_what_a_mapping_writes_is_unknown_and_taken_from_the_disk_at_the_end(record):
    """No state holds such a file: it is counted, and the one that is not what the calls made of it
    is named.
    """
    one = record(_mapped)
    assert not any(tree.get("m") == bytes(5) and "after" in tree for tree in one.trees())
    assert any("m" not in tree and tree.get("after") == b"x" for tree in one.trees())
    assert one.trees()[-1] == {"": None, "after": b"x", "known": b"y", "n": b"z"}
    assert (sum(one.unseen), one.differs) == (4, ("n",))


def test_a_large_file_is_kept_once(record):
    """It is read on from where it was, at each write."""
    one = record(_large)
    assert one.contents.kept < 3_500_000
    assert len(one.trees()) == 32


def _large(root):
    with open(root / "large", "wb", buffering=0) as file:
        for number in range(30):
            file.write(bytes([number]) * 100_000)


def test_syncs_of_other_languages_are_seen(record):
    """A power loss leaves what a child process has written back."""
    one = record(_syncs)
    assert [change.path for change in one.changes if change.kind == "synced"] == ["kept"]
    last = one.changes[-1]
    assert (last.unsynced, last.loose) == (frozenset({"lost"}), frozenset({"kept", "lost"}))


def _syncs(root):
    (root / "lost").write_text("lost")
    subprocess.run(
        ["dd", "of=kept", "conv=fsync", "status=none"], input=b"kept", cwd=root, check=True
    )


# -- explorations ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_child_process_that_writes_in_place_is_found_out(project, strace):
    """Each state between its writes is resumed from; by events few are seen, and the report says
    so.
    """
    project("""
        def test_calls(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(in_a_shell, tmp_path, record="syscalls")
            assert len(report.states) == 13 and report.unseen == 0 and "not seen" not in str(report)
            assert {outcome.state.tree["n"].content.size for outcome in report.outcomes[1:]} == {0, 2, 3}

        def test_an_atomic_one_recovers(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(atomically, tmp_path, record="syscalls")
            report.assert_recovers()
            assert len(report.states) == 13
    """).run(passed=2)


@pytest.mark.slow
def test_files_that_calls_do_not_explain_are_named(project, strace):
    """A mapping into memory writes one: the report says what was not seen, and why."""
    project("""
        import mmap

        def mapped(workdir):
            with open(workdir / "m", "w+b") as file:
                file.truncate(5)
                with mmap.mmap(file.fileno(), 5) as memory:
                    memory[:3] = b"abc"
            return (workdir / "m").read_bytes()

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(mapped, tmp_path, record="syscalls")
            report.assert_recovers(from_scratch=True)
            assert report.unseen == 1
            assert "1 change was not seen (in a memory-mapped file, or by a system call that does not show the content)" in str(report)
            assert "not as the recorded system calls left them (for example, written through a memory mapping): m" in str(report)
    """).run(passed=1)


@pytest.mark.slow
def test_steps_are_told(project, strace):
    """A write is attributed to the steps that were complete."""
    pytest.importorskip("torch")
    project("""
        import torch

        def steps(workdir):
            model = torch.nn.Linear(1, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(3):
                model(torch.ones(1, 1)).sum().backward()
                optimizer.step()
                (workdir / f"{step}").write_text("x")

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(steps, tmp_path, record="syscalls")
            assert [state.id for state in report.states] == ["start#0", "0@0#1", "0#1", "1@0#2", "1#2", "2@0#3", "2#3"]
    """).run(passed=1)


@pytest.mark.slow
def test_what_cannot_be_is_refused(project):
    """One line says what is wrong, and what to do."""
    project("""
        @pytest.mark.parametrize("keywords, message", [
            ({"record": "events"}, "record must be 'auto' or 'syscalls', got 'events'"),
            ({"record": "syscalls", "isolation": "in-process"}, "record='syscalls' needs fresh processes, but isolation is 'in-process'"),
            ({"record": "syscalls"}, "record='syscalls' needs the program strace (Linux), which is not on PATH: install it"),
        ])
        def test_it(mlchaos, tmp_path, monkeypatch, keywords, message):
            monkeypatch.setenv("PATH", str(tmp_path))
            with pytest.raises(ValueError) as caught:
                mlchaos.explore_crashes(in_a_shell, tmp_path, **keywords)
            assert message in str(caught.value)

        def test_not_allowed(mlchaos, tmp_path, monkeypatch):
            tool = tmp_path / "strace"
            tool.write_text("#!/bin/sh\\necho 'strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted' >&2; exit 1")
            tool.chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            (tmp_path / "work").mkdir()
            with pytest.raises(ValueError, match="needs ptrace, and strace failed: .*Operation not permitted"):
                mlchaos.explore_crashes(in_a_shell, tmp_path / "work", record="syscalls")
    """).run(passed=4)


def test_a_subject_that_does_not_load_in_its_process_is_refused_and_one_that_fails_is_told(
    project, strace
):
    """No call was traced before that; what the golden run raises is said as without strace."""
    project("""
        from pytest_mlchaos.errors import GoldenRunFailed

        def there(pid):
            if os.getpid() != pid:
                raise OSError("it is at home alone")
            return Stays()

        class Stays:
            def __reduce__(self):
                return there, (os.getpid(),)

            def __call__(self, workdir):
                pass

        def fails(workdir):
            (workdir / "x").write_text("x")
            raise RuntimeError("broken")

        def test_it(mlchaos, tmp_path):
            with pytest.raises(ValueError, match="does not load in a fresh process: OSError"):
                mlchaos.explore_crashes(Stays(), tmp_path, record="syscalls")
            with pytest.raises(GoldenRunFailed, match="fails without any fault"):
                mlchaos.explore_crashes(fails, tmp_path, record="syscalls")
    """).run(passed=1)


def test_calls_are_told_in_the_order_of_their_ends(tmp_path):
    """Calls of several threads are broken into two lines each; signals and ends of processes stand
    between them.
    """
    told = tmp_path / "told"
    told.write_text(
        "7 1.000001 write(5<\\x2f\\x61>, \"\\x61\\x22\", 2 <unfinished ...>\n"
        "8  1.000002 rename(\"\\x61\", \"\\x62\") = 0\n"
        "7  1.000003 <... write resumed>) = 2\n"
        "8  1.000004 openat(AT_FDCWD<\\x2f>, \"\\x7a\", O_WRONLY|O_CREAT, 0644) = 3<\\x2f\\x7a>\n"
        "8  1.000005 unlink(\"\\x62\") = -1 ENOENT (No such file or directory)\n"
        "8  1.000006 writev(3<\\x2f\\x7a>(deleted), [{iov_base=\"\\x31\", iov_len=1}, "
        "{iov_base=\"\\x32\", iov_len=1}], 2) = 2\n"
        "8  1.000007 +++ exited with 0 +++\n"
        "7  1.000008 exit_group(0) = ?\n"
    )  # fmt: skip
    calls = list(parse_calls(told))
    assert [(call.thread, call.name, call.result, call.path) for call in calls] == [
        *(
            (8, "rename", 0, ""),
            (7, "write", 2, ""),
            (8, "openat", 3, "/z"),
            (8, "unlink", -1, ""),
            (8, "writev", 2, ""),
            (8, "exit", 0, ""),
        )
    ]
    assert [(calls[1].descriptor(0).path, calls[1].texts(1), calls[1].time)] == [
        ("/a", b'a"', 1_000_001_000)
    ]
    assert (calls[2].has(2, "O_CREAT"), calls[2].number(3), calls[2].descriptor(0).number) == (
        True,
        0o644,
        -100,
    )
    assert (calls[4].texts(1), calls[4].descriptor(0).path) == (b"12", "/z")
    assert Call(1, 1, "lseek", (b"0x10", b"[5] => [7]", b'"\\x61"...')).number(1) == 5
    assert Call(1, 1, "write", (b'"\\x61"...',)).texts(0) is None

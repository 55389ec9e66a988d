"""The synthesised crash states against what really is on disk when a process is really killed: all
of it, and nothing else.
"""

import functools
import importlib.util
import mmap
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest

from pytest_mlchaos.engine import inotify
from tests import ptracing
from tests.crash_kills import PROGRAMS, prepare
from tests.crashes import Recorded, untraceable

NEEDS = {
    "torch_path": ["torch"],
    "torch_small": ["torch"],
    "torch_file": ["torch"],
    "safetensors": ["torch", "safetensors"],
}


@pytest.fixture(params=PROGRAMS)
def name(request):
    """A program's."""
    if any(importlib.util.find_spec(module) is None for module in NEEDS.get(request.param, ())):
        pytest.skip(f"needs {NEEDS[request.param]}")
    return request.param


@pytest.fixture(params=["events", "comparing"])
def by(request):
    """Return the recorder."""
    if request.param == "events" and not inotify.available():
        pytest.skip("needs inotify")
    return request.param


@pytest.fixture
def recorded(name, tmp_path, by):
    """It, recorded."""
    program = PROGRAMS[name]
    if name in NEEDS:
        (tmp_path / "warm").mkdir()
        program(tmp_path / "warm")
    one = Recorded(program, tmp_path / "work", tmp_path / "store", prepare=prepare, by=by).checked()
    yield one
    one.contents.close()


@pytest.fixture
def states(recorded):
    """Its crash states, with what they hold."""
    return recorded.states()


@functools.cache
def _killed(name, folder):
    out = folder / "found"
    subprocess.run(
        list(map(str, [sys.executable, "-m", "tests.crash_kills", name, folder / "work", out])),
        check=True,
    )
    return pickle.loads(out.read_bytes())


@pytest.fixture
def killed(name, tmp_path_factory):
    """Return what processes leave that are killed: between two calls of Python's, and between two
    system calls.
    """
    folder = tmp_path_factory.getbasetemp() / f"killed-{name}"
    folder.mkdir(exist_ok=True)
    return _killed(name, folder)


def shape(tree):
    """A tree with what is made up at random made alike: names, and what a journal holds."""
    return {
        ".tmp" if path.startswith(".tmp") else path: len(held) if path == "db-journal" else held
        for path, held in tree.items()
    }


@pytest.mark.slow
def test_killed_at_every_event(name, states, killed, by):
    """The states that are not torn are exactly the contents that a kill leaves between two calls
    (and inside one, for other languages).
    """
    real = [shape(tree) for tree in killed[0]]
    made = [shape(tree) for state, tree in states if not state.torn]
    assert [tree for tree in real if tree not in made] == []
    # A call that takes long, on a busy machine, is looked into.
    left = [*real, *map(shape, killed[1])]
    inside = [
        state.path[:4]
        for state, tree in states
        if not state.torn and shape(tree) not in left and tree != states[-1][1]
    ]
    assert set(inside) <= {"safetensors": {".tmp"}, "database": {"db", "db-j"}}.get(name, set())


@pytest.fixture
def at_calls(killed):
    """Return what is left by a kill at each system call."""
    if ptracing.missing():
        pytest.skip(ptracing.missing())
    return [shape(tree) for tree in killed[1]]


by_events = pytest.mark.parametrize("by", ["events"], indirect=True)
"""Where directories are compared, what one call of C's does is seen when it returns."""
but_in_place = pytest.mark.parametrize(
    "name", sorted(set(PROGRAMS) - {"database", "safetensors"}), indirect=True
)
"""One call of SQLite or safetensors gives a file its length, or writes it in several places, and
events do not tell these apart.
"""


@pytest.mark.slow
@by_events
@but_in_place
def test_each_state_that_a_kill_leaves_is_known(states, at_calls):
    """It was seen, or one call made several writes, and an estimated cut of the same file stands
    for it.
    """
    made = [shape(tree) for _, tree in states]
    estimated = [shape(tree) for state, tree in states if "(estimated: one call made" in state.what]
    for tree in at_calls:
        assert tree in made or any(_differ_by_a_cut(tree, other, made) for other in estimated), (
            _short(tree)
        )


@by_events
def test_each_state_that_was_seen_is_left_by_a_kill(states, at_calls):
    """No state that is not torn, but for the end, is unknown to the kernel."""
    seen = [shape(tree) for state, tree in states if not state.torn]
    assert [_short(tree) for tree in seen[:-1] if tree not in at_calls] == []


@by_events
@but_in_place
def test_each_cut_lies_inside_a_write(states, at_calls):
    """A torn file that is not estimated is cut at a multiple of the page size, between two lengths
    that it really had.
    """
    made = [shape(tree) for _, tree in states]
    for state, tree in states:
        if state.torn and "(estimated" not in state.what:
            size = len(shape(tree)[_name(state, tree)])
            assert size % mmap.PAGESIZE == 0, state
            around = [
                other
                for other in [*at_calls, made[-1]]
                if _differ_by_a_cut(shape(tree), other, made)
            ]
            lengths = [len(other[_name(state, tree)]) for other in around]
            assert min(lengths) < size < max(lengths), (state, lengths)


@by_events
def test_only_changes_that_left_an_unknown_state_are_counted_as_unseen(recorded, name):
    """Ordinary writes are all seen, or stood for by an estimate; a commit of SQLite's writes the
    database and its journal in one call.
    """
    assert bool(recorded.unseen) == (name == "database")


@pytest.fixture
def traced(name, tmp_path):
    """It, recorded by its system calls."""
    if reason := untraceable():
        pytest.skip(reason)
    program = PROGRAMS[name]
    if name in NEEDS:
        (tmp_path / "warm").mkdir()
        program(tmp_path / "warm")
    one = Recorded(
        program, tmp_path / "work", tmp_path / "store", prepare=prepare, by="syscalls"
    ).checked()
    yield one
    one.contents.close()


def test_system_calls_tell_each_state_that_a_kill_leaves_and_no_other(traced, at_calls):
    """It is the reference: no state is missing, and one that is not torn was there."""
    states = traced.states()
    made, seen = (
        [shape(tree) for _, tree in states],
        [shape(tree) for state, tree in states if not state.torn],
    )
    assert [_short(tree) for tree in at_calls if tree not in seen] == []
    assert [_short(tree) for tree in seen[:-1] if tree not in at_calls] == []
    assert (traced.unseen, traced.differs, traced.ended.error) == ([], (), None)
    assert [state for state, _ in states if "(estimated" in state.what] == []
    assert made


def _name(state, tree):
    return next(iter(shape({state.path: tree[state.path]})))


def _differ_by_a_cut(tree, other, everything):
    """Return True if two trees differ in one file alone (of whatever names), and in both it is a
    beginning of what it was in a third.
    """
    names = {name for name in tree.keys() | other.keys() if tree.get(name, 0) != other.get(name, 0)}
    pairs = {(tree.get(name), other.get(name)) for name in names}
    if len(pairs) != 1:
        return False
    name = min(names)
    ((cut, known),) = pairs
    if not isinstance(cut, bytes) or not isinstance(known, bytes):
        return False
    held = [one[name] for one in everything if isinstance(one.get(name), bytes)]
    return any(whole.startswith(cut) and whole.startswith(known) for whole in held)


def _short(tree):
    return {name: len(held) if isinstance(held, bytes) else held for name, held in tree.items()}


@pytest.mark.parametrize("name", ["appended", "lines", "torch_small"], indirect=True)
@by_events
def test_what_single_writes_add_is_never_cut_within_a_page(name, states):
    """Records, lines and small files are there as a whole, or not at all; a long one is cut between
    pages.
    """
    expected = {"appended": ["log cut at byte 4096 of 10033", "log cut at byte 8192 of 10033"]}
    assert [state.what for state, _ in states if state.torn] == expected.get(name, [])


@pytest.fixture
def noisy(tmp_path):
    """A function that records a program while another thread waits; the program may write to a file
    elsewhere, as prints do.
    """
    if not inotify.available():
        pytest.skip("needs inotify")
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()

    def torn(program):
        with open(tmp_path / "elsewhere", "w") as elsewhere:

            def printing(*words):
                print(*words, file=elsewhere, flush=True)

            one = Recorded(
                functools.partial(program, printing), tmp_path / "work", tmp_path / "store"
            ).checked()
        found = [state.what for state, _ in one.states() if state.torn]
        one.contents.close()
        return found

    yield torn
    over.set()
    thread.join()


def test_other_threads_and_prints_do_not_hide_that_one_call_made_several_writes(noisy):
    """A worker of pytest-xdist has its output captured in a file like this."""

    def saves(printing, root):
        printing("saving")
        with open(root / "last.pkl", "wb") as file:
            pickle.dump({"a": b"a" * 70_000, "b": b"b" * 80_000}, file)

    assert [what for what in noisy(saves) if "(estimated: one call made" in what]


def test_prints_between_lines_do_not_make_lines_torn(noisy):
    """A write to a different file is not attributed to the line."""

    def appends(printing, root):
        fd = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in range(3):
            printing("step", number)
            printing("loss", 1)
            os.write(fd, f"a line {number}\n".encode())
        os.close(fd)

    assert noisy(appends) == []


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux writes")
def test_a_kill_inside_a_write_leaves_whole_pages(tmp_path):
    """The cuts inside one write assume that the kernel checks for fatal signals between pages."""
    # Of memory that was never written, Linux may copy a part of a page.
    file, data = (tmp_path / "file", b"x" * (1 << 26))
    lengths = set()
    for _ in range(20):
        file.write_bytes(b"")
        pid = os.fork()
        if pid == 0:
            fd = os.open(file, os.O_WRONLY)
            os.write(fd, b"x" * 11)
            os.write(fd, data)
            os._exit(0)
        end = time.monotonic() + 5
        while os.stat(file).st_size <= 11 and time.monotonic() < end:
            pass
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        lengths.add(file.stat().st_size)
        if len(lengths - {11, 11 + len(data)}) >= 2:
            break
    inside = lengths - {0, 11, 11 + len(data)}
    if not inside:
        pytest.skip("no kill came inside the write")
    assert {length % mmap.PAGESIZE for length in inside} == {0}

"""The synthesised crash states against what really is on disk when a process is really killed: all of it, and nothing else."""

import functools
import importlib.util
import pickle
import subprocess
import sys

import pytest

from pytest_mlchaos.engine.crashes import inotify
from tests.crash_kills import PROGRAMS, prepare
from tests.crashes import Recorded

NEEDS = {"torch_path": ["torch"], "torch_file": ["torch"], "safetensors": ["torch", "safetensors"]}
LIMITS = [0, 1, 499, 2999, 8192, 12_345, 14_999, 19_999]


@pytest.fixture(params=PROGRAMS)
def name(request):
    """A program's."""
    if any(importlib.util.find_spec(module) is None for module in NEEDS.get(request.param, ())):
        pytest.skip(f"needs {NEEDS[request.param]}")
    return request.param


@pytest.fixture(params=["events", "comparing"])
def by(request):
    """How the directory is followed."""
    if request.param == "events" and not inotify.available():
        pytest.skip("needs inotify")
    return request.param


@pytest.fixture
def states(name, tmp_path, by):
    """Its crash states, with what they hold."""
    program = PROGRAMS[name]
    if name in NEEDS:
        (tmp_path / "warm").mkdir()
        program(tmp_path / "warm")
    one = Recorded(program, tmp_path / "work", tmp_path / "store", prepare=prepare, by=by).checked()
    yield one.states()
    one.contents.close()


@functools.cache
def _killed(name, folder):
    out = folder / "found"
    subprocess.run(list(map(str, [sys.executable, "-m", "tests.crash_kills", name, folder / "work", out, *LIMITS])), check=True)
    return pickle.loads(out.read_bytes())


@pytest.fixture
def killed(name, tmp_path_factory):
    """What real processes leave that are killed: between two calls, and at a byte."""
    folder = tmp_path_factory.getbasetemp() / f"killed-{name}"
    folder.mkdir(exist_ok=True)
    return _killed(name, folder)


def shape(tree):
    """A tree with what is made up at random made alike: names, and what a journal holds."""
    return {".tmp" if path.startswith(".tmp") else path: len(held) if path == "db-journal" else held for path, held in tree.items()}


def test_killed_at_every_event(name, states, killed, by):
    """The states that are not torn are exactly the contents that a kill leaves between two calls (and inside one, for other languages)."""
    real = [shape(tree) for tree in killed[0]]
    made = [shape(tree) for state, tree in states if not state.torn]
    assert [tree for tree in real if tree not in made] == []
    inside = [state.path[:4] for state, tree in states if not state.torn and shape(tree) not in real and tree != states[-1][1]]
    assert set(inside) <= {"safetensors": {".tmp"}, "database": {"db", "db-j"}}.get(name, set())


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"database", "archive"}), indirect=True)
def test_killed_at_a_byte(name, states, killed, by):
    """What is left when a file may not get longer than so many bytes is a state, or a state's file that is cut elsewhere."""
    everything = [shape(tree) for _, tree in states]
    if (name, by) == ("safetensors", "comparing"):
        pytest.skip("what one call writes, and renames, is seen when it is complete")
    for tree in map(shape, killed[1]):
        assert tree in everything or any(_differ_by_a_cut(tree, other, everything) for other in everything), _short(tree)


def _differ_by_a_cut(tree, other, everything):
    """Whether two trees differ in one file alone (of whatever names), and in both it is a beginning of what it was in a third."""
    names = {name for name in tree.keys() | other.keys() if tree.get(name, 0) != other.get(name, 0)}
    pairs = {(tree.get(name), other.get(name)) for name in names}
    if len(pairs) != 1:
        return False
    name = min(names)
    ((cut, known),) = pairs
    if not isinstance(cut, bytes) or not isinstance(known, bytes):
        return False
    held = [one[name] for one in everything if isinstance(one.get(name), bytes)]
    return any(whole.startswith(cut) and whole.startswith(known) for whole in held) or any(_mixed(cut, known, new) for new in held)


def _mixed(cut, old, new):
    """Whether a file was being rewritten in place: it begins with the new content, and goes on with the old."""
    return len(cut) == len(old) and any(cut == new[:place] + old[place:] for place in LIMITS)


def _short(tree):
    return {name: len(held) if isinstance(held, bytes) else held for name, held in tree.items()}


@pytest.mark.parametrize("name", ["in_place"], indirect=True)
def test_the_limits_do_cut(name, killed):
    """A program that writes 15 000 bytes in place leaves each of these lengths."""
    assert [len(tree["last.ckpt"]) for tree in killed[1]] == [limit for limit in LIMITS if limit < 15_000]

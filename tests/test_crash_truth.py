"""The synthesised crash states against what really is on disk when a process is really killed: all of it, and nothing else."""

import importlib.util
import pickle
import subprocess
import sys

import pytest

from pytest_mlchaos.engine.crashes import inotify
from tests.crash_kills import PROGRAMS, prepare
from tests.crashes import Recorded

pytestmark = pytest.mark.skipif(not inotify.available(), reason="needs inotify")
NEEDS = {"torch_path": ["torch"], "torch_file": ["torch"], "safetensors": ["torch", "safetensors"]}
LIMITS = [0, 1, 100, 499, 1000, 2999, 3000, 5000, 8191, 8192, 12_345, 14_999, 19_999]


@pytest.fixture(params=PROGRAMS)
def name(request):
    """A program's."""
    if any(importlib.util.find_spec(module) is None for module in NEEDS.get(request.param, ())):
        pytest.skip(f"needs {NEEDS[request.param]}")
    return request.param


@pytest.fixture
def states(name, tmp_path):
    """Its crash states, with what they hold."""
    program = PROGRAMS[name]
    if name in NEEDS:
        (tmp_path / "warm").mkdir()
        program(tmp_path / "warm")
    one = Recorded(program, tmp_path / "work", tmp_path / "store", prepare=prepare).checked()
    yield one.states()
    one.contents.close()


def killed(name, tmp_path, *limits):
    """What real processes leave that are killed."""
    out = tmp_path / "found"
    command = [sys.executable, "-m", "tests.crash_kills", name, tmp_path / "work", out, *limits]
    subprocess.run(list(map(str, command)), check=True)
    return pickle.loads(out.read_bytes())


def shape(tree):
    """A tree with names that are made up at random made alike."""
    return {".tmp" if path.startswith(".tmp") else path: held for path, held in tree.items()}


def test_killed_at_every_event(name, states, tmp_path):
    """The states that are not torn are exactly the contents that a kill leaves between two calls."""
    real = [shape(tree) for tree in killed(name, tmp_path)]
    made = [shape(tree) for state, tree in states if not state.torn]
    assert [tree for tree in real if tree not in made] == []
    if name != "database":
        assert [state.id for state, tree in states if not state.torn and shape(tree) not in real and tree != states[-1][1]] == []


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"database", "archive"}), indirect=True)
def test_killed_at_a_byte(name, states, tmp_path):
    """What is left when a file may not get longer than so many bytes is a state, or a state's file that is cut elsewhere."""
    everything = [shape(tree) for _, tree in states]
    for tree in map(shape, killed(name, tmp_path, *LIMITS)):
        assert tree in everything or any(_differ_by_a_cut(tree, other, everything) for other in everything), _short(tree)


def _differ_by_a_cut(tree, other, everything):
    """Whether two trees differ in one file alone, and in both it is a beginning of what it was in a third."""
    names = {name for name in tree.keys() | other.keys() if tree.get(name, 0) != other.get(name, 0)}
    if len(names) != 1:
        return False
    (name,) = names
    cut, known = tree.get(name), other.get(name)
    if not isinstance(cut, bytes) or not isinstance(known, bytes):
        return False
    return any(isinstance(held := one.get(name), bytes) and held.startswith(cut) and held.startswith(known) for one in everything)


def _short(tree):
    return {name: len(held) if isinstance(held, bytes) else held for name, held in tree.items()}


def test_the_limits_do_cut(tmp_path):
    """A program that writes 15 000 bytes in place leaves each of these lengths."""
    found = killed("in_place", tmp_path, *LIMITS)
    assert [len(tree["last.ckpt"]) for tree in found] == [limit for limit in LIMITS if limit < 15_000]

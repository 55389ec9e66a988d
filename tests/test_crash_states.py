"""From changes to states: what they are called, and what it costs."""

from __future__ import annotations

import pytest

from pytest_mlchaos.crashes.model import Change, Content, File, Folder
from pytest_mlchaos.crashes.runners import open_store
from pytest_mlchaos.crashes.states import CrashStates, completed_writes


class Counted(list):
    """A list that counts the entries that it hands out."""

    asked = 0

    def __getitem__(self, place):
        self.asked += len(range(len(self))[place]) if isinstance(place, slice) else 1
        return super().__getitem__(place)

    def __iter__(self):
        for one in super().__iter__():
            self.asked += 1
            yield one


def beats(times):
    """A file that is written anew again and again, as a heartbeat is."""
    found, tree = Counted(), {"": Folder()}
    for beat in range(times):
        for kind, size in (("truncated", 0), ("grew", 8), ("closed", 8)):
            after = {"": Folder(), "heartbeat": File(Content(size, b"%d" % beat if size else b""))}
            found.append(Change(kind, "heartbeat", 0, tree, after))
            tree = after
    return found


@pytest.mark.parametrize("times", [50, 500])
def test_each_change_is_looked_at_a_few_times_however_many_there_are(times, tmp_path):
    """A heartbeat is written thousands of times, and never renamed: naming its states takes one
    pass over the changes.
    """
    changes = beats(times)
    with open_store(tmp_path / "store") as contents:
        states = CrashStates(contents, torn=False, power=False).states({}, changes, set(), steps=0)
    assert len(states) == times + 2  # the start, the empty file, and each beat
    assert len(completed_writes(changes)) == times
    assert changes.asked < 20 * len(changes)


def test_a_file_is_called_what_it_is_renamed_to_next(tmp_path):
    """A temporary name that differs from run to run gives way to the next name, and to no later
    file's of the same name.
    """

    def tree(*names):
        return {"": Folder(), **{name: File(Content(1, b"x")) for name in names}}

    changes = [
        Change("created", "k7", 0, tree(), tree("k7")),
        Change("moved", "one", 0, tree("k7"), tree("one"), source="k7"),
        Change("created", "k7", 0, tree("one"), tree("one", "k7")),
        Change("removed", "k7", 0, tree("one", "k7"), tree("one")),
        Change("created", "k7", 0, tree("one"), tree("one", "k7")),
        Change("moved", "two", 0, tree("one", "k7"), tree("one", "two"), source="k7"),
    ]
    with open_store(tmp_path / "store") as contents:
        found = CrashStates(contents, torn=False, power=False).states(None, changes, set(), steps=0)
    assert [state.id for state in found] == ["one~tmp#0", "one#0", "k7#0", "two#0"]
    assert len(completed_writes(changes)) == 2


@pytest.fixture
def cuts(tmp_path):
    """A function that returns the lengths at which a file is cut that held ``old`` and grows to
    ``old + new``, and which are estimated.
    """

    def cuts(old, new, *, writes, power=False):
        with open_store(tmp_path / "store") as contents:
            before, after = ({"f": File(contents.keep(data))} for data in (old, old + new))
            change = Change(
                "grew",
                "f",
                0,
                before,
                after,
                start=len(old),
                writes=writes,
                unsynced=frozenset({"f"}),
            )
            states = CrashStates(contents, torn=True, power=power).states(
                None, [change], set(), steps=0
            )
        sizes = {
            state.tree["f"].content.size: "(estimated" in state.what
            for state in states
            if state.torn and "@" in state.id
        }
        return sorted(sizes), sorted(size for size, estimated in sizes.items() if estimated)

    return cuts


@pytest.mark.parametrize("writes", [0, 1])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (0, 11, []),
        (11, 11, []),
        (0, 4096, []),
        (0, 4097, [4096]),
        (4090, 11, [4096]),
        (0, 20_000, [8192, 16384]),
        (5000, 3000, []),
    ],
)
def test_one_write_is_cut_between_pages_of_the_file_alone(cuts, old, new, expected, writes):
    """The content of a page is complete or absent, even if the number of writes is unknown."""
    assert cuts(b"a" * old, b"b" * new, writes=writes) == (expected, [])


def test_several_writes_of_one_call_are_cut_between_them_by_estimate(cuts):
    """In the middle, behind the whole blocks, and one byte short: the state says that this is
    estimated.
    """
    assert cuts(b"a" * 100, b"b" * 60, writes=2) == ([130, 159], [130, 159])
    sizes, estimated = cuts(b"", b"b" * 10_001, writes=2)
    assert (sizes, estimated) == ([4096, 5000, 8192, 10_000], [5000, 10_000])


def test_as_many_writes_as_lines_are_cut_between_the_lines(cuts):
    """Each write was a line, for all that is known: no line is cut."""
    assert cuts(b"1\n", b"22\n333\n4\r4\n", writes=3) == ([5, 9], [5, 9])


def test_a_power_loss_may_cut_a_write_anywhere(cuts):
    """Data that no fsync has written back may end at any byte."""
    assert cuts(b"", b"b" * 11, writes=1, power=True) == ([5, 10], [])

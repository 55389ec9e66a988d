"""From changes to states: what they are called, and what it costs."""

from __future__ import annotations

import pytest

from pytest_mlchaos.core.crashes import Change, Content, File, Folder
from pytest_mlchaos.engine.crashes.hosts import opened
from pytest_mlchaos.search.crash_states import CrashStates, completed_writes


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
    """A heartbeat is written thousands of times, and never renamed: naming its states takes one pass over the changes."""
    changes = beats(times)
    with opened(tmp_path / "store") as contents:
        states = CrashStates(contents, torn=False, power=False).states({}, changes, set(), steps=0)
    assert len(states) == times + 2  # the start, the empty file, and each beat
    assert completed_writes(changes) == times
    assert changes.asked < 20 * len(changes)


def test_a_file_is_called_what_it_is_renamed_to_next(tmp_path):
    """A temporary name that differs from run to run gives way to the next name, and to no later file's of the same name."""

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
    with opened(tmp_path / "store") as contents:
        found = CrashStates(contents, torn=False, power=False).states(None, changes, set(), steps=0)
    assert [state.id for state in found] == ["one~tmp#0", "one#0", "k7#0", "two#0"]
    assert completed_writes(changes) == 2

"""The crash states of several ranks, from what each did: pure data, without a run."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_mlchaos.core.collectives import CollectiveRecord
from pytest_mlchaos.crashes.model import Content, File, Folder
from pytest_mlchaos.crashes.ranks.orders import orders
from pytest_mlchaos.crashes.ranks.timelines import (
    Launch,
    Look,
    Meeting,
    Op,
    Timeline,
    requirements,
)

BOTH = (0, 1)


def file(text):
    """A file with this content."""
    return File(Content(len(text), text.encode()))


def wrote(path, at=0.0, *, kind="created", text="x"):
    """A file that appeared at a time."""
    return Op(kind, path, 0, {path: file(text)}, window=(at, at))


def removed(path, at=0.0):
    """A file that was removed at a time."""
    return Op("removed", path, 0, removes=(path,), window=(at, at))


def launch(op, number=0, peer=None, group=BOTH, name=""):
    """A collective that a rank launches."""
    return Launch(CollectiveRecord(group, number, op, "", 0, peer, name=name))


def directories(*ranks, inner=False):
    """The names in each directory that a crash can leave."""
    timelines = [Timeline(rank, events) for rank, events in enumerate(ranks)]
    found = {frozenset()}
    for order in orders({}, timelines, inner=inner):
        found |= {frozenset(c.after) for c in order.changes if c.after is not None}
    return found


def named(*texts):
    """Sets of the names in each text."""
    return {frozenset(text.split()) for text in texts}


@pytest.mark.parametrize("op", ["barrier", "all_reduce", "all_gather", "reduce_scatter"])
def test_a_collective_of_all_orders_what_is_before_and_after(op):
    """Nothing after it exists without all that is before it, in either rank."""
    found = directories([wrote("a"), launch(op), wrote("c")], [wrote("b"), launch(op), wrote("d")])
    assert found == named("", "a", "b", "a b", "a b c", "a b d", "a b c d")


def test_without_a_collective_each_rank_may_be_ahead():
    """A dead rank stops anywhere, and the other goes on to its end."""
    found = directories([wrote("a"), wrote("b")], [wrote("c"), wrote("d")])
    assert found >= named("c d", "a c d", "a b", "a b c", "a b c d")


def test_a_broadcast_orders_one_direction():
    """The receiver waits for the root. The root does not wait."""
    found = directories(
        [wrote("a"), launch("broadcast", peer=0), wrote("c")],
        [wrote("b"), launch("broadcast", peer=0), wrote("d")],
    )
    assert frozenset({"a", "c"}) in found
    assert not [one for one in found if "d" in one and not one >= {"a", "b"}]


@pytest.mark.parametrize("op", ["reduce", "gather"])
def test_the_root_of_a_reduction_waits(op):
    """The others do not."""
    found = directories(
        [wrote("a"), launch(op, peer=0), wrote("c")], [wrote("b"), launch(op, peer=0), wrote("d")]
    )
    assert frozenset({"b", "d"}) in found
    assert not [one for one in found if "c" in one and not one >= {"a", "b"}]


def test_a_receiver_waits_for_the_sender():
    """A message orders one direction, also without a known sender."""
    for peer in (0, None):
        found = directories(
            [wrote("a"), launch("send", peer=1), wrote("c")],
            [wrote("b"), launch("recv", peer=peer), wrote("d")],
        )
        assert frozenset({"a", "c"}) in found
        assert not [one for one in found if "d" in one and "a" not in one]


def test_a_collective_of_other_ranks_orders_nothing():
    """A rank that is not in the group goes on."""
    pair = {"group": (0, 1)}
    found = directories(
        [wrote("a"), launch("barrier", **pair), wrote("b")],
        [launch("barrier", **pair)],
        [wrote("c"), wrote("d")],
    )
    assert {frozenset({"c", "d"}), frozenset({"a", "b"})} <= found


def test_groups_of_the_same_ranks_are_told_apart():
    """Threads may launch the collectives of two groups in a different order in each rank."""
    mine = [wrote("a"), launch("barrier", name="x"), wrote("b"), launch("barrier", name="y")]
    theirs = [launch("barrier", name="y"), launch("barrier", name="x"), wrote("c")]
    found = directories(mine, theirs)
    assert not [one for one in found if "c" in one and "a" not in one]
    assert frozenset({"a", "c"}) not in found  # y also waits for what is before it


def test_ranks_meet_in_the_making_of_a_group():
    """It waits for all ranks."""
    found = directories([wrote("a"), Meeting("new_group")], [Meeting("new_group"), wrote("b")])
    assert found == named("", "a", "a b")


def test_a_rank_that_saw_a_file_needs_it():
    """A rank may wait for a file of another rank."""
    saw = Look("a", False, 2.0)
    assert directories([wrote("a", 1.0)], [saw, wrote("b", 3.0)]) == named("", "a", "a b")


def test_a_rank_that_looked_before_a_file_was_there_does_not_need_it():
    """It cannot have waited for it."""
    saw = Look("a", False, 0.5)
    assert frozenset({"b"}) in directories([wrote("a", 1.0)], [saw, wrote("b", 3.0)])


def test_a_rank_that_listed_a_directory_needs_its_names():
    """A listing shows the names, and not the contents."""
    folder = Op("folder", "d", 0, {"d": Folder()}, window=(0.0, 0.0))
    found = directories([folder, wrote("d/a", 1.0)], [Look("d", True, 2.0), wrote("b", 3.0)])
    assert found == named("", "d", "d d/a", "d d/a b")


def test_changes_of_one_path_keep_their_order():
    """Two ranks that write one file are tried in the order that was seen."""
    found = directories([wrote("a", 1.0)], [removed("a", 2.0), wrote("b", 3.0)])
    assert found == named("", "a", "b")


def test_changes_of_one_path_at_one_time_come_together():
    """If their order is unknown, no state has only one of them."""
    mine = Op("created", "a", 0, {"a": file("1")}, window=(1.0, 3.0))
    theirs = Op("rewritten", "a", 0, {"a": file("2")}, window=(2.0, 4.0))
    timelines = [Timeline(0, [mine]), Timeline(1, [theirs])]
    assert requirements(timelines) == [[(1, 1)], [(1, 1)]]


def test_a_renamed_directory_takes_the_files_of_all_ranks_with_it():
    """One rank renames what all have written."""
    folder = Op("folder", "t", 0, {"t": Folder()}, window=(0.0, 0.0))
    moved = Op("moved", "d", 0, {"d": Folder()}, source="t", window=(5.0, 5.0))
    found = directories(
        [folder, launch("barrier"), wrote("t/a", 2.0), launch("barrier", 1), moved],
        [launch("barrier"), wrote("t/b", 2.0), launch("barrier", 1)],
    )
    assert found == named("", "t", "t t/a", "t t/b", "t t/a t/b", "d d/a d/b")


def test_a_content_that_was_not_seen_makes_no_state():
    """The directory is unknown until the file is known again."""
    unseen = Op("grew", "a", 0, {"a": None}, window=(1.0, 1.0))
    found = directories([wrote("b"), unseen, wrote("a", 2.0), wrote("c", 3.0)])
    assert found == named("", "b", "a b", "a b c")


EVENTS = st.lists(
    st.sampled_from(["0", "1", "0", "1", "barrier", "broadcast", "reduce"]),
    min_size=1,
    max_size=6,
)


@given(plan=EVENTS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_state_is_a_consistent_cut(plan):
    """Brute force: walk all interleavings that the collectives allow, and compare."""
    ranks = [[], []]
    number = 0
    for step, kind in enumerate(plan):
        if kind in "01":
            ranks[int(kind)].append(wrote(f"{kind}-{step}", float(step)))
        else:
            for events in ranks:
                events.append(launch(kind, number, None if kind == "barrier" else 0))
            number += 1
    reachable = brute_force(ranks)
    assert directories(*ranks, inner=True) <= reachable
    if len(ranks[0]) + len(ranks[1]) <= 8:
        assert directories(*ranks, inner=True) | named("") == reachable


def brute_force(ranks):
    """The names in each directory of each possible moment, by simulating the ranks."""
    found = set()
    for cut in itertools.product(*(range(len(events) + 1) for events in ranks)):
        if possible(ranks, cut):
            found.add(
                frozenset(
                    event.path
                    for events, count in zip(ranks, cut, strict=True)
                    for event in events[:count]
                    if isinstance(event, Op)
                )
            )
    return found


def possible(ranks, cut):
    """Return True if the ranks can stand there: none that waits in vain is past a collective."""
    launched = [
        {
            (event.record.op, event.record.sequence)
            for event in events[:count]
            if isinstance(event, Launch)
        }
        for events, count in zip(ranks, cut, strict=True)
    ]
    for rank, (events, count) in enumerate(zip(ranks, cut, strict=True)):
        for place, event in enumerate(events[:count]):
            if not isinstance(event, Launch) or place + 1 >= count:
                continue
            waits = {
                "barrier": True,
                "broadcast": rank != 0,
                "reduce": rank == 0,
            }[event.record.op]
            key = (event.record.op, event.record.sequence)
            if waits and key not in launched[1 - rank]:
                return False
    return True

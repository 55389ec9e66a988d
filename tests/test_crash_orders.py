"""The crash states of several ranks, from what each did: pure data, without a run."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_mlchaos.core.collectives import CollectiveRecord
from pytest_mlchaos.crashes.model import Content, File, Folder
from pytest_mlchaos.crashes.ranks.orders import orders, step_ends
from pytest_mlchaos.crashes.ranks.timelines import (
    Access,
    Launch,
    Look,
    Meeting,
    Op,
    StoreRead,
    StoreWrite,
    Timeline,
    Waited,
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


def launch(op, number=0, peer=None, group=BOTH, name="", waits=True):
    """A collective that a rank launches."""
    waits = waits and op not in ("send", "recv")
    return Launch(CollectiveRecord(group, number, op, "", 0, peer, waits=waits, name=name))


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


@pytest.mark.parametrize("op", ["broadcast", "reduce", "gather", "scatter"])
def test_the_root_and_the_others_wait_for_each_other(op):
    """Gloo passes data on only when the receiver asks for it."""
    found = directories(
        [wrote("a"), launch(op, peer=0), wrote("c")], [wrote("b"), launch(op, peer=0), wrote("d")]
    )
    assert frozenset({"a", "c"}) not in found
    assert frozenset({"b", "d"}) not in found


def test_two_ranks_that_are_not_the_root_of_a_gather_do_not_wait_for_each_other():
    """The root alone receives from all."""
    group = {"group": (0, 1, 2), "peer": 0}
    found = directories(
        [launch("gather", **group)],
        [launch("gather", **group), wrote("b")],
        [wrote("c"), launch("gather", **group)],
    )
    assert frozenset({"b"}) in found


@pytest.mark.parametrize("peer", [0, None])
def test_a_sender_and_its_receiver_wait_for_each_other(peer):
    """A receiver may not say from whom it receives."""
    found = directories(
        [wrote("a"), launch("send", peer=1), Waited(0, 1.0), wrote("c")],
        [wrote("b"), launch("recv", peer=peer), Waited(0, 1.0), wrote("d")],
    )
    assert frozenset({"a", "c"}) not in found
    assert frozenset({"b", "d"}) not in found


def test_a_sender_that_does_not_wait_goes_on():
    """Nothing tells it that the message has arrived."""
    found = directories([launch("send", peer=1), wrote("c")], [launch("recv", peer=0)])
    assert frozenset({"c"}) in found


def test_the_order_begins_at_the_wait():
    """A rank may go on between the launch of a collective and the wait for it."""
    found = directories(
        [launch("barrier", waits=False), wrote("c"), Waited(0), wrote("d")],
        [wrote("b"), launch("barrier", waits=False)],
    )
    assert frozenset({"c"}) in found
    assert not [one for one in found if "d" in one and "b" not in one]


def test_the_order_begins_at_the_launch_if_no_wait_was_seen():
    """C++ code may wait for it."""
    found = directories(
        [launch("barrier", waits=False), wrote("c")], [wrote("b"), launch("barrier", waits=False)]
    )
    assert found == named("", "b", "b c")


# -- stores ----------------------------------------------------------------------------------------


def store_set(start=0.0, end=1.0, *, saw=None, wrote=None, key="k"):
    """A value that a rank sets, or adds to."""
    return StoreWrite(Access(frozenset({key}), start, end, saw, wrote))


def store_got(start=0.0, end=1.0, *, saw=None, key="k"):
    """A value that a rank has read."""
    return StoreRead(Access(frozenset({key}), start, end, saw))


@pytest.mark.parametrize(
    ("end", "key", "saw", "is_ordered"),
    [
        pytest.param(2.0, "k", None, True, id="may have been seen"),
        pytest.param(0.5, "k", None, False, id="came later"),
        pytest.param(2.0, "other", None, False, id="of a different key"),
        pytest.param(2.0, "k", b"x", True, id="of this value"),
        pytest.param(2.0, "k", b"y", False, id="of a value of a different rank"),
    ],
)
def test_a_rank_that_read_a_value_needs_who_set_it(end, key, saw, is_ordered):
    """The rank that set it did so before, and all that it had done before that."""
    found = directories(
        [wrote("a"), store_set(1.0, 1.5, wrote=b"x")],
        [store_got(0.0, end, saw=saw, key=key), wrote("b")],
        [store_set(0.0, 0.1, wrote=b"y")],
    )
    assert (frozenset({"b"}) not in found) == is_ordered


def test_a_counter_orders_those_that_added_before():
    """A rank that got 3 comes after the two others, and the one that got 1 after none."""
    ranks = []
    for number, name in enumerate("abc"):
        access = Access(frozenset({"k"}), 0.0, 9.0, b"%d" % number, b"%d" % (number + 1))
        ranks.append([wrote(name), StoreWrite(access), StoreRead(access), wrote(name * 2)])
    found = directories(*ranks)
    assert frozenset({"a", "aa"}) in found
    assert not [one for one in found if "bb" in one and "a" not in one]
    assert not [one for one in found if "cc" in one and not one >= {"a", "b"}]


# -- files -----------------------------------------------------------------------------------------


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


def in_step(step, path, at=0.0):
    """A file that appeared in a step, at a time."""
    return Op("created", path, step, {path: file("x")}, window=(at, at))


def whole_saves(*ranks):
    """The steps that all ranks have ended, and the names in the directory then."""
    timelines = [Timeline(rank, events) for rank, events in enumerate(ranks)]
    return [(one.step, " ".join(sorted(one.tree))) for one in step_ends({}, timelines)]


def test_a_step_ends_when_all_ranks_have_ended_it():
    """Whichever rank was ahead when they were seen."""
    mine = [in_step(1, "a1", 1.0), launch("barrier"), in_step(2, "a2", 4.0)]
    theirs = [launch("barrier"), in_step(1, "b1", 5.0), in_step(2, "b2", 6.0)]
    assert whole_saves(mine, theirs) == [(-1, ""), (1, "a1 b1"), (2, "a1 a2 b1 b2")]


def test_a_step_that_no_moment_ends_is_left_out():
    """Rank 1 takes its first step after it has seen the second one of rank 0."""
    mine = [in_step(1, "a1", 1.0), in_step(2, "a2", 2.0)]
    theirs = [Look("a2", False, 3.0), in_step(1, "b1", 4.0)]
    assert whole_saves(mine, theirs) == [(-1, ""), (2, "a1 a2 b1")]


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
            key = (event.record.op, event.record.sequence)
            if key not in launched[1 - rank]:
                return False
    return True

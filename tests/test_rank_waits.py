"""Ranks wait for each other in many ways: no crash state has what a wait excludes."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from pytest_mlchaos.crashes.recording.own_events import is_available

torch = pytest.importorskip("torch")
dist = torch.distributed
pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="a torch without distributed"),
    pytest.mark.skipif(not is_available("/tmp"), reason="the kernel does not tell ranks apart"),
]
POLL_SECONDS = 0.001
ONE = torch.ones(1)


class Ranks:
    """Hold what the waits of two ranks need: this rank, a store, a group, and a folder."""

    def __init__(self, folder):
        dist.init_process_group()
        self.rank, self.folder = dist.get_rank(), folder
        self.store = dist.distributed_c10d._get_default_store()
        self.group = dist.new_group([0, 1])
        self.works = []


# Each of these returns in rank 0 only when rank 1 has called it.


def store_set_and_get(ranks, key):
    """Rank 0 reads a value that rank 1 has set."""
    if ranks.rank:
        ranks.store.set(key, "x")
    else:
        assert ranks.store.get(key) == b"x"


def store_wait(ranks, key):
    """Rank 0 waits for a key, in a store with a prefix."""
    store = dist.PrefixStore("a", dist.PrefixStore("b", ranks.store))
    if ranks.rank:
        store.set(key, "x")
    else:
        store.wait([key], datetime.timedelta(seconds=60))


def store_poll(ranks, key):
    """Rank 0 asks for a key again and again."""
    if ranks.rank:
        ranks.store.set(key, "x")
    while not ranks.store.check([key]):
        time.sleep(POLL_SECONDS)


def store_counter(ranks, key):
    """Each adds one, and rank 0 adds nothing until all have."""
    ranks.store.add(key, 1)
    while not ranks.rank and ranks.store.add(key, 0) < 2:
        time.sleep(POLL_SECONDS)


def store_last_one(ranks, key):
    """The last one to add tells the others, as in torch's own barrier of a store."""
    if ranks.store.add(key, 1) == 2:
        ranks.store.set(f"{key}-all", "x")
    ranks.store.wait([f"{key}-all"])


def store_compare_set(ranks, key):
    """Rank 0 swaps a value when rank 1 has set it."""
    if ranks.rank:
        ranks.store.set(key, "here")
    else:
        ranks.store.wait([key])
        assert ranks.store.compare_set(key, "here", "seen") == b"seen"


def store_append(ranks, key):
    """Each appends its number."""
    ranks.store.append(key, str(ranks.rank))
    while not ranks.rank and b"1" not in ranks.store.get(key):
        time.sleep(POLL_SECONDS)


def store_queue(ranks, key):
    """Rank 0 takes what rank 1 puts into a queue."""
    if ranks.rank:
        ranks.store.queue_push(key, "x")
    else:
        ranks.store.queue_pop(key)


def elastic_barrier(ranks, key):
    """The barrier of torch's elastic agents."""
    from torch.distributed.elastic.utils.store import barrier

    barrier(ranks.store, 2, key)


def barrier(ranks, key):
    """The usual one."""
    dist.barrier()


def barrier_of_a_group(ranks, key):
    """The barrier of a second group of the same ranks."""
    dist.barrier(ranks.group)


def monitored_barrier(ranks, key):
    """Sent and answered by rank 0."""
    dist.monitored_barrier()


def new_group(ranks, key):
    """The members of a new group connect to each other."""
    dist.new_group([0, 1])


def all_reduce_waited_for_later(ranks, key):
    """Launched first, and waited for later."""
    work = dist.all_reduce(ONE.clone(), async_op=True)
    time.sleep(POLL_SECONDS)
    work.wait()


def all_reduce_polled(ranks, key):
    """Asked again and again if it is complete."""
    work = dist.all_reduce(ONE.clone(), async_op=True)
    while not work.is_completed():
        time.sleep(POLL_SECONDS)


def future_of_a_collective(ranks, key):
    """Waited for by its future."""
    dist.all_reduce(ONE.clone(), async_op=True).get_future().wait()


def all_gather_object(ranks, key):
    """Objects of all ranks."""
    dist.all_gather_object([None, None], ranks.rank)


def gather_object(ranks, key):
    """Objects that come to rank 0."""
    dist.gather_object(ranks.rank, [None, None] if not ranks.rank else None)


def broadcast_object(ranks, key):
    """An object that comes from rank 1."""
    dist.broadcast_object_list([ranks.rank], src=1)


def broadcast_to_the_others(ranks, key):
    """Gloo passes data on only when the receiver asks for it, so rank 0 waits, too."""
    dist.broadcast(ONE.clone(), src=0)


def receive(ranks, key):
    """Rank 1 sends."""
    dist.send(ONE, 0) if ranks.rank else dist.recv(ONE.clone(), 1)


def receive_from_any(ranks, key):
    """Rank 0 does not say from whom."""
    dist.send(ONE, 0) if ranks.rank else dist.recv(ONE.clone())


def send(ranks, key):
    """Gloo sends only when the receiver asks for it."""
    dist.recv(ONE.clone(), 0) if ranks.rank else dist.send(ONE, 1)


def receive_later(ranks, key):
    """Launched first, and waited for later."""
    work = dist.isend(ONE, 0) if ranks.rank else dist.irecv(ONE.clone(), 1)
    work.wait()


def batch_of_messages(ranks, key):
    """Both send and receive."""
    other = 1 - ranks.rank
    received = ONE.clone()
    ops = [dist.P2POp(dist.isend, ONE, other), dist.P2POp(dist.irecv, received, other)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()


def flag_file(ranks, key):
    """Rank 0 looks for a file of rank 1 until it exists."""
    if ranks.rank:
        (ranks.folder / f"{key}flag").touch()
    while not os.path.exists(ranks.folder / f"{key}flag"):
        time.sleep(POLL_SECONDS)


def opened_file(ranks, key):
    """Rank 0 opens a file of rank 1 until it exists."""
    path = ranks.folder / f"{key}opened"
    if ranks.rank:
        path.write_text("x")
    while True:
        with contextlib.suppress(FileNotFoundError):
            path.read_text()
            return


def listed_folder(ranks, key):
    """Rank 0 lists the folder until a file of rank 1 is there."""
    if ranks.rank:
        (ranks.folder / f"{key}listed").touch()
    while f"{key}listed" not in os.listdir(ranks.folder):
        time.sleep(POLL_SECONDS)


def content_under_a_lock(ranks, key):
    """Each counts itself in a file, under a lock, and rank 0 reads it under the lock."""
    path = ranks.folder / f"{key}count"

    def count(more):
        with open(path.with_suffix(".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = int(path.read_text()) if path.exists() else 0
            if more:
                path.write_text(str(found + more))
            return found + more

    count(1)
    while not ranks.rank and count(0) < 2:
        time.sleep(POLL_SECONDS)


WAITS = [
    *(store_set_and_get, store_wait, store_poll, store_counter, store_last_one),
    *(store_compare_set, store_append, store_queue, elastic_barrier),
    *(barrier, barrier_of_a_group, monitored_barrier, new_group),
    *(all_reduce_waited_for_later, all_reduce_polled, future_of_a_collective),
    *(all_gather_object, gather_object, broadcast_object, broadcast_to_the_others),
    *(receive, receive_from_any, send, receive_later, batch_of_messages),
    *(flag_file, opened_file, listed_folder, content_under_a_lock),
]


# These do not wait for rank 1, or too late.


def nothing(ranks, key):
    """The ranks do not know of each other."""


def store_of_other_keys(ranks, key):
    """Each waits for its own key."""
    ranks.store.set(f"{key}{ranks.rank}", "x")
    ranks.store.get(f"{key}{ranks.rank}")


def store_before(ranks, key):
    """The counter of rank 0 comes first."""
    if ranks.rank:
        ranks.store.wait([key])
    ranks.store.add(key, 1)


def launched_only(ranks, key):
    """Rank 0 waits after it has written."""
    ranks.works.append(dist.barrier(async_op=True))


def received_too_late(ranks, key):
    """The message is waited for after the write."""
    ranks.works.append(dist.isend(ONE, 0) if ranks.rank else dist.irecv(ONE.clone(), 1))


def lock_alone(ranks, key):
    """The death of rank 1 frees its lock, so it tells nothing."""
    with open(ranks.folder / "alone.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


NO_WAITS = [
    nothing,
    store_of_other_keys,
    store_before,
    launched_only,
    received_too_late,
    lock_alone,
]


def save(workdir, waits):
    """Each rank writes its part, then waits, and rank 0 says that the save is complete."""
    folder = Path(workdir)
    ranks = Ranks(folder)
    (folder / "alone.lock").touch()
    for wait in waits:
        name = wait.__name__
        (folder / f"{name}.part{ranks.rank}").touch()
        wait(ranks, name)
        if ranks.rank == 0:
            (folder / f"{name}.done").touch()
        while ranks.works:
            ranks.works.pop().wait()
    dist.destroy_process_group()


def incomplete(mlchaos, folder, waits, subject=save):
    """Return the waits for which a crash state is complete without the part of rank 1."""
    report = mlchaos.world(ranks=2, timeout=60).explore_crashes(
        subject, folder / "work", waits, max_states=1, compare=["*.none"]
    )
    names = [wait.__name__ for wait in waits]
    assert {path for state in report.states for path in state.tree} >= {f"{n}.done" for n in names}
    return [
        name
        for name in names
        if any(
            f"{name}.done" in state.tree and f"{name}.part1" not in state.tree
            for state in report.states
        )
    ]


@pytest.mark.parametrize(
    "waits",
    [
        pytest.param([store_last_one, all_reduce_waited_for_later, flag_file], id="some"),
        pytest.param(WAITS, id="all", marks=pytest.mark.slow),
    ],
)
def test_no_state_has_what_a_wait_excludes(mlchaos, tmp_path, waits):
    """A sound job is never flagged, whatever its ranks wait by."""
    assert incomplete(mlchaos, tmp_path, waits) == []


def test_a_state_has_what_no_wait_excludes(mlchaos, tmp_path):
    """Without a wait, or with one that comes too late, a save may be incomplete."""
    assert incomplete(mlchaos, tmp_path, NO_WAITS) == [wait.__name__ for wait in NO_WAITS]


# -- remote calls ----------------------------------------------------------------------------------


def until_exists(path):
    """Wait for a file in the rank that writes it."""
    while not os.path.exists(path):
        time.sleep(POLL_SECONDS)


def call_and_wait(to, path, kept):
    """Wait for the result."""
    dist.rpc.rpc_sync(to, until_exists, (path,))


def call_and_wait_later(to, path, kept):
    """Wait for the future."""
    dist.rpc.rpc_async(to, until_exists, (path,)).wait()


def call_and_call_back(to, path, kept):
    """Let the result call a function."""
    done = threading.Event()
    kept.append(dist.rpc.rpc_async(to, until_exists, (path,)).then(lambda _: done.set()))
    done.wait()


def call_and_fetch(to, path, kept):
    """Leave the result there, and fetch it."""
    dist.rpc.remote(to, until_exists, (path,)).to_here()


def call_without_waiting(to, path, kept):
    """Wait after the write."""
    kept.append(dist.rpc.rpc_async(to, until_exists, (path,)))


def save_remotely(workdir, calls):
    """Rank 0 asks rank 1 if its part exists, and says that the save is complete."""
    folder, rank = Path(workdir), int(os.environ["RANK"])
    dist.rpc.init_rpc(f"worker{rank}", rank=rank, world_size=2)
    for call in calls:
        name, kept = call.__name__, []
        if rank:
            (folder / f"{name}.part1").touch()
        else:
            call("worker1", str(folder / f"{name}.part1"), kept)
            (folder / f"{name}.done").touch()
            for future in kept:
                future.wait()
    dist.rpc.shutdown()


@pytest.mark.slow
def test_no_state_has_what_a_remote_call_excludes(mlchaos, tmp_path):
    """A caller that waits for the result comes after the function."""
    sound = [call_and_wait, call_and_wait_later, call_and_call_back, call_and_fetch]
    calls = [call_without_waiting, *sound]
    assert incomplete(mlchaos, tmp_path, calls, save_remotely) == ["call_without_waiting"]

"""The sites where ranks find each other, and those of remote calls."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from torch.distributed import init_process_group  # noqa: E402

from pytest_mlchaos import chaos  # noqa: E402


def meet():
    """Meet by a name that was imported, and work together once."""
    init_process_group("gloo")
    t = torch.ones(1)
    dist.all_reduce(t)
    return float(t)


@chaos.rank_failure(site="rendezvous", rank=1, at=0, mode="raise")
def test_a_rank_fails_at_the_meeting(mlchaos):
    """The call is a visit under each name by which it was imported."""
    run = mlchaos.world(ranks=2, grace=0.5).run(meet)
    assert "rank 1 failed at rendezvous 0" in str(run.ranks[1].error)
    assert not run.ranks[0].finished


@chaos.rank_failure(site="rendezvous", rank=1, at=0, mode="raise", when="after")
def test_a_rank_fails_after_the_meeting(mlchaos):
    """The other rank has met it, and fails in the collective."""
    run = mlchaos.world(ranks=2).run(meet)
    run.assert_failed_fast(within=10)
    assert run._record.ranks[0].joined


def use_store():
    """Exchange a value, and return what the peer has written."""
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    rank = int(os.environ["RANK"])
    mine = dist.PrefixStore("mine", store)
    try:
        mine.set(f"value{rank}", str(rank))
    except RuntimeError:
        mine.set(f"value{rank}", "after an error")
    return mine.get(f"value{1 - rank}").decode()


@chaos.rank_failure(site="store.set", rank=1, at=0, mode="raise")
def test_a_write_to_the_store_fails(mlchaos):
    """The write can be repeated."""
    run = mlchaos.world(ranks=2).run(use_store)
    assert [rank.value for rank in run.ranks] == ["after an error", "0"]


@chaos.rank_failure(site="store.get", rank=0, at=0)
def test_a_rank_dies_before_it_reads(mlchaos):
    """Its own value is there, so its peer finishes."""
    run = mlchaos.world(ranks=2).run(use_store)
    assert run.ranks[0].exitcode == -9
    assert run.ranks[1].value == "0"


@chaos.rank_failure(site="store.get", rank=1, at=1)
def test_a_rank_dies_while_gloo_connects(mlchaos):
    """The C++ code of the group reads the address of its peer."""
    run = mlchaos.world(ranks=2, grace=0.5).run(meet)
    assert run.ranks[1].exitcode == -9
    assert not run._record.ranks[1].joined


def serve_calls():
    """Add by remote calls of both kinds, and repeat one that failed."""
    from torch.distributed import rpc

    rank = int(os.environ["RANK"])
    rpc.init_rpc(f"worker{rank}", rank=rank, world_size=2)
    found = None
    if rank == 0:
        found = []
        for call in (rpc.rpc_sync, rpc.rpc_async, rpc.remote):
            try:
                found.append(call("worker1", torch.add, args=(torch.ones(1), 1)))
            except RuntimeError as error:
                found.append(str(error))
        found = [
            one.wait()
            if hasattr(one, "wait")
            else one.to_here()
            if hasattr(one, "to_here")
            else one
            for one in found
        ]
        found = [one if isinstance(one, str) else float(one) for one in found]
    rpc.shutdown()
    return found


@chaos.rank_failure(site="rpc.call", rank=0, at=1, mode="raise")
def test_a_remote_call_fails(mlchaos):
    """Each kind is a visit, in the rank that calls."""
    run = mlchaos.world(ranks=2).run(serve_calls)
    assert run.ranks[0].value == [
        2.0,
        "rank 0 failed at rpc.call 1 (rpc_async, step 0) (injected by mlchaos)",
        2.0,
    ]

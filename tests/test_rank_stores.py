"""Test faults of the store where ranks meet, and of the meeting (needs torch)."""

from __future__ import annotations

import datetime
import os
import signal
import socket

import pytest
import torch
import torch.distributed as dist

from pytest_mlchaos import chaos
from pytest_mlchaos.engine.world_store import world_store
from pytest_mlchaos.errors import MlchaosError, NotRecovered, RankFailed, RankHung

pytest.importorskip("cloudpickle")


def train(folder, how, steps=5):
    """Train until a flag says stop, with a checkpoint at each step.

    ``how`` is where the flag is: in the store, read with or without care, or with the ranks.
    """
    dist.init_process_group("gloo")
    store = dist.distributed_c10d._get_default_store()
    store.set("go", "1")
    path = folder / f"rank{dist.get_rank()}.pt"
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    done = 0
    if path.exists():
        done, value = torch.load(path)
        weight.data.copy_(value)
    for step in range(done, steps):
        weight.grad = torch.full((2,), float(step + dist.get_rank()))
        dist.all_reduce(weight.grad)
        optimizer.step()
        torch.save((step + 1, weight.detach()), path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)
        dist.barrier()
        if not asked(store, how):
            break
    return weight.detach()


def asked(store, how):
    """Return True to go on."""
    if how == "ranks":
        flag = torch.ones(1)
        dist.broadcast(flag, 0)
        return bool(flag)
    try:
        return store.get("go") == b"1"
    except dist.DistError:
        if how == "careful":
            raise
        return False


@chaos.store_failure(mode="down", at=2)
def test_a_job_that_takes_a_lost_store_for_an_answer_is_found(mlchaos, tmp_path):
    """All ranks stop early and agree, so only the golden run shows it."""
    run = mlchaos.world(ranks=2, restarts=1, timeout=60).run(train, tmp_path, "careless")
    run.assert_in_sync()
    assert run.restarts == 0
    with pytest.raises(NotRecovered, match=r"store_failure.*struck train.step 2"):
        run.assert_recovered()


@chaos.store_failure(mode="down", at=2)
def test_a_job_that_ends_with_its_store_goes_on_after_the_restart(mlchaos, tmp_path):
    """The new world has a new store."""
    run = mlchaos.world(ranks=2, restarts=1, timeout=60).run(train, tmp_path, "careful")
    run.assert_recovered()
    assert run.restarts == 1


def loses_its_store(goes_on):
    """Let rank 1 end the process of the store, as the kernel may if memory runs out."""
    if os.environ["RANK"] == "1":
        os.kill(world_store.process, signal.SIGKILL)
        if not goes_on:
            raise ValueError("no store")


@chaos.settings(allow_quiet=True)
@chaos.store_failure(mode="down", at=10**9)
def test_a_store_that_dies_without_a_fault_is_no_verdict(mlchaos):
    """Ranks that fail are not blamed for it. Ranks that finish are judged as ever."""
    with pytest.raises(MlchaosError, match="the process of their store has ended"):
        mlchaos.world(ranks=2).run(loses_its_store, False)
    mlchaos.world(ranks=2).run(loses_its_store, True).assert_finished()


@pytest.mark.slow
@chaos.store_failure(mode="frozen", at=2)
def test_a_job_that_asks_a_frozen_store_hangs(mlchaos, tmp_path):
    """No request is answered, and the connection stays open."""
    run = mlchaos.world(ranks=2, timeout=20).run(train, tmp_path, "careful")
    with pytest.raises(RankHung, match=r"rank 0 .*asked"):
        run.assert_failed_fast()


@chaos.store_failure(mode="frozen", at=2)
def test_a_job_that_asks_its_ranks_needs_no_store(mlchaos, tmp_path):
    """Connections between ranks stay."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, tmp_path, "ranks")
    run.assert_recovered()
    run.assert_in_sync()
    assert [len(rank.faults) for rank in run.ranks] == [1, 0]


@chaos.store_failure(rank=1, at=1)
def test_the_visits_of_the_given_rank_are_counted(mlchaos, tmp_path):
    """Without one, those of rank 0."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, tmp_path, "ranks")
    assert [len(rank.faults) for rank in run.ranks] == [0, 1]


# -- the meeting -----------------------------------------------------------------------------------


def meet(seconds=60, tries=1):
    """Meet within a time limit, and try again after an error. Return the sum over the ranks."""
    for left in reversed(range(tries)):
        try:
            dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=seconds))
            break
        except dist.DistError:
            if not left:
                raise
    total = torch.ones(1)
    dist.all_reduce(total)
    return float(total)


@pytest.mark.parametrize("tries", [1, 2])
@chaos.rendezvous_timeout(rank=1, at=0)
def test_a_meeting_that_times_out_is_tried_again(mlchaos, tries):
    """A job that tries once ends there, and one that tries twice goes on."""
    run = mlchaos.world(ranks=2, timeout=60, grace=1).run(meet, 60, tries)
    if tries == 2:
        run.assert_recovered()
    else:
        with pytest.raises(RankFailed, match=r"rank 1: .* raised DistStoreError"):
            run.assert_finished()


@pytest.mark.slow
@chaos.rendezvous_timeout(rank=1, late="60s", at=0)
def test_a_rank_that_comes_too_late_meets_nobody(mlchaos):
    """The others have given up after their own time limit."""
    run = mlchaos.world(ranks=2, timeout=60, grace=1).run(meet, 3)
    with pytest.raises(RankFailed, match=r"rank 1: .*rendezvous_timeout.* struck rendezvous 0"):
        run.assert_finished()


@pytest.mark.slow
@chaos.rendezvous_timeout(late="1s", at=0)
@chaos.settings(max_trials=3, timeout=120)
def test_a_job_with_patience_waits_for_any_rank(mlchaos):
    """Each rank comes late in turn."""
    mlchaos.world(ranks=2, timeout=60).run(meet).assert_recovered()


@pytest.mark.slow
def test_a_store_of_the_ranks_own_is_refused(example):
    """A strike at a store that is not in use would be no strike."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    example.with_tests(f"""
        import os
        import torch
        import torch.distributed as dist

        def train():
            dist.init_process_group(
                "gloo", init_method="tcp://127.0.0.1:{port}", rank=int(os.environ["RANK"]), world_size=2
            )
            weight = torch.nn.Parameter(torch.zeros(2))
            weight.grad = torch.ones(2)
            torch.optim.SGD([weight], lr=0.1).step()

        @chaos.store_failure(at=0)
        def test_it(mlchaos):
            mlchaos.world(ranks=2, timeout=60).run(train)
    """).run(failed=1).has("PayloadMismatch", "Use the MASTER_ADDR and MASTER_PORT")

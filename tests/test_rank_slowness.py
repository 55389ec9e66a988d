"""Test faults of speed of ranks (needs torch)."""

from __future__ import annotations

import datetime
import itertools
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import chaos
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument, RankFailed
from pytest_mlchaos.testing import strike

pytest.importorskip("cloudpickle")


def train(limit, steps=3):
    """Train with DDP, in a group whose collectives may take ``limit`` seconds."""
    dist.init_process_group("gloo")
    dist.barrier()
    group = dist.new_group()
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1), process_group=group)
    # The limit counts from here. Ranks on a busy machine may need longer to meet.
    dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=limit), group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    took = []
    for _ in range(steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        model(torch.full((8, 4), float(dist.get_rank()))).square().mean().backward()
        optimizer.step()
        took.append(time.perf_counter() - began)
    return took


def trained(limit):
    """Return nothing that depends on the time."""
    train(limit)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
@chaos.straggler(rank=1, delay="60s", at=1)
@chaos.settings(timeout=120)
def test_a_time_limit_that_is_too_tight_for_a_straggler_is_found(mlchaos, ranks):
    """The other ranks give up in the middle of the gradients."""
    run = mlchaos.world(ranks=ranks, timeout=60, grace=1).run(trained, 3)
    with pytest.raises(RankFailed, match=r"rank 1: .*straggler.*struck train.step 1"):
        run.assert_finished()


@chaos.straggler(rank=1, delay="1.5s", at=1)
@chaos.settings(timeout=120)
def test_a_job_with_patience_waits_for_a_straggler(mlchaos):
    """It ends in the same state, and later."""
    run = mlchaos.world(ranks=2, timeout=60).run(trained, 50)
    run.assert_recovered()
    run.assert_in_sync()
    assert run.ranks[1].duration > 3.0  # steps 1 and 2


@chaos.straggler(rank=1, delay="300ms", at=1)
def test_a_straggler_is_slow_from_its_visit_on(mlchaos):
    """It strikes once, and each later step is slow."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, 50)
    assert all(seconds >= 0.3 for seconds in run.ranks[1].value[1:])
    assert [len(rank.faults) for rank in run.ranks] == [0, 1]


def watch():
    """Let rank 0 count how often rank 1 is seen stopped, while rank 1 computes."""
    dist.init_process_group("gloo")
    store = dist.distributed_c10d._get_default_store()
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()
    found = ""
    if dist.get_rank() == 1:
        store.set("pid", str(os.getpid()))
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
        store.set("over", "")
    else:
        stat = Path(f"/proc/{int(store.get('pid'))}/stat")
        while not store.check(["over"]):
            found += stat.read_text().rpartition(")")[2].split()[0]
            time.sleep(0.002)
    dist.barrier()
    return found.count("T") / max(1, len(found))


@chaos.straggler(rank=1, share=0.3, at=0)
def test_a_share_stops_the_whole_process_in_turn(mlchaos):
    """It is stopped for most of the time, it gets on, and no process stays."""
    run = mlchaos.world(ranks=2, timeout=60).run(watch)
    run.assert_finished()
    assert run.ranks[0].value > 0.3


def delays(fault, visits, seed=0):
    """Return the virtual seconds that each of some visits takes."""
    total = [
        strike(fault, [None] * number, seed=seed, attributes={"rank": 1, "world_size": 2}).duration
        for number in range(visits + 1)
    ]
    return [round(after - before, 3) for before, after in itertools.pairwise(total)]


def test_a_profile_is_drawn_for_each_visit_and_by_the_seed():
    """Each of its delays comes, the same ones with the same seed."""
    fault = create("straggler", rank=1, profile=["1s", 0, 3], at=2)
    drawn = delays(fault, 30)
    assert drawn[:2] == [0, 0]
    assert set(drawn[2:]) == {0.0, 1.0, 3.0}
    assert drawn == delays(fault, 30)
    assert drawn != delays(fault, 30, seed=1)


def test_every_visit_is_slow_once_with_every():
    """A rank that is slow already is not made slower."""
    assert delays(create("straggler", rank=1, delay=2, at=chaos.EVERY), 4) == [2.0] * 4


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"delay": 1, "share": 0.5}, "delay= and share= exclude each other"),
        ({"share": 1}, "share must be below 1"),
        ({"share": 0}, "share must be above 0"),
        ({"delay": 0}, "delay must be longer than 0 s"),
        ({"profile": [0, 0]}, "profile must have a delay above 0"),
        ({"profile": "1s"}, "profile must be a list of delays"),
    ],
)
def test_slowness_that_makes_no_sense_is_refused(keywords, message):
    """The parameter is named."""
    with pytest.raises(BadArgument, match=message):
        create("straggler", rank=1, at=0, **keywords)


@pytest.mark.slow
def test_which_rank_is_slow_is_searched(example):
    """A bare straggler tries each rank, and shrinks to the one that harms, at its first visit."""
    example.with_tests("""
        import time
        import torch
        import torch.distributed as dist

        def train():
            dist.init_process_group("gloo")
            weight = torch.nn.Parameter(torch.zeros(1))
            optimizer = torch.optim.SGD([weight], lr=0.1)
            weight.grad = torch.ones(1)
            began = time.monotonic()
            optimizer.step()
            if dist.get_rank() == 1 and time.monotonic() - began > 1:
                raise RuntimeError("too slow")

        @chaos.straggler(delay=1.1)
        @chaos.settings(max_trials=3, max_faults=1, timeout=100)
        def test_slow(mlchaos):
            mlchaos.world(ranks=2, timeout=60).run(train).assert_finished()
    """).run(failed=1).has("chaos.straggler(at=0, rank=1, delay=1.1)")


def watched(limit):
    """Train, and give up if a step takes too long."""
    if max(train(50)) > limit:
        raise TimeoutError("a step took too long")


@pytest.mark.parametrize("limit", [0.9, 50])
@chaos.slow_gradient_sync(delay="1s", at=1)
def test_a_slow_reduction_of_gradients_delays_all_ranks(mlchaos, limit):
    """A watchdog that is too tight ends the job, and one with patience does not."""
    run = mlchaos.world(ranks=2, timeout=60).run(watched, limit)
    assert [len(rank.faults) for rank in run.ranks] == [1, 1]
    assert run.ranks[0].faults[0].details["op"] == "all_reduce"
    if limit == 50:
        run.assert_recovered()
    else:
        with pytest.raises(RankFailed, match="TimeoutError"):
            run.assert_finished()

"""The collectives of libraries are seen: DDP, FSDP2, DTensor, DCP, objects, functional ones."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from pytest_mlchaos import chaos  # noqa: E402
from pytest_mlchaos.engine.controller import current  # noqa: E402


def ddp(folder):
    """One step of DDP."""
    from torch.nn.parallel import DistributedDataParallel

    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    model(torch.ones(2, 4)).sum().backward()


def sharded_model():
    """A model whose parameters FSDP2 shards over gloo."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def fsdp(folder):
    """Two steps of FSDP2."""
    model = sharded_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def dtensor(folder):
    """A sharded tensor, gathered."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    distribute_tensor(torch.arange(8.0), mesh, [Shard(0)]).full_tensor()


def dcp(folder):
    """A checkpoint of all ranks."""
    import torch.distributed.checkpoint as checkpoint

    checkpoint.save({"x": torch.ones(2)}, checkpoint_id=folder / "saved")


def objects(folder):
    """Objects from and to all ranks."""
    found = [None, None]
    dist.all_gather_object(found, {"rank": dist.get_rank()})
    dist.broadcast_object_list(found, 0)


def functional(folder):
    """A collective that returns its result."""
    import torch.distributed._functional_collectives as functional

    found = functional.all_reduce(torch.ones(2), "sum", dist.group.WORLD)
    assert found.tolist() == [2, 2]


def barriers(folder):
    """Both kinds of barriers, and a group of one rank."""
    dist.barrier()
    dist.monitored_barrier()
    alone = dist.new_group([1])
    if dist.get_rank() == 1:
        dist.all_reduce(torch.ones(1), group=alone)


JOBS = {
    "ddp": (ddp, {"all_reduce", "broadcast", "all_gather"}),
    "fsdp": (fsdp, {"all_gather", "reduce_scatter"}),
    "dtensor": (dtensor, {"all_gather", "scatter"}),
    "dcp": (dcp, {"gather", "scatter", "all_gather", "broadcast"}),
    "objects": (objects, {"all_gather", "broadcast"}),
    "functional": (functional, {"all_reduce"}),
    "barriers": (barriers, {"barrier", "monitored_barrier"}),
}


def run_job(name, folder):
    """Run one of the jobs in a group of its own."""
    dist.init_process_group("gloo")
    JOBS[name][0](folder)
    dist.destroy_process_group()


def of_world(log):
    """The operations of the group of all ranks."""
    return [(record.sequence, record.op) for record in log.records if len(record.group) > 1]


@pytest.mark.parametrize("name", JOBS)
def test_the_collectives_of_a_job_are_seen(mlchaos, tmp_path, name):
    """In both ranks, in the same order."""
    current().records_collectives = True
    run = mlchaos.world(ranks=2).run(run_job, name, tmp_path)
    run.assert_finished()
    first, second = (rank.collectives for rank in run._record.ranks)
    assert of_world(first) == of_world(second)
    assert JOBS[name][1] <= {op for _, op in of_world(first)}
    if name == "barriers":
        assert [record.group for record in second.records] == [(0, 1), (0, 1), (1,)]


@chaos.rank_failure(site="collective.reduce_scatter", rank=1, at=1)
def test_a_rank_of_fsdp_dies_in_a_collective(mlchaos, tmp_path):
    """Between the two layers of the first backward pass."""
    run = mlchaos.world(ranks=2).run(run_job, "fsdp", tmp_path)
    run.assert_failed_fast(within=10)
    assert run._record.ranks[1].ended == (
        "was killed by SIGKILL at collective.reduce_scatter 1 (step 0)"
    )


@chaos.rank_failure(site="collective.monitored_barrier", rank=1, at=0, mode="raise", when="during")
def test_a_monitored_barrier_has_no_middle(mlchaos, tmp_path):
    """The rank fails right before it, and its peer names the rank that is missing."""
    run = mlchaos.world(ranks=2, grace=1).run(run_job, "barriers", tmp_path)
    assert "during collective.monitored_barrier 0" in str(run.ranks[1].error)
    assert not run.ranks[0].finished


def three_ranks():
    """Some collectives of three ranks, and of two of them."""
    dist.init_process_group("gloo")
    pair = dist.new_group([1, 2])
    for _ in range(2):
        dist.all_reduce(torch.ones(1))
        if dist.get_rank():
            dist.broadcast(torch.ones(1), 2, group=pair)
    dist.barrier()
    return os.getpid()


@chaos.rank_failure(site="collective.broadcast", rank=2, at=1, when="after")
def test_a_rank_dies_in_a_group_of_some_ranks(mlchaos):
    """Visits count in each rank, and roots are numbers of the world."""
    current().records_collectives = True
    run = mlchaos.world(ranks=3).run(three_ranks)
    run.assert_failed_fast(within=10)
    assert run._record.ranks[2].ended.endswith("after collective.broadcast 1 (step 0)")
    log = run._record.ranks[1].collectives.records
    assert [(r.group, r.sequence, r.op, r.peer) for r in log][:4] == [
        ((0, 1, 2), 0, "all_reduce", None),
        ((1, 2), 0, "broadcast", 2),
        ((0, 1, 2), 1, "all_reduce", None),
        ((1, 2), 1, "broadcast", 2),
    ]

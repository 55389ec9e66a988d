"""Test if ranks that part are found: at which step, in which tensor, and no sound job."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import OutOfSync

pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")


def model_of(rank):
    """A model with running statistics, which differ between ranks, in a process group."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.2)
    return torch.nn.Sequential(*layers, torch.nn.Linear(3, 1))


def train(
    on_fault=lambda step, model, optimizer: None, after=lambda step, model, optimizer: None, steps=5
):
    """A DDP job. What it does after an error in a step, and after each step, are functions."""
    model = model_of(0)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rank = dist.get_rank()
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.linspace(-1, 1, 32).reshape(8, 4) * (1 + step + rank)
        ddp(x).square().mean().backward()
        try:
            optimizer.step()
        except RuntimeError:
            on_fault(step, model, optimizer)
            optimizer.step()
        after(step, model, optimizer)


error_in_step = chaos.rank_failure(rank=1, at=2, mode="raise")


def changes_weights(step, model, optimizer):
    """Rank 1 goes on with a wrong weight."""
    with torch.no_grad():
        model[3].weight += 1


def repairs(step, model, optimizer):
    """Send rank 0's parameters to all after step 3."""
    if step == 3:
        for parameter in model.parameters():
            dist.broadcast(parameter.data, 0)


@error_in_step
@pytest.mark.parametrize("ranks", [2, 3])
def test_running_statistics_and_generators_are_no_difference(mlchaos, ranks):
    """Ranks of a sound job have their own batches, dropout masks and statistics."""
    run = mlchaos.world(ranks=ranks).run(train)
    run.assert_in_sync()


@error_in_step
def test_ranks_that_part_for_a_while_are_found(mlchaos):
    """The step and the tensor are named. A job that repairs itself is judged by its end."""

    def subject():
        train(changes_weights, repairs, steps=6)

    run = mlchaos.world(ranks=2).run(subject)
    words = r"rank 1 and rank 0 were in different states after step 2\n.*parameters, 3\.weight"
    with pytest.raises(OutOfSync, match=words):
        run.assert_in_sync()
    run.assert_in_sync(atol=1e3)  # a tolerance judges the end


@error_in_step
def test_a_job_that_repairs_itself_may_pass(mlchaos):
    """After the repair, rank 1 must have rank 0's momentum too."""

    def on_fault(step, model, optimizer):
        changes_weights(step, model, optimizer)

    def repair(step, model, optimizer):
        if step == 2:
            for parameter in model.parameters():
                dist.broadcast(parameter.data, 0)

    run = mlchaos.world(ranks=2).run(lambda: train(on_fault, repair))
    run.assert_in_sync(every_step=False)


@error_in_step
def test_the_first_step_is_named_at_the_end_too(mlchaos):
    """Ranks that end in different states parted at a step."""
    run = mlchaos.world(ranks=2).run(lambda: train(changes_weights))
    words = r"ended in different states\n.*\n  first after step 2: parameters, 3\.weight"
    with pytest.raises(OutOfSync, match=words):
        run.assert_in_sync()


@error_in_step
def test_momentum_that_differs_is_found(mlchaos):
    """The parameters are still equal after the last step."""

    def on_fault(step, model, optimizer):
        model.was_struck = True

    def after(step, model, optimizer):
        if hasattr(model, "was_struck") and step == 4:
            optimizer.state[model[0].weight]["momentum_buffer"] += 1

    run = mlchaos.world(ranks=2).run(lambda: train(on_fault, after))
    with pytest.raises(
        OutOfSync, match=r"at the end\n.*optimizer state, momentum_buffer of 0\.weight"
    ):
        run.assert_in_sync()


@error_in_step
def test_buffers_that_are_equal_without_faults_are_judged(mlchaos):
    """The number of batches differs at the end."""

    def on_fault(step, model, optimizer):
        model[1].num_batches_tracked += 1

    run = mlchaos.world(ranks=2).run(lambda: train(on_fault, steps=3))
    with pytest.raises(OutOfSync, match=r"buffers, 1\.num_batches_tracked"):
        run.assert_in_sync()


@error_in_step
def test_generators_are_judged_on_request(mlchaos):
    """Rank 1 draws once more. That harms only jobs whose ranks must draw alike."""

    def on_fault(step, model, optimizer):
        torch.rand(1)

    run = mlchaos.world(ranks=2).run(lambda: train(on_fault))
    run.assert_in_sync()
    with pytest.raises(OutOfSync, match=r"after step 2\n.*generator, rng\.torch"):
        run.assert_in_sync(generators=True)


@error_in_step
def test_workers_that_average_now_and_then_are_in_sync(mlchaos):
    """Local SGD differs between its averages, in the golden run too."""

    def local():
        dist.init_process_group("gloo")
        weight = torch.nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for step in range(4):
            (weight - dist.get_rank()).square().sum().backward()
            try:
                optimizer.step()
            except RuntimeError:
                optimizer.step()
            optimizer.zero_grad()
            if step % 2:
                dist.all_reduce(weight.data)
                weight.data /= 2

    run = mlchaos.world(ranks=2).run(local)
    run.assert_in_sync()


def fully_sharded(steps=3, wrong=False):
    """FSDP2, with a parameter that is too small for two shards."""
    from torch.distributed.fsdp import fully_shard

    model = model_of(0)
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.linspace(-1, 1, 32).reshape(8, 4) * (1 + step + dist.get_rank())
        model(x).square().mean().backward()
        try:
            optimizer.step()
        except RuntimeError:
            optimizer.step()


@error_in_step
def test_shards_are_not_compared_with_other_shards(mlchaos):
    """Each rank of FSDP2 holds its own pieces."""
    run = mlchaos.world(ranks=2).run(fully_sharded)
    run.assert_in_sync()
    run.assert_recovered()

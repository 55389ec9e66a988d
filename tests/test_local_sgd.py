"""Training that averages seldom, in worlds: Local SGD, DiLoCo and torchft (needs torch)."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import NotRecovered, OutOfSync

pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")

ROUNDS, LOCAL_STEPS = 4, 2


def batch(rank, step):
    """The data of a rank at a step."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    x = torch.randn(8, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [3.0]])


def local_steps(model, optimizer, rank, number):
    """Train alone for some steps."""
    for step in range(number * LOCAL_STEPS, (number + 1) * LOCAL_STEPS):
        x, y = batch(rank, step)
        (model(x) - y).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def local_sgd(averaged_rounds=ROUNDS):
    """Average the parameters after some local steps. Unsound if the last ones are forgotten."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model, rank = torch.nn.Linear(3, 1), dist.get_rank()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for number in range(ROUNDS):
        local_steps(model, optimizer, rank, number)
        for parameter in model.parameters() if number < averaged_rounds else ():
            dist.all_reduce(parameter.data)
            parameter.data /= dist.get_world_size()
    dist.destroy_process_group()
    return model.state_dict()


@pytest.mark.slow
@chaos.straggler(rank=1, delay=0.02, at=chaos.EVERY)
def test_a_straggler_leaves_local_sgd_in_sync(mlchaos):
    """Ranks wait for each other at each average, and end in the golden state."""
    run = mlchaos.world(ranks=2).run(local_sgd)
    run.assert_finished()
    run.assert_in_sync(values=True)
    run.assert_recovered()


@chaos.straggler(rank=1, delay=0.02, at=chaos.EVERY)
def test_local_sgd_that_forgets_the_last_average_is_out_of_sync(mlchaos):
    """Each rank returns a model of its own."""
    run = mlchaos.world(ranks=2).run(local_sgd, ROUNDS - 1)
    with pytest.raises(OutOfSync):
        run.assert_in_sync(values=True)


@chaos.rank_failure(rank=1, mode="kill", at=5)
def test_local_sgd_ends_when_a_rank_dies(mlchaos):
    """The other one meets the death at the next average."""
    run = mlchaos.world(ranks=2).run(local_sgd)
    run.assert_failed_fast(within=20)
    assert run.ranks[1].exitcode == -signal.SIGKILL
    assert run.ranks[0].error is not None


def diloco(workdir, saves_outer):
    """Move by an outer optimizer with momentum, and resume. Unsound without its state."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model, rank = torch.nn.Linear(3, 1), dist.get_rank()
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    globals_ = [parameter.detach().clone() for parameter in model.parameters()]
    outer = torch.optim.SGD(globals_, lr=0.7, momentum=0.9, nesterov=True)
    checkpoint, first = workdir / f"rank{rank}.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        first = saved["rounds"]
        for parameter, value in zip(globals_, saved["globals"], strict=True):
            parameter.copy_(value)
        if saves_outer:
            outer.load_state_dict(saved["outer"])
    for number in range(first, ROUNDS):
        _copy(globals_, model)
        local_steps(model, inner, rank, number)
        for parameter, start in zip(model.parameters(), globals_, strict=True):
            start.grad = start - parameter.detach()
            dist.all_reduce(start.grad)
            start.grad /= dist.get_world_size()
        outer.step()
        state = {"globals": globals_, "outer": outer.state_dict(), "rounds": number + 1}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        dist.barrier()
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        dist.barrier()
    _copy(globals_, model)
    dist.destroy_process_group()
    return [parameter.detach() for parameter in globals_]


def _copy(values, model):
    """Load the global parameters into a rank's own model."""
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


@pytest.mark.parametrize("saves_outer", [True, False])
@chaos.rank_failure(rank=0, mode="kill", at=7)
def test_diloco_resumes_with_its_outer_optimizer(mlchaos, tmp_path, saves_outer):
    """A lost momentum of the outer optimizer leaves the ranks in sync and wrong."""
    run = mlchaos.world(ranks=2, restarts=1).run(diloco, tmp_path, saves_outer)
    run.assert_finished()
    run.assert_in_sync(values=True)
    if saves_outer:
        run.assert_recovered()
        return
    with pytest.raises(NotRecovered):
        run.assert_recovered()


def fault_tolerant(address, steps=6):
    """Average by a manager of torchft, which goes on without a dead replica."""
    import os

    from torchft import Manager, ProcessGroupGloo
    from torchft.local_sgd import LocalSGD

    torch.manual_seed(0)
    rank, limit = int(os.environ["RANK"]), timedelta(seconds=20)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=limit),
        min_replica_size=1,
        load_state_dict=model.load_state_dict,
        state_dict=model.state_dict,
        replica_id=f"replica{rank}",
        store_addr="localhost",
        store_port=store.port,
        rank=0,
        world_size=1,
        lighthouse_addr=address,
        use_async_quorum=False,
        timeout=limit,
        quorum_timeout=limit,
        connect_timeout=limit,
    )
    try:
        with LocalSGD(manager, model, optimizer, sync_every=LOCAL_STEPS):
            for step in range(steps):
                x, y = batch(rank, step)
                (model(x) - y).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return manager.current_step()
    finally:
        manager.shutdown(wait=False)


@pytest.mark.slow
@chaos.rank_failure(rank=1, mode="kill", at=3)
def test_a_replica_of_torchft_goes_on_alone(mlchaos):
    """Its manager leaves the dead replica out of the next quorum."""
    coordination = pytest.importorskip("torchft.coordination")
    lighthouse = coordination.LighthouseServer(
        bind="[::]:0", min_replicas=1, join_timeout_ms=1000, heartbeat_timeout_ms=1000
    )
    try:
        run = mlchaos.world(ranks=2, timeout=120, grace=60).run(
            fault_tolerant, lighthouse.address()
        )
    finally:
        lighthouse.shutdown()
    assert run.ranks[1].exitcode == -signal.SIGKILL
    assert run.ranks[0].error is None
    assert run.ranks[0].value >= 2

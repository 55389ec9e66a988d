"""Worlds whose ranks use a CUDA device; skipped where there is none, or too few. (needs torch)"""

from __future__ import annotations

import datetime
import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import BadArgument

pytest.importorskip("cloudpickle")

TIMEOUT = 120
"""Seconds for a world. Each rank makes a CUDA context."""


def two_devices():
    """Skip a test that needs a device for each of two ranks."""
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs 2 CUDA devices, and there are {torch.cuda.device_count()}")


def train(steps=4, device=None):
    """Train by DDP, on the device of this rank, and return its weights on the CPU."""
    dist.init_process_group()
    rank = dist.get_rank()
    if device is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        model(torch.full((8, 4), float(step + rank), device=device)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()
    return {name: value.cpu() for name, value in model.module.state_dict().items()}


def train_on_cpu():
    """Train by DDP without a device."""
    return train(device=torch.device("cpu"))


@chaos.gpu_lost(rank=1, at=1)
def test_a_rank_whose_device_is_lost_ends_alone(mlchaos):
    """Without a device, all that belongs to the model fails in this rank. The other one ends, too."""
    run = mlchaos.world(timeout=TIMEOUT, grace=60).run(train_on_cpu)
    run.assert_failed_fast(within=60)
    assert not run.ranks[0].faults
    assert type(run.ranks[1].error).__name__ in ("AcceleratorError", "RuntimeError")
    assert "rank 1: 1 step, then raised" in run.story()


def test_the_refusal_says_what_nccl_needs(mlchaos, monkeypatch):
    """NCCL has one rank per device. The error says so, and names the way on."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    with pytest.raises(
        BadArgument, match=r"one CUDA device per rank \(2\), but there are 1\. NCCL refuses two"
    ):
        mlchaos.world(ranks=2, backend="nccl")


def test_a_torch_without_nccl_is_named(mlchaos, monkeypatch):
    """More devices would not help."""
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(BadArgument, match=r"needs NCCL, which torch .* is built without"):
        mlchaos.world(ranks=1, backend="nccl")


@pytest.mark.gpu
@chaos.settings(allow_quiet=True)
def test_two_ranks_share_a_device_over_gloo(mlchaos):
    """Gloo takes CUDA tensors, so one device is enough."""
    run = mlchaos.world(timeout=TIMEOUT).run(train)
    run.assert_finished()
    run.assert_in_sync()


@pytest.mark.gpu
@chaos.rank_failure(rank=1, at=2)
def test_a_restarted_world_gets_its_devices_again(mlchaos):
    """The context of a killed rank does not stay."""
    run = mlchaos.world(timeout=TIMEOUT, restarts=1).run(train)
    run.assert_recovered()


@pytest.mark.gpu
@chaos.gpu_lost(rank=1, at=1)
def test_a_real_device_is_lost_in_one_rank(mlchaos):
    """The other rank, on the same device or on a different one, meets no fault."""
    run = mlchaos.world(timeout=TIMEOUT, grace=60).run(train)
    run.assert_failed_fast(within=60)
    assert not run.ranks[0].faults
    assert "AcceleratorError" in run.story() or "RuntimeError" in run.story()


@pytest.mark.gpu
@chaos.rank_failure(site="collective.all_reduce", mode="raise", at=1, rank=0)
def test_collectives_of_nccl_are_visits(mlchaos):
    """A world of one rank needs one device."""

    def subject():
        dist.init_process_group()
        assert dist.get_backend() == "nccl"
        for _ in range(3):
            dist.all_reduce(torch.ones(2, device="cuda"))

    run = mlchaos.world(ranks=1, backend="nccl", timeout=TIMEOUT).run(subject)
    assert [strike.visit for strike in run.faults] == [1]
    assert isinstance(run.ranks[0].error, RuntimeError)


@pytest.mark.gpu
def test_two_ranks_train_over_nccl(mlchaos):
    """Each on its own device, in step."""
    two_devices()
    run = mlchaos.world(backend="nccl", timeout=TIMEOUT).run(train)
    run.assert_finished()
    run.assert_in_sync()


@pytest.mark.gpu
def test_the_watchdog_of_nccl_is_told_in_words(mlchaos, monkeypatch):
    """It aborts the process that waits. The message says so, instead of a bare signal."""
    two_devices()
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")

    def subject():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(timeout=datetime.timedelta(seconds=5))
        dist.all_reduce(torch.ones(1, device="cuda"))
        if dist.get_rank() == 1:
            time.sleep(600)
        dist.all_reduce(torch.ones(1, device="cuda"))
        torch.cuda.synchronize()

    run = mlchaos.world(backend="nccl", timeout=TIMEOUT, grace=5).run(subject)
    assert run.ranks[0].exitcode == -signal.SIGABRT
    assert "was killed by SIGABRT" in run.story()
    assert "Watchdog caught collective operation timeout" in run.story()

"""On a real CUDA device; skipped where there is none. (needs torch)"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine import randomness
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial

pytestmark = pytest.mark.gpu
faults.load()
sites.load()


def armed(*declared):
    """A trial with these faults."""
    return trial(Schedule(declared), Patches())


def left_behind(model):
    """Which gradients are written."""
    return [p.grad is not None for p in model.parameters()]


def test_the_injected_oom_leaves_what_a_real_one_leaves():
    """Cap the allocator until backward really fails, and compare which gradients are written with injected failures."""
    torch.manual_seed(0)
    layers = nn.Sequential(*[nn.Linear(2048, 2048, bias=False) for _ in range(6)]).cuda()
    x = torch.ones(4096, 2048, device="cuda")

    def backward():
        layers.zero_grad(set_to_none=True)
        layers(x).sum().backward()

    backward()
    layers.zero_grad(set_to_none=True)
    loss = layers(x).sum()
    torch.cuda.empty_cache()
    room = 3 * 2048 * 2048 * 4 + 3 * x.numel() * 4
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError) as real:
            loss.backward()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    left = left_behind(layers)
    assert 0 < sum(left) < len(left), "the cap should bite in the middle"
    del loss
    torch.cuda.empty_cache()
    injected = []
    for op in range(60):
        with armed(create("gpu_oom", at=0, op=op)) as controller:
            try:
                backward()
            except torch.OutOfMemoryError as error:
                injected.append(left_behind(layers))
                assert type(error) is real.type
                assert str(error).partition("Tried")[0] == str(real.value).partition("Tried")[0]
        if not controller.journal:
            break
    assert left in injected


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
@pytest.mark.parametrize("foreach", [False, True])
def test_each_phase_fails_on_the_device_and_the_loop_goes_on(phase, foreach):
    """In the threads of the device, too; afterwards everything works."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=foreach)

    def step():
        optimizer.zero_grad()
        model(torch.ones(4, 8, device="cuda")).sum().backward()
        optimizer.step()

    with armed(create("gpu_oom", phase=phase, at=1, op=1)) as controller:
        step()
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            step()
        assert torch._C._len_torch_dispatch_stack() == 0
        step()
    assert len(controller.journal) == 1


@pytest.mark.parametrize("kind", ["nan", "noise", "scale", "shuffle_labels"])
def test_batches_are_corrupted_on_their_device(kind):
    """The same bits as on the CPU."""
    batch = {"x": torch.randn(16, 4), "y": torch.arange(16)}

    def corrupted(payload):
        with Controller(Schedule((create("corrupt_batch", kind=kind, fraction=0.5, at=0),), 3)) as controller:
            return controller.visit("data.batch", payload)

    on_device = corrupted({name: value.cuda() for name, value in batch.items()})
    for name, value in corrupted(batch).items():
        assert on_device[name].is_cuda
        torch.testing.assert_close(on_device[name].cpu(), value, equal_nan=True)


def test_random_numbers_of_the_device_are_kept_and_restored():
    """A trial leaves the device's generator as it was."""
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    with armed():
        torch.randn(3, device="cuda")
        first = torch.randn(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    with armed():
        torch.randn(3, device="cuda")
        assert torch.equal(torch.randn(3, device="cuda"), first)
    assert "cuda" in randomness.captured()

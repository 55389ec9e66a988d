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
    """Cap the allocator until backward really fails, and compare which gradients are written with
    injected failures.
    """
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
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + room) / torch.cuda.get_device_properties(0).total_memory
    )
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
        with Controller(
            Schedule((create("corrupt_batch", kind=kind, fraction=0.5, at=0),), 3)
        ) as controller:
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
    assert "cuda" in randomness.capture_state()


def test_a_budget_caps_the_real_allocator():
    """The error is torch's own; the golden run and what comes afterwards have all of the memory."""
    pytest.importorskip("pynvml")
    with armed(create("gpu_oom", budget="64MiB", times=1)) as controller:
        kept = torch.empty(16 * 2**20, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory") as caught:
            torch.empty(128 * 2**20, dtype=torch.uint8, device="cuda")
        assert controller.is_injected(caught.value)
        assert "(injected by mlchaos)" not in str(caught.value)
        torch.empty(128 * 2**20, dtype=torch.uint8, device="cuda")
        del kept
    torch.empty(128 * 2**20, dtype=torch.uint8, device="cuda")
    assert len(controller.journal) == 1


def test_memory_that_somebody_else_takes_is_really_allocated():
    """It is freed at the end."""
    pytest.importorskip("pynvml")
    model = nn.Linear(4, 1).cuda()
    before = torch.cuda.mem_get_info()[0]
    with armed(create("gpu_memory_pressure", free="256MiB", at=0)):
        model(torch.ones(1, 4, device="cuda"))
        assert torch.cuda.mem_get_info()[0] < 300 * 2**20
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2**30, dtype=torch.uint8, device="cuda")
    assert torch.cuda.mem_get_info()[0] > before - 2**28


@pytest.mark.parametrize("kind", ["fallen_off_bus", "ecc", "illegal_access", "device_assert"])
def test_a_lost_device_fails_and_the_host_does_not(kind):
    """Whatever touches the device, until the process ends; tensors of the host are not concerned."""
    model = nn.Linear(4, 1).cuda()
    with armed(create("gpu_lost", kind=kind, phase="forward", at=0)):
        for attempt in (
            lambda: model(torch.ones(1, 4, device="cuda")),
            lambda: model.weight.cpu(),
            lambda: torch.ones(1, device="cuda"),
            lambda: torch.ones(1).to("cuda"),
            torch.cuda.synchronize,
        ):
            with pytest.raises(torch.AcceleratorError, match="CUDA error: "):
                attempt()
        nn.Linear(4, 1)(torch.ones(1, 4)).sum().backward()
    assert model(torch.ones(1, 4, device="cuda")).shape == (1, 1)

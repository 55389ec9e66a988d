"""The faults of models and batches on a real CUDA device; skipped where there is none. (needs
torch)
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_mlchaos import batches, faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial

pytestmark = pytest.mark.gpu
faults.load()
sites.load()


def armed(*declared, seed=0):
    """A trial with these faults."""
    return trial(Schedule(declared, seed), Patches())


def model():
    """Two layers on the device, which give and get no zeros."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).cuda()


def gradients(made, x):
    """Return the gradients of one pass."""
    made.zero_grad(set_to_none=True)
    made(x).square().sum().backward()
    return [parameter.grad.clone() for parameter in made.parameters()]


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16", "float64"])
def test_weights_flip_on_the_device_and_are_undone_there(kind):
    """Bit by bit, in any type."""
    made = model().to(getattr(torch, kind))
    x = torch.ones(3, 4, device="cuda", dtype=getattr(torch, kind))
    before = [parameter.detach().clone() for parameter in made.parameters()]
    with armed(create("bit_flip", count=9, at=0)):
        made(x)
        assert not all(map(torch.equal, made.parameters(), before))
    assert all(map(torch.equal, made.parameters(), before))


def test_gradients_are_hit_though_the_engine_runs_them_in_a_thread_of_its_own():
    """One bit, all of them NaN, or all too large; the strike is recorded."""
    made, x = model(), torch.ones(3, 4, device="cuda")
    clean = gradients(made, x)
    for name, keywords, hit in (
        ("bit_flip", {"where": "gradients"}, 1),
        ("nan_gradient", {}, 4),
        ("exploding_gradient", {}, 4),
    ):
        with armed(create(name, at=0, **keywords)) as controller:
            found = gradients(made, x)
        assert sum(not torch.equal(a, b) for a, b in zip(found, clean, strict=True)) == hit
        assert len(controller.journal) == 1
    assert all(map(torch.equal, gradients(made, x), clean))


def test_activations_and_layers_are_hit_for_one_call():
    """And the next is clean."""
    made, x = model(), torch.ones(3, 4, device="cuda")
    clean = made(x)
    for fault in (
        create("bit_flip", where="activations", layer="2", bit=30, at=0),
        create("quantization_error", bits=3, at=0),
        create("stuck_neuron", layer="2", index=1, value=7.0, at=0),
    ):
        with armed(fault):
            assert not torch.equal(made(x), clean)
        assert torch.equal(made(x), clean)


def test_an_optimizers_state_flips_on_the_device():
    """Adam's averages."""
    made, x = model(), torch.ones(3, 4, device="cuda")
    optimizer = torch.optim.Adam(made.parameters())
    with armed(create("bit_flip", where="optimizer", at=1)) as controller:
        for _ in range(2):
            gradients(made, x)
            optimizer.step()
    assert len(controller.journal) == 1


def test_batches_on_the_device_stay_there():
    """Copies are made where the original is."""
    for name in (
        "corrupt_batch",
        "short_batch",
        "label_noise",
        "class_imbalance",
        "distribution_shift",
        "wrong_shape",
        "duplicate_batch",
    ):
        batch = (
            torch.arange(18.0, device="cuda").reshape(6, 3),
            torch.arange(6, device="cuda") % 3,
        )
        with armed(create(name, at=0)):
            found = list(batches([batch]))
        assert all(field.is_cuda for pair in found for field in pair), name
        assert torch.equal(batch[0], torch.arange(18.0, device="cuda").reshape(6, 3))

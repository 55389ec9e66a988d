"""``bit_flip``: exactly the bits asked for, on any type, where they are asked for, and undone bit
by bit. (needs torch)
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from pytest_mlchaos import chaos, faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, PayloadMismatch

faults.load()
sites.load()

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
TYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
    "int16",
    "int32",
    "int64",
    "uint16",
]


class Holder(nn.Module):
    """A module that only holds tensors."""

    def __init__(self, *tensors):
        super().__init__()
        for number, tensor in enumerate(tensors):
            setattr(
                self,
                f"t{number}",
                nn.Parameter(
                    tensor, requires_grad=tensor.is_floating_point() and tensor.element_size() > 1
                ),
            )

    def forward(self):
        return None


def armed(*declared, seed=0):
    """A trial with these faults."""
    return trial(Schedule(declared, seed), Patches())


def bits(tensor):
    """A tensor as integers."""
    return tensor.detach().contiguous().view(INTEGERS[tensor.element_size()]).clone()


def flipped(before, after):
    """The bits in which two tensors differ: (element, bit)."""
    differ = (before ^ after).flatten().tolist()
    return [
        (place, bit)
        for place, value in enumerate(differ)
        for bit in range(8 * before.element_size())
        if value >> bit & 1
    ]


def small():
    """A model of two layers and running statistics."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("kind", TYPES)
def test_one_bit_of_one_element_whatever_the_type(kind):
    """And each bit of the type can be asked for, the sign too; afterwards all is as before."""
    tensor = torch.arange(1, 7).to(getattr(torch, kind)).reshape(2, 3)
    model = Holder(tensor)
    before = bits(model.t0)
    for bit in (0, 1, 8 * tensor.element_size() - 2, 8 * tensor.element_size() - 1):
        with armed(create("bit_flip", bit=bit, at=0), seed=bit) as controller:
            model()
            assert [found for _, found in flipped(before, bits(model.t0))] == [bit]
        assert torch.equal(bits(model.t0), before)
        assert controller.journal[0].details["flipped"][0].startswith(f"bit {bit} of t0[")


def test_so_many_distinct_bits_anywhere():
    """Counted exactly; each element is equally likely, whatever tensor it is in."""
    model = Holder(torch.ones(10), torch.ones(30), torch.ones(3, 20))
    before = [bits(tensor) for tensor in model.parameters()]
    with armed(create("bit_flip", count=1000, at=0)):
        model()
        counts = [
            len(flipped(old, bits(new)))
            for old, new in zip(before, model.parameters(), strict=True)
        ]
    assert sum(counts) == 1000
    assert counts == pytest.approx([100, 300, 600], abs=60)
    with armed(create("bit_flip", count=100, bit=3, at=0)):
        model()
        assert (
            sum(
                len(flipped(old, bits(new)))
                for old, new in zip(before, model.parameters(), strict=True)
            )
            == 100
        )


def test_the_same_seed_flips_the_same_bits():
    """In another model of the same form, too; another seed flips others."""

    def run(seed):
        model = small()
        with armed(create("bit_flip", count=5, at=1), seed=seed) as controller:
            model(torch.ones(2, 4))
            model(torch.ones(2, 4))
        return controller.journal[0].details

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_weights_stay_flipped_until_the_process_ends():
    """The attempt under ``mlchaos.run``, however it ends, and the test otherwise."""
    model = small().eval()
    before = [bits(tensor) for tensor in model.parameters()]
    clean = model(torch.ones(2, 4))
    with armed(create("bit_flip", bit=30, at=1)) as controller:
        with pytest.raises(RuntimeError), controller.attempt():
            assert torch.equal(model(torch.ones(2, 4)), clean)
            assert not torch.equal(model(torch.ones(2, 4)), clean)
            assert not torch.equal(model(torch.ones(2, 4)), clean)
            raise RuntimeError
        assert all(
            torch.equal(bits(new), old) for new, old in zip(model.parameters(), before, strict=True)
        )


def test_flips_that_meet_are_undone_in_order():
    """The same bit twice, over several strikes."""
    model = Holder(torch.ones(1))
    with armed(create("bit_flip", bit=5, at=[0, 1, 2]), create("bit_flip", bit=6, at=EVERY)):
        for _ in range(4):
            model()
    assert torch.equal(model.t0, torch.ones(1))


def test_what_training_has_overwritten_is_left_as_it_is():
    """The undo gives back only elements that still hold what the flip made of them."""
    model = Holder(torch.ones(1))
    with armed(create("bit_flip", bit=0, at=0)):
        model()
        with torch.no_grad():
            model.t0.fill_(5.0)
    assert model.t0.item() == 5.0


def test_a_model_that_moved_is_undone_where_it_is_now():
    """New memory under the same parameter."""
    model = Holder(torch.ones(3))
    with armed(create("bit_flip", bit=30, at=0)):
        model()
        model.t0.data = model.t0.data.clone()
    assert torch.equal(model.t0, torch.ones(3))


def test_layers_are_named_by_patterns():
    """A module, a tensor, a pattern; a compiled or wrapped model by the names inside."""
    model = small()
    for layer, hit in (
        ("3", {"3.weight", "3.bias"}),
        ("0.bias", {"0.bias"}),
        ("*.bias", {"0.bias", "1.bias", "3.bias"}),
    ):
        names = set()
        with armed(create("bit_flip", layer=layer, at=EVERY)) as controller:
            for _ in range(40):
                model(torch.ones(2, 4))
            names |= {
                strike.details["flipped"][0].split(" of ")[1].split("[")[0]
                for strike in controller.journal
            }
        assert names == hit
    compiled = torch.compile(model, backend="eager")
    with armed(create("bit_flip", layer="3.weight", at=0)) as controller:
        compiled(torch.ones(2, 4))
    assert "3.weight" in controller.journal[0].details["flipped"][0]


def test_buffers_are_flipped_where_asked_for():
    """Running statistics, and the counter of batches."""
    model = small().eval()
    with armed(create("bit_flip", layer="1.running_mean", buffers=True, count=3, at=0)):
        model(torch.ones(2, 4))
        assert not torch.equal(model[1].running_mean, torch.zeros(8))
    assert torch.equal(bits(model[1].running_mean), bits(torch.zeros(8)))
    with (
        pytest.raises(PayloadMismatch, match="no tensor of Sequential"),
        armed(create("bit_flip", layer="1.running_mean", at=0)),
    ):
        model(torch.ones(2, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Holder(torch.ones(4, 6).t()),
        lambda: Holder(torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)),
        lambda: Holder(torch.arange(24.0).reshape(4, 6)[1:, 2:4]),
        lambda: Holder(torch.tensor(3.0)),
    ],
    ids=["transposed", "channels_last", "part of another", "scalar"],
)
def test_memory_of_any_layout(make):
    """One element, the one that is told."""
    model = make()
    before = model.t0.detach().clone()
    for seed in range(10):
        with armed(create("bit_flip", bit=2, at=0), seed=seed) as controller:
            model()
            place = int(controller.journal[0].details["flipped"][0].split("[")[1][:-1])
            assert (model.t0 != before).flatten().nonzero().flatten().tolist() == [place]
        assert torch.equal(model.t0, before)


def test_shared_weights_are_one_tensor():
    """They flip in both places at once, and are undone once."""
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[1].weight = model[0].weight

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self):
            return self.layers[0].weight is self.layers[1].weight

    before = bits(model[0].weight)
    with armed(create("bit_flip", layer="layers.*.weight", bit=30, at=0)):
        assert Both()()
        assert len(flipped(before, bits(model[1].weight))) == 1
    assert torch.equal(bits(model[0].weight), before)


def test_layers_that_were_replaced_are_found_anew():
    """A model may have changed since its weights were first listed."""
    model = nn.Sequential(nn.Linear(2, 2))
    with armed(create("bit_flip", at=[0, 1])):
        model(torch.ones(1, 2))
        model[0] = nn.Linear(2, 2)
        before = [bits(tensor) for tensor in model.parameters()]
        model(torch.ones(1, 2))
        assert (
            sum(
                len(flipped(old, bits(new)))
                for old, new in zip(before, model.parameters(), strict=True)
            )
            == 1
        )


def test_autograd_does_not_notice():
    """A weight that was saved for the backward pass may flip before that runs, as it may in memory."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    with armed(create("bit_flip", bit=1, at=1)):
        first = model(torch.ones(2, 3)).sum()
        second = model(torch.ones(2, 3)).sum()
        (first + second).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_evaluation_and_inference_mode_are_hit():
    """Serving has no gradients."""
    model = small().eval()
    clean = model(torch.ones(1, 4))
    for mode in (torch.no_grad, torch.inference_mode):
        for part in ("weights", "activations"):
            with (
                armed(
                    create(
                        "bit_flip",
                        where=part,
                        bit=30,
                        layer="3.bias" if part == "weights" else "3",
                        at=0,
                    )
                ),
                mode(),
            ):
                assert not torch.equal(model(torch.ones(1, 4)), clean)
    with torch.inference_mode():
        made = nn.Linear(4, 4)
    before = bits(made.weight)
    with armed(create("bit_flip", bit=3, at=0)), torch.inference_mode():
        made(torch.ones(1, 4))
    assert torch.equal(bits(made.weight), before)


def test_an_activation_flips_in_one_layer_and_one_call():
    """The inputs are not touched, nor is a layer that hands on what it got."""
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.ones(2, 3)
    clean = model(x)
    for seed in range(12):
        with armed(create("bit_flip", where="activations", bit=22, at=1), seed=seed) as controller:
            assert torch.equal(model(x), clean)
            model(x)
            assert torch.equal(model(x), clean)
        assert len(controller.journal) == 1
        assert torch.equal(x, torch.ones(2, 3))
        assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_not_called_is_replaced_by_the_models_result():
    """The fault strikes anyway, but it waits for a layer that was named."""

    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (
                nn.Linear(2, 2),
                nn.ModuleList([nn.Linear(2, 2) for _ in range(20)]),
            )

        def forward(self, x):
            return {"logits": self.used(x), "hidden": (x, 3)}

    model = Lazy()
    with armed(create("bit_flip", where="activations", at=0), seed=1) as controller:
        assert model(torch.ones(1, 2))["hidden"][1] == 3
    assert (
        "Lazy.logits" in controller.journal[0].details["flipped"][0]
        or "Lazy.hidden" in controller.journal[0].details["flipped"][0]
    )
    with armed(create("bit_flip", where="activations", layer="unused.3", at=0)) as controller:
        model(torch.ones(1, 2))
    assert not controller.journal


def backward(model, x):
    """The gradients of one pass."""
    model.zero_grad(set_to_none=True)
    model(x).sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_a_gradient_flips_before_anything_has_looked_at_it():
    """In ``.grad``, once; hooks of the parameter's accumulation see it; the next pass is clean."""
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), torch.ones(2, 3)
    clean = backward(model, x)
    seen = []
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        for parameter in model.parameters()
    ]
    with armed(create("bit_flip", where="gradients", bit=30, at=1)) as controller:
        assert all(map(torch.equal, backward(model, x), clean))
        seen.clear()
        hit = backward(model, x)
        assert sum(len(flipped(bits(a), bits(b))) for a, b in zip(hit, clean, strict=True)) == 1
        assert sorted(one.flatten().tolist() for one in seen) == sorted(
            one.flatten().tolist() for one in hit
        )
        assert all(map(torch.equal, backward(model, x), clean))
    assert len(controller.journal) == 1
    for handle in handles:
        handle.remove()
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_gradients_are_chosen_by_the_names_in_the_model():
    """Though a backward pass knows no model; ``autograd.grad`` is struck, too."""
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), torch.ones(2, 3)
    clean = backward(model, x)
    for seed in range(5):
        with armed(
            create("bit_flip", where="gradients", layer="1.weight", bit=30, at=0), seed=seed
        ):
            hit = backward(model, x)
        assert [torch.equal(a, b) for a, b in zip(hit, clean, strict=True)] == [
            True,
            True,
            False,
            True,
        ]
    with armed(create("bit_flip", where="gradients", layer="0.bias", bit=30, at=0)):
        (hit,) = torch.autograd.grad(model(x).sum(), [model[0].bias])
    assert not torch.equal(hit, clean[1])
    misspelt = create("bit_flip", where="gradients", layer="0.wieght", at=0)
    with (
        pytest.raises(
            PayloadMismatch, match=r"is called '0\.wieght' \(did you mean '0\.weight'\?\)"
        ),
        armed(misspelt),
    ):
        backward(model, x)


def test_sparse_gradients_flip_among_the_values_that_they_have():
    """They are the gradients of an embedding."""
    layer = nn.Embedding(10, 4, sparse=True)
    with armed(create("bit_flip", where="gradients", bit=30, at=0)) as controller:
        layer(torch.tensor([1, 5])).sum().backward()
    assert (
        int((layer.weight.grad.to_dense() > 1e30).sum() + (layer.weight.grad.to_dense() == 0).sum())
        >= 1
    )
    assert len(controller.journal) == 1
    assert sorted(layer.weight.grad.coalesce().indices()[0].tolist()) == [1, 5]


def test_an_optimizers_state_flips_just_before_a_step():
    """There is none before the first step: no strike then."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: None)
    with armed(
        create("bit_flip", where="optimizer", layer="weight", bit=29, at=[0, 1])
    ) as controller:
        for _ in range(2):
            model(torch.ones(2, 3)).sum().backward()
            seen.append(copy.deepcopy(optimizer.state_dict()["state"]))
            optimizer.step()
    assert [strike.visit for strike in controller.journal] == [1]
    assert controller.journal[0].details["flipped"][0].split(" of ")[1] in (
        "exp_avg",
        "exp_avg_sq",
        "step",
    )


def test_a_gradient_scaler_meets_what_it_would_meet():
    """An infinite gradient skips the step, and the scale goes down; no false alarm behind its
    check.
    """
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = bits(model.weight)
    with armed(create("nan_gradient", at=0)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.ones(2, 3)).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert torch.equal(bits(model.weight), before)
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize(
    ("keywords", "make", "message"),
    [
        (
            {"bit": 40},
            lambda: Holder(torch.ones(2)),
            "found no bit 40 in float32, which has bits 0 to 31 (t0: float32[2])",
        ),
        (
            {"bit": 16},
            lambda: Holder(torch.ones(2, dtype=torch.bfloat16)),
            "no bit 16 in bfloat16, which has bits 0 to 15",
        ),
        (
            {},
            lambda: Holder(torch.ones(2, dtype=torch.bool)),
            "no bits to flip in Holder: t0 holds bool, of which no bits are flipped",
        ),
        (
            {},
            lambda: Holder(torch.ones(2, dtype=torch.complex64)),
            "t0 holds complex64, of which no bits are flipped",
        ),
        ({}, lambda: Holder(torch.ones(2, device="meta")), "t0 is on the meta device"),
        ({}, lambda: Holder(torch.ones(0, 3)), "t0 is empty"),
        ({}, lambda: Holder(torch.eye(2).to_sparse()), "t0 is a tensor of layout torch.sparse_coo"),
        (
            {"count": 100, "bit": 0},
            lambda: Holder(torch.ones(2)),
            "count=100, but Holder has 2 elements",
        ),
        (
            {"layer": "tt0"},
            lambda: Holder(torch.ones(2)),
            "no tensor of Holder is called 'tt0' (did you mean 't0'?)",
        ),
        (
            {"layer": "decoder"},
            lambda: Holder(torch.ones(2)),
            "no tensor of Holder is called 'decoder'; there are t0",
        ),
    ],
)
def test_a_model_whose_bits_cannot_be_flipped_is_an_error_that_says_why(keywords, make, message):
    """It names the fault, the tensor, its shape and type."""
    model = make()
    with pytest.raises(PayloadMismatch) as caught, armed(create("bit_flip", at=0, **keywords)):
        model()
    assert message in str(caught.value)
    assert "bit_flip" in str(caught.value)


def test_a_scripted_model_has_weights_and_no_layers():
    """It runs as one graph."""
    model = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)))
    clean = model(torch.ones(1, 3))
    with armed(create("bit_flip", layer="1.bias", bit=30, at=[0, 1])) as controller:
        assert not torch.equal(model(torch.ones(1, 3)), clean)
        assert torch.equal(model(torch.ones(1, 3)), clean), "the same bit twice"
    assert torch.equal(model(torch.ones(1, 3)), clean)
    assert len(controller.journal) == 2
    with (
        pytest.raises(PayloadMismatch, match="finds no layers"),
        armed(create("bit_flip", where="activations", at=0)),
    ):
        model(torch.ones(1, 3))


def test_where_names_a_part_or_is_a_predicate():
    """``where`` is the predicate of every fault. A part's name in it is printed as ``part``."""
    assert repr(create("bit_flip", where="gradients", at=3)) == "bit_flip(at=3, part='gradients')"
    assert Schedule.parse("bit_flip(at=3, where='gradients')").faults == (
        create("bit_flip", at=3, part="gradients"),
    )
    assert create("bit_flip", where=lambda visit: visit.index % 2, at=EVERY).part == "weights"
    assert pickle.loads(pickle.dumps(create("bit_flip", where="optimizer", at=1))) == create(
        "bit_flip", part="optimizer", at=1
    )  # our own bytes
    with pytest.raises(BadArgument, match=r"bit_flip: part must be 'weights' or .*, got 'biases'"):
        create("bit_flip", where="biases")
    assert chaos.bit_flip(where=chaos.one_of("weights", "gradients"))


@pytest.mark.slow
def test_a_search_goes_through_the_parts(example):
    """``chaos.one_of`` decides the site, too."""
    example.with_tests("""
        import torch

        @chaos.bit_flip(where=chaos.one_of("weights", "gradients"), bit=30)
        @chaos.settings(max_trials=12)
        def test_it(mlchaos):
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(torch.ones(2, 3)).square().sum()
                loss.backward()
                optimizer.step()
                assert model.weight.abs().max() < 1e3
    """).run(fresh=True, failed=1).has("reproduce: ", "bit_flip(at=", "bit=30")

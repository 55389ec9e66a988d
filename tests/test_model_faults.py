"""Bad gradients; stuck, stale and coarse layers: by hand, and in unmodified trainers. (needs torch)"""

from __future__ import annotations

import copy
import importlib.util
import io

import pytest
import torch
from torch import nn

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import PayloadMismatch
from tests.test_batches import TRAINERS

faults.load()
sites.load()
X = torch.linspace(-1, 2, 6).reshape(2, 3)


def armed(*declared, seed=0):
    """A trial with these faults."""
    return trial(Schedule(declared, seed), Patches())


def small():
    """A model of two layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def backward(model):
    """The gradients of one pass."""
    model.zero_grad(set_to_none=True)
    model(X).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_gradients_are_not_finite_in_one_pass():
    """All of them, or those of a layer, or some elements; the loss is finite."""
    model = small()
    clean = backward(model)
    with armed(create("nan_gradient", at=1)):
        assert all(map(torch.equal, backward(model), clean))
        assert all(bool(gradient.isnan().all()) for gradient in backward(model))
        assert all(map(torch.equal, backward(model), clean))
    with armed(create("nan_gradient", layer="2", kind="inf", at=0)):
        assert [bool(gradient.isinf().all()) for gradient in backward(model)] == [
            False,
            False,
            True,
            True,
        ]
    with armed(create("nan_gradient", fraction=0.25, at=0)):
        assert [int(gradient.isnan().sum()) for gradient in backward(model)] == [3, 1, 2, 1]


def test_a_layer_is_named_as_in_the_model_whatever_holds_the_model():
    """A trainer's module that has the whole model in it, and nothing else; with something else in
    it, names are whole.
    """
    holder = nn.ModuleDict({"net": nn.ModuleDict({"inner": small()})})
    for layer in ("2", "inner.2", "net.inner.2"):
        with armed(create("nan_gradient", layer=layer, at=0)):
            gradients = backward(holder["net"]["inner"])
        assert [bool(gradient.isnan().all()) for gradient in gradients] == [
            False,
            False,
            True,
            True,
        ]
    other = nn.ModuleDict({"net": small(), "head": nn.Linear(2, 2)})
    with (
        pytest.raises(PayloadMismatch, match="is called '2'"),
        armed(create("nan_gradient", layer="2", at=0)),
    ):
        other["head"](other["net"](X)).sum().backward()


def test_gradients_explode_by_the_factor():
    """Accumulated gradients of earlier passes are not touched."""
    model = small()
    clean = backward(model)
    with armed(create("exploding_gradient", factor=1e3, at=1)):
        backward(model)
        model(X).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), clean, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * 1001)


@pytest.mark.parametrize(
    ("name", "keywords", "later"),
    [
        ("stuck_neuron", {"index": 0, "value": 9.0}, True),
        ("quantization_error", {"part": "activations", "bits": 2}, False),
        ("bit_flip", {"part": "activations", "bit": 30}, False),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_the_layers_of_a_compiled_model_are_struck_too(name, keywords, later, in_place):
    """They run one by one in the calls that are struck, and as one graph again afterwards."""
    model = small()
    if in_place:
        model.compile(backend="eager")
    compiled = model if in_place else torch.compile(model, backend="eager")
    clean = compiled(X)
    with armed(create(name, layer="0", at=1, **keywords)) as controller:
        results = [compiled(X) for _ in range(3)]
    assert [bool(result.equal(clean)) for result in results] == [True, False, not later]
    assert compiled(X).equal(clean)
    assert [strike.visit for strike in controller.journal] == [1]


def test_a_pass_that_fails_by_itself_is_not_struck():
    """Nothing wants gradients: the error is torch's own."""
    with (
        armed(create("nan_gradient", at=0)) as controller,
        pytest.raises(RuntimeError, match="does not require grad"),
    ):
        torch.ones(2).sum().backward()
    assert not controller.journal
    assert controller.broken is None


def test_a_backward_pass_that_raises_leaves_no_hook():
    """However it ends."""

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise ValueError("stop")

    model = small()
    with armed(create("nan_gradient", at=0)), pytest.raises(ValueError, match="stop"):
        Fails.apply(model(X)).sum().backward()
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_a_unit_is_stuck_from_then_on():
    """In each later call, until the process ends; without a gradient; of convolutions it is a
    channel.
    """
    model = small()
    clean = model(X)
    with armed(create("stuck_neuron", layer="0", index=2, value=5.0, at=1)) as controller:
        assert torch.equal(model(X), clean)
        for _ in range(2):
            given = model[0](X) if _ else None
            assert not torch.equal(model(X), clean)
        assert given[:, 2].tolist() == [5.0, 5.0]
        assert backward(model)[0][2].abs().max() == 0
    assert torch.equal(model(X), clean)
    assert [strike.visit for strike in controller.journal] == [1]
    assert controller.journal[0].details == {"layer": "0", "index": 2}
    convolution = nn.Sequential(nn.Conv2d(2, 3, 1))
    with armed(create("stuck_neuron", index=1, value=-1.0, at=0)):
        assert bool((convolution(torch.ones(2, 2, 4, 4))[:, 1] == -1).all())


def test_a_model_with_a_stuck_unit_can_be_copied_and_saved():
    """A copy is stuck as long as the process lives; what is loaded from a file is sound."""
    model = small()
    clean = model(X)
    with armed(create("stuck_neuron", index=0, value=9.0, layer="2", at=0)):
        model(X)
        twin = copy.deepcopy(model)
        assert not torch.equal(twin(X), clean)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(X), clean)
    assert torch.equal(twin(X), clean)


def test_a_layer_that_is_never_called_is_never_struck():
    """No vacuous strike."""

    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    with armed(create("stuck_neuron", layer="unused", at=0)) as controller:
        Lazy()(X)
    assert not controller.journal


def test_one_call_uses_the_weights_of_an_earlier_one():
    """Bit by bit, and afterwards the present ones are back; also when the call fails."""
    model = small()
    outputs = []
    with armed(create("stale_weights", age=2, at=[1, 4])) as controller:
        for number in range(6):
            outputs.append(model(X).detach().clone())
            weights = [parameter.detach().clone() for parameter in model.parameters()]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * (number + 1))
            assert all(
                torch.equal(new, old + torch.tensor(0.1 * (number + 1)))
                for new, old in zip(model.parameters(), weights, strict=True)
            )
    assert torch.equal(outputs[4], outputs[2])
    assert not torch.equal(outputs[3], outputs[2])
    assert not torch.equal(outputs[5], outputs[4])
    assert [strike.visit for strike in controller.journal] == [4]

    class Fails(nn.Linear):
        def forward(self, x):
            if self.fail:
                raise ValueError("stop")
            return super().forward(x)

    failing, failing_weights = Fails(3, 2), []
    with armed(create("stale_weights", at=1)):
        failing.fail = False
        failing(X)
        with torch.no_grad():
            failing.weight.mul_(-3)
        failing_weights.append(failing.weight.detach().clone())
        failing.fail = True
        with pytest.raises(ValueError, match="stop"):
            failing(X)
    assert torch.equal(failing.weight, failing_weights[0])


def test_weights_that_have_not_changed_are_not_stale():
    """No strike is recorded where it makes no difference."""
    model = small()
    with armed(create("stale_weights", at=EVERY)) as controller:
        for _ in range(3):
            model(X)
    assert not controller.journal


@pytest.mark.parametrize("part", ["weights", "activations"])
def test_values_are_rounded_to_a_grid_for_one_call(part):
    """The grid has exactly this many levels. The weights are restored afterwards, and gradients
    flow.
    """
    model = small()
    before = copy.deepcopy(model.state_dict())
    clean = model(X)
    seen = {}
    handle = model[0].register_forward_hook(
        lambda module, inputs, output: seen.update({"0": module.weight.clone()})
    )
    with armed(create("quantization_error", where=part, bits=3, at=1)) as controller:
        assert torch.equal(model(X), clean)
        rough = model(X)
        coarse = seen["0"] if part == "weights" else rough
        assert torch.equal(model(X), clean)
    assert not torch.equal(rough, clean)
    assert len(coarse.unique()) <= 7
    step = float(coarse.abs().max()) / 3
    torch.testing.assert_close(coarse / step, (coarse / step).round())
    rough.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert controller.journal[0].details["bits"] == 3
    handle.remove()


@pytest.mark.slow
def test_the_parts_of_a_model_that_are_called_one_by_one_have_its_names():
    """Frameworks call the parts if the training step is not ``forward``. Visits of other parts are
    skipped.
    """
    whole = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(3, 3)), "head": nn.Linear(3, 2)})

    def call():
        return whole["head"](whole["encoder"](X))

    for name, keywords in (
        ("bit_flip", {"layer": "head.weight"}),
        ("bit_flip", {"layer": "head", "where": "activations"}),
        ("stuck_neuron", {"layer": "head"}),
        ("quantization_error", {"layer": "head", "bits": 2}),
        ("quantization_error", {"layer": "head", "where": "activations", "bits": 2}),
    ):
        with armed(create(name, at=EVERY, times=1, **keywords)) as controller:
            call()
        assert [strike.visit for strike in controller.journal] == [1], name
    with (
        pytest.raises(PayloadMismatch, match=r"is called 'haed' \(did you mean 'head'\?\)"),
        armed(create("bit_flip", layer="haed", at=0)),
    ):
        call()


@pytest.mark.parametrize(
    ("name", "keywords", "call", "message"),
    [
        (
            "stuck_neuron",
            {"layer": "0", "index": 9},
            lambda: small()(X),
            "found no unit 9 in the output of 0: float32[2, 4]",
        ),
        (
            "stuck_neuron",
            {"layer": "encoder"},
            lambda: small()(X),
            "no layer of Sequential is called 'encoder'; there are 0, 1, 2",
        ),
        (
            "quantization_error",
            {"layer": "0.weigth"},
            lambda: small()(X),
            "'0.weigth' (did you mean '0.weight'?)",
        ),
        (
            "quantization_error",
            {},
            lambda: nn.Sequential(Integers())(X),
            "found no floating-point weights in Sequential",
        ),
        (
            "exploding_gradient",
            {"layer": "3"},
            lambda: backward(small()),
            "no parameter of the model is called '3'",
        ),
    ],
)
def test_a_model_that_a_fault_cannot_work_on_is_an_error_that_says_why(
    name, keywords, call, message
):
    """It names the fault, and what there is."""
    with pytest.raises(PayloadMismatch) as caught, armed(create(name, at=0, **keywords)):
        call()
    assert message in str(caught.value)
    assert name in str(caught.value)


class Integers(nn.Module):
    """A layer of integers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)

    def forward(self, x):
        return x


@pytest.mark.slow
@pytest.mark.parametrize("library", TRAINERS)
def test_an_unmodified_trainer_meets_them_all(example, library):
    """In weights, activations, gradients and optimizer state; what the trainer does with bad
    gradients is its own affair.
    """
    if importlib.util.find_spec(library) is None:
        # Not imported here: pytester would forget half of it.
        pytest.skip(f"needs {library}")
    source = (
        TRAINERS[library]
        .replace("return model.seen", "return model")
        .replace("lr=0.1)", "lr=0.1, momentum=0.9)")
    )
    example.with_file("subject.py", source).with_tests("""
        import pytest
        import torch
        from subject import train

        def finite(model):
            return all(bool(parameter.isfinite().all()) for parameter in model.parameters())

        @chaos.nan_gradient(at=2)
        def test_nan(mlchaos, tmp_path):
            assert not finite(train(tmp_path))

        @chaos.exploding_gradient(factor=1e30, at=1)
        def test_exploding(mlchaos, tmp_path):
            train(tmp_path)

        @chaos.bit_flip(where="weights", bit=30, layer="*weight", at=1)
        def test_weights(mlchaos, tmp_path):
            train(tmp_path)

        @chaos.bit_flip(where="activations", bit=30, at=1)
        def test_activations(mlchaos, tmp_path):
            train(tmp_path)

        @chaos.bit_flip(where="gradients", bit=30, layer="layer.weight", at=1)
        def test_gradients(mlchaos, tmp_path):
            train(tmp_path)

        @chaos.bit_flip(where="optimizer", at=2)
        def test_optimizer(mlchaos, tmp_path):
            train(tmp_path)

        @chaos.stuck_neuron(layer="layer", index=0, at=1)
        def test_stuck(mlchaos, tmp_path):
            train(tmp_path)

        @chaos.stale_weights(at=2)
        def test_stale(mlchaos, tmp_path):
            assert finite(train(tmp_path))

        @chaos.quantization_error(bits=4, at=2)
        def test_coarse(mlchaos, tmp_path):
            assert finite(train(tmp_path))
    """).run("-p", "no:warnings", fresh=True, passed=9)

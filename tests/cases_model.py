"""Provide the cases for the faults of models (needs torch)."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case


def model():
    """Two layers; the same each time."""
    import torch

    made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.linspace(-1, 1.5, parameter.numel()).reshape(parameter.shape))
    return made


def called(made):
    """Return the result of a call of the model."""
    import torch

    return made(torch.linspace(0.5, 2, 6).reshape(2, 3)).detach().clone()


_turn = itertools.cycle(range(8))


def model_of_its_time():
    """The model as it is at each of eight calls, one after the other."""
    import torch

    made, turn = model(), next(_turn)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(turn)
    return made


def roots():
    """The root of a backward pass, as the engine gets it; a leaf, which can be copied."""
    import torch

    return (torch.ones(6, requires_grad=True),)


def flat_roots():
    """A root whose gradient is 0."""
    import torch

    return (torch.zeros(6, requires_grad=True),)


def constant(value):
    """Return a factory of models of which each layer gives this value."""

    def made():
        import torch

        constant = model()
        with torch.no_grad():
            for name, parameter in constant.named_parameters():
                parameter.fill_(value if name.endswith("bias") else 0.0)
        return constant

    return made


def backward(given):
    """The gradient."""
    import torch

    given[0].backward(torch.linspace(1, 2, 6) * given[0].detach())
    gradient, given[0].grad = given[0].grad, None
    return gradient


def optimizer():
    """One that has taken a step."""
    import torch

    weight = torch.nn.Parameter(torch.ones(4))
    made = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.linspace(0.5, 1, 4)
    made.step()
    return made


def stepped(made):
    """The weights after a step that is taken back."""
    import torch

    weight = made.param_groups[0]["params"][0]
    with torch.no_grad():
        before, momentum = weight.clone(), made.state[weight]["momentum_buffer"].clone()
        made.step()
        after = weight.clone()
        weight.copy_(before)
        made.state[weight]["momentum_buffer"].copy_(momentum)
    return after


def model_input():
    """The arguments of a call of the model."""
    import torch

    return (torch.linspace(0.5, 2, 6).reshape(2, 3),), {}


def tokens():
    """Arguments without floats."""
    import torch

    return (torch.arange(6).reshape(2, 3),), {}


def rows_to_classes(rows):
    """A classifier without gradients."""
    return (rows.sum(1) > 4).astype(int)


def plain_input():
    """The arguments of a call of that classifier."""
    return (np.linspace(0.5, 2, 6).reshape(2, 3),), {}


SHARES = [{"fraction": 0}, {"fraction": 1.5}]
LAYERS = [{"layer": " "}, {"layer": 3}]
WRONG = [object, list]
CASES = {
    "adversarial": Case(
        create("adversarial", epsilon=0.3),
        model_input,
        attributes={"function": model()} if importlib.util.find_spec("torch") else {},
        bad=[
            {"epsilon": 0.0},
            {"epsilon": float("nan")},
            {"norm": "1"},
            {"steps": 0},
            {"step_size": -1.0},
            {"targeted": -1},
            {"method": "fgsm", "steps": 3},
            {"queries": 10},
            {"clip": (1, 0)},
            {"clip": 1},
            {"loss": "mse"},
            {"model": 3},
            {"severity": 6},
            {"severity": 2},
            {"fields": []},
        ],
        wrong=[tokens, lambda: ((), {})],
    ),
    "adversarial by decisions": Case(
        create("adversarial", method="boundary", epsilon=1.0, queries=300),
        plain_input,
        attributes={"function": rows_to_classes},
        bad=[{"queries": 0}, {"loss": len}, {"steps": 2}],
        wrong=[tokens],
    ),
    "bit_flip": Case(
        create("bit_flip", bit=30, count=3),
        model,
        operation=called,
        bad=[
            {"bit": 64},
            {"bit": -1},
            {"count": 0},
            {"part": "biases"},
            {"part": "gradients", "buffers": True},
            *LAYERS,
        ],
        wrong=WRONG,
    ),
    "bit_flip in activations": Case(
        create("bit_flip", part="activations", bit=30), model, operation=called
    ),
    "bit_flip in gradients": Case(
        create("bit_flip", part="gradients", count=2), roots, operation=backward, wrong=WRONG[:1]
    ),
    "bit_flip in an optimizer": Case(
        create("bit_flip", part="optimizer", bit=28), optimizer, operation=stepped, wrong=WRONG
    ),
    "quantization_error of activations": Case(
        create("quantization_error", part="activations", bits=3),
        model,
        operation=called,
        neutral=constant(0.0),
    ),
    "stuck_neuron": Case(
        create("stuck_neuron", value=7.0),
        model,
        operation=called,
        neutral=constant(7.0),
        bad=[{"index": -1}, *LAYERS],
        wrong=WRONG,
    ),
    "quantization_error": Case(
        create("quantization_error", bits=3),
        model,
        operation=called,
        neutral=constant(0.0),
        bad=[{"bits": 1}, {"bits": 17}, *LAYERS],
        wrong=WRONG,
    ),
    "stale_weights": Case(
        create("stale_weights"),
        model_of_its_time,
        operation=called,
        neutral=model,
        bad=[{"age": 0}, *LAYERS],
        wrong=[],
    ),
    "nan_gradient": Case(
        create("nan_gradient", fraction=0.3),
        roots,
        operation=backward,
        bad=[*SHARES, *LAYERS],
        wrong=WRONG[:1],
    ),
    "exploding_gradient": Case(
        create("exploding_gradient"),
        roots,
        operation=backward,
        neutral=flat_roots,
        bad=[{"factor": 1.0}, {"factor": float("inf")}, *LAYERS],
        wrong=WRONG[:1],
    ),
}

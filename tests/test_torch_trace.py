"""Test what the trace of a torch run says about random numbers (needs torch)."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from pytest_mlchaos.engine.digests import digest  # noqa: E402
from pytest_mlchaos.runs.torch_trace import trace_steps  # noqa: E402


def trained(epochs=3, *, dropout=0.0, **loader):
    """The trace of three epochs of two steps."""
    with trace_steps(lambda trace: None) as trace:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=2, **loader)
        for _ in range(epochs):
            for (x,) in batches:
                optimizer.zero_grad()
                model(x).sum().backward()
                optimizer.step()
    assert len(trace.steps) == 2 * epochs
    return trace


def test_a_loaders_seed_without_workers_is_idle():
    """Each epoch's loader draws one: torch's generator changes, and nothing depends on it."""
    trace = trained()
    assert len({step.digests["rng.torch"] for step in trace.steps}) == 3
    assert trace.idle == {"rng.torch"}


@pytest.mark.parametrize(
    "draws", [{"dropout": 0.5}, {"shuffle": True}, {"num_workers": 1}], ids=str
)
def test_what_uses_the_generator_is_not_idle(draws):
    """A layer in training, an order, and what workers are seeded with."""
    assert trained(**draws).idle == frozenset()


def test_a_step_that_only_makes_the_state_of_an_optimizer_is_not_one():
    """torch.distributed.checkpoint takes one before it loads: a resumed run does not begin there."""
    with trace_steps(lambda trace: None) as trace:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.param_groups[0]["lr"] = 0.0
        optimizer.step()
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = 0.1
        with torch.no_grad():
            model.weight.fill_(3.0)
        loaded = [parameter.clone() for parameter in model.parameters()]
        model(torch.ones(4, 2)).sum().backward()
        optimizer.step()
    assert len(trace.steps) == 1
    assert trace.steps[0].digests["parameters"] == digest(loaded)

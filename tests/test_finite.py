"""NaN and infinity in models and optimizers, behind a loss that is finite. (needs torch)"""

from __future__ import annotations

import pytest
import torch

# The first optimizer imports it, and it cannot be imported twice: an example's run forgets what it
# has imported
import torch._dynamo
from torch import nn

from pytest_mlchaos.runs.finite_state import newly_not_finite
from pytest_mlchaos.sites.torch_state import not_finite
from pytest_mlchaos.sites.torch_train import trained_parameters

JOB = """
    import torch
    from torch import nn

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 1)
            self.register_buffer("mask", torch.full((3,), float("-inf")), persistent=False)

        def forward(self, x):
            return self.layer(self.norm(x))

    def train(batches, guarded=False):
        torch.manual_seed(0)
        model = Masked()
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
        for batch in batches:
            if guarded and not batch.isfinite().all():
                continue
            loss = (model(batch) - 1).square().mean()
            if not loss.isfinite():
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def items():
        return list(torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1)))
"""


def test_buffers_that_took_in_a_skipped_batch_fail_by_name(example):
    """The loop skips the batch, batch norm has seen it: both oracles name the buffers, and not the
    mask that the golden run has too.
    """
    outcome = example.with_tests(
        JOB
        + """
    @chaos.corrupt_batch(kind="nan", at=2)
    def test_converged(mlchaos):
        mlchaos.run(train, mlchaos.batches(items())).assert_converged(below=10)

    @chaos.corrupt_batch(kind="nan", at=5)
    def test_recovered(mlchaos):
        run = mlchaos.run(lambda batches: train(batches) and "done", mlchaos.batches(items()))
        run.parameters = ()
        run.assert_recovered()

    @chaos.corrupt_batch(kind="nan", at=2)
    def test_fresh_process(mlchaos):
        mlchaos.run(train, mlchaos.batches(items()), isolation="process").assert_converged(below=10)
    """
    ).run(failed=3)
    assert (
        outcome.text.count(
            "NaN or infinite at the end, but not in the golden run: norm.running_mean: 3 values, "
            "norm.running_var: 3 values"
        )
        == 3
    )
    assert "mask" not in outcome.text.replace("Masked", "")


@pytest.mark.slow
def test_a_guarded_job_with_an_infinite_mask_converges(example):
    """A sound job passes, though a buffer of its model is infinite by design."""
    example.with_tests(
        JOB
        + """
    @chaos.corrupt_batch(kind="nan", at=2)
    def test_it(mlchaos):
        mlchaos.run(train, mlchaos.batches(items()), True).assert_converged(below=10)
    """
    ).run(passed=1)


def test_optimizer_state_is_looked_at():
    """A moment that became infinite has the name of its parameter, also where no module is known."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    with trained_parameters() as trained:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        optimizer.state[model.weight]["exp_avg_sq"].fill_(float("inf"))
        assert trained.not_finite() == {("Adam", "exp_avg_sq of weight"): 2}
        assert not_finite([], [optimizer]) == {("Adam", "exp_avg_sq of parameter 0"): 2}


def test_models_that_are_only_evaluated_are_looked_at():
    """A module that made any forward pass counts, also without gradients, and one that has buffers
    alone.
    """
    norm = nn.BatchNorm1d(2, affine=False)
    with trained_parameters() as trained, torch.no_grad():
        norm(torch.full((2, 2), float("nan")))
        assert trained.not_finite() == {
            ("BatchNorm1d", "running_mean"): 2,
            ("BatchNorm1d", "running_var"): 2,
        }


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, float("nan")]).to_sparse(),
        torch.tensor([[1.0, float("inf")]]).to_sparse_csr(),
        torch.nested.nested_tensor([torch.tensor([float("nan")]), torch.ones(2)]),
        torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn),
        torch.tensor([complex(0, float("nan")), 1]),
    ],
    ids=["sparse", "csr", "nested", "float8", "complex"],
)
def test_tensors_of_any_layout_are_looked_at(tensor):
    """Sparse, nested, complex and low-bit tensors are checked too."""
    model = nn.Module()
    model.register_buffer("odd", tensor)
    assert not_finite([model], []) == {("Module", "odd"): 1}


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2, device="meta"), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)],
)
def test_tensors_without_floating_point_values_pass(tensor):
    """A tensor without values, or with integers, is not in the way."""
    model = nn.Module()
    model.register_buffer("odd", tensor)
    assert not_finite([model], []) == {}


def test_more_than_in_the_golden_run_fails():
    """Counts are compared: NaN beside the infinities that belong there is found; only what is new
    is named.
    """
    golden = {("Net", "mask"): 3}
    assert newly_not_finite({("Net", "mask"): 3}, golden) is None
    assert newly_not_finite({("Net", "mask"): 4, ("SGD", "momentum_buffer of w"): 1}, golden) == (
        "NaN or infinite at the end, but not in the golden run: mask (Net): 4 values, "
        "momentum_buffer of w (SGD): 1 value"
    )

"""Adversarial inputs: attacks on unmodified models, which stay as they are."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

from pytest_mlchaos import assert_robust, assert_same_state, faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument, Inconclusive, MetricMissed, PayloadMismatch
from pytest_mlchaos.oracles.robustness.attack import make_attack
from pytest_mlchaos.oracles.robustness.boundary import attack_by_decisions
from pytest_mlchaos.testing import strike

torch = pytest.importorskip("torch")
pytest.importorskip("scipy.special")
faults.load()


class Net(torch.nn.Module):
    """A classifier with batch normalisation and dropout, whose first class wins if x[0] < x[1]."""

    calls = 0

    def __init__(self, normal=True):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4) if normal else torch.nn.Identity()
        self.drop = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(4, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-1.0, 1, 0, 0], [1, -1, 0, 0]]))
            self.head.bias.zero_()

    def forward(self, x):
        """Return logits."""
        self.calls += 1
        return self.head(self.drop(self.norm(x)))


def samples(count=64, dtype=None):
    """Inputs from 0 to 1, and their classes."""
    x = torch.rand(count, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x, (x[:, 0] > x[:, 1]).long()


def struck(fault, model, *args, **kwargs):
    """Strike one call of a model, and return what it gets."""
    outcome = strike(fault, [(args, kwargs)], attributes={"function": model}).outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def pgd(**keywords):
    """Return the fault."""
    return create("adversarial", **{"epsilon": 0.2, "at": 0, **keywords})


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("method", ["pgd", "fgsm", "boundary"])
def test_samples_near_the_boundary_are_misled_and_no_others(method, norm):
    """For a linear model the answer is known: those within epsilon of x[0] == x[1]."""
    x, y = samples()
    net = Net(normal=False).eval()
    ((fresh,), _) = struck(pgd(method=method, norm=norm, epsilon=0.1), net, x)
    reach = 0.2 if norm == "inf" else 0.1 * 2**0.5
    gap = (x[:, 0] - x[:, 1]).abs()
    misled = net(fresh).argmax(1) != y
    clear = (gap - reach).abs() > 0.02  # decisions alone do not find the last hundredth
    assert misled[clear].equal((gap < reach)[clear])
    change = (fresh - x).flatten(1)
    size = change.abs().amax(1) if norm == "inf" else change.norm(dim=1)
    assert size.max() <= 0.1 + 1e-6


def test_a_range_is_respected():
    """No pixel leaves it."""
    x, _ = samples()
    ((fresh,), _) = struck(pgd(clip=(0, 1)), Net(), x)
    assert 0 <= fresh.min() < fresh.max() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_is(training):
    """Statistics, gradients, counters, modes, and random numbers."""
    x, y = samples()
    net = Net().train(training)
    torch.nn.functional.cross_entropy(net(x), y).backward()
    before = copy.deepcopy((net.state_dict(), [one.grad for one in net.parameters()]))
    calls, numbers = net.calls, (torch.get_rng_state(), np.random.get_state(), random.getstate())
    struck(pgd(), net, x)
    after = (net.state_dict(), [one.grad for one in net.parameters()])
    assert_same_state(after, before)
    assert_same_state((torch.get_rng_state(), np.random.get_state(), random.getstate()), numbers)
    assert (net.calls, net.training) == (calls, training)


def test_a_graph_that_is_recorded_can_still_be_used():
    """The buffers that it saved have not been written to, and the input is still part of it."""
    x, y = samples()
    net, before = Net().eval(), torch.nn.Linear(4, 4)
    hidden = before(x)
    early = net(hidden).sum()
    ((fresh,), _) = struck(pgd(), net, hidden)
    early.backward(retain_graph=True)
    before.zero_grad()
    torch.nn.functional.cross_entropy(net(fresh), y).backward()
    assert before.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_where_they_are_off(context):
    """Serving code turns them off."""
    x, y = samples()
    with context():
        net = Net(normal=False).eval()
        ((fresh,), _) = struck(pgd(), net, x.clone())
        assert (net(fresh).argmax(1) != y).sum() > 8
    assert not fresh.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype):
    """The model of half precision gets inputs of half precision."""
    x, _ = samples(dtype=torch.float64)
    ((fresh,), _) = struck(pgd(), Net(normal=False).eval().to(dtype), x.to(dtype))
    assert fresh.dtype is dtype
    assert (fresh.double() - x).abs().max() < 0.21


def test_an_epsilon_that_vanishes_in_the_dtype_is_inconclusive():
    """The control finds that nothing changes."""
    x, _ = samples()
    with pytest.raises(Inconclusive, match="planted weak model"):
        struck(pgd(epsilon=1e-3), Net(normal=False).bfloat16(), (x + 100).bfloat16())


def test_steps_that_are_too_small_are_inconclusive():
    """Ten steps of a hundredth of epsilon do not use epsilon."""
    with pytest.raises(Inconclusive, match="more steps="):
        struck(pgd(step_size=0.002, random_start=False), Net(), samples()[0])


def test_an_aim_is_reached():
    """All samples in reach get this class."""
    x, _ = samples()
    net = Net(normal=False).eval()
    ((fresh,), _) = struck(pgd(targeted=1, epsilon=0.6), net, x)
    assert (net(fresh).argmax(1) == 1).all()
    with pytest.raises(BadArgument, match="targeted must be below 2"):
        struck(pgd(targeted=2), net, x)


class Loss(torch.nn.Module):
    """A model that returns its loss, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.net = Net(normal=False)

    def forward(self, pixel_values, labels=None):
        """Return logits, and the loss if there are labels."""
        logits = self.net(pixel_values)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


@pytest.mark.parametrize("labelled", [True, False])
def test_the_loss_of_the_model_is_used(labelled):
    """With wrong labels, its loss grows in the direction of the right class."""
    x, y = samples()
    model = Loss().eval()
    given = {"pixel_values": x, **({"labels": 1 - y} if labelled else {})}
    _, fresh = struck(pgd(epsilon=0.3), model, **given)
    right = (model(fresh["pixel_values"])["logits"].argmax(1) == y).float().mean()
    assert (right == 1) if labelled else (right < 0.6)


class Rounded(Net):
    """A model that hides its gradients."""

    def forward(self, x):
        """Return rounded logits."""
        return super().forward(x).round()


class Detached(Net):
    """A model that detaches its input."""

    def forward(self, x):
        """Return logits without a gradient."""
        return super().forward(x.detach()).detach()


class Score(Net):
    """A regression."""

    def forward(self, x):
        """Return one number."""
        return super().forward(x)[:, :1]


class Words(torch.nn.Module):
    """A model of tokens."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(8, 2)

    def forward(self, ids):
        """Return logits."""
        return self.words(ids).mean(1)


@pytest.mark.parametrize(
    ("model", "given", "error", "says"),
    [
        (Rounded(), samples()[0], BadArgument, "they are 0 for each sample"),
        (Detached(), samples()[0], BadArgument, "does the model call no_grad, detach"),
        (Score(), samples()[0], BadArgument, "not one number for each class. Give loss="),
        (Words(), torch.zeros(2, 3, dtype=torch.long), PayloadMismatch, "no small changes"),
        (lambda x: x, samples()[0], BadArgument, "needs a torch module"),
        (Net(), samples()[0] * torch.nan, PayloadMismatch, "NaN or infinite"),
        (Net(), samples()[0] + 5, BadArgument, "clip must contain"),
    ],
)
def test_what_is_missing_is_said(model, given, error, says):
    """Each is an error of its own: an attack that cannot be made must not pass."""
    with pytest.raises(error, match=says):
        struck(pgd(clip=(0, 1)), model, given)


def test_a_regression_can_be_attacked_with_its_loss():
    """The loss is given, and its labels are the outputs."""
    x, _ = samples()
    net = Score(normal=False).eval()
    ((fresh,), _) = struck(pgd(loss=torch.nn.MSELoss()), net, x)
    assert (net(fresh) - net(x)).abs().min() > 0.3


def test_a_single_sample_without_an_axis_of_samples_is_one():
    """Its change as a whole is at most epsilon long."""
    x = samples()[0][0]
    ((fresh,), _) = struck(pgd(norm="2"), Net(normal=False).eval(), x)
    assert (fresh - x).norm() == pytest.approx(0.2, rel=1e-3)


# -- in a test -------------------------------------------------------------------------------------

SERVICE = """
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    from pytest_mlchaos import chaos, assert_metric

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 1], [1, -1]]))
        model[0].bias.zero_()
    X = torch.rand(64, 2)
    Y = (X[:, 0] > X[:, 1]).long()

    def evaluate(loader):
        with torch.no_grad():
            return [(int(a == b)) for x, y in loader for a, b in zip(model(x).argmax(1), y)]

    def predict(rows):
        with torch.no_grad():
            return model(torch.tensor(rows)).argmax(1).tolist()

    def features(rows):
        return rows
"""


def test_batches_and_requests_are_struck(example):
    """A loader, a call of the model that is named, data on their way to it, and a function."""
    example.with_tests(
        SERVICE
        + """
    import numpy as np
    import pytest
    import sys
    from pytest_mlchaos.errors import MetricMissed

    HERE = __name__

    @chaos.adversarial(epsilon=0.3, clip=(0, 1), at=chaos.EVERY)
    def test_loader():
        right = evaluate(DataLoader(TensorDataset(X, Y), batch_size=16))
        with pytest.raises(MetricMissed):
            assert_metric(right, at_least=0.9)

    @chaos.adversarial(epsilon=0.3, target=f"{HERE}:model", at=0)
    def test_request(mlchaos):
        load = mlchaos.serve(predict).drive([X.tolist()] * 2)
        first, second = (reply.value for reply in load.replies)
        assert np.mean(np.array(first) == Y.numpy()) < 0.7
        assert second == Y.tolist()

    class Net(torch.nn.Linear):
        def score(self, x):
            return self(x)

    @chaos.adversarial(epsilon=0.3, target=f"{HERE}:Net.score", at=0)
    def test_method():
        net = Net(2, 2)
        net.load_state_dict(model[0].state_dict())
        assert net.score(X).argmax(1).tolist() != Y.tolist()

    @chaos.adversarial(epsilon=0.3, model=model, target=f"{HERE}:features", at=0)
    def test_features():
        assert predict(features(X.numpy())) != Y.tolist()

    @chaos.adversarial(epsilon=0.3, model=f"{HERE}:model", at=0)
    def test_batches(mlchaos):
        (batch,) = mlchaos.batches([{"x": X, "y": Y}])
        assert batch["y"] is Y
        assert predict(batch["x"].tolist()) != Y.tolist()

    @chaos.adversarial(method="boundary", epsilon=0.3, target=f"{HERE}:predict", at=0)
    def test_decisions():
        assert predict(X.numpy()) != Y.tolist()
    """
    ).run(passed=6)


def test_a_test_without_a_model_fails(example):
    """Nothing was struck."""
    result = example.with_tests(
        """
        from pytest_mlchaos import chaos

        @chaos.adversarial(at=0)
        def test_nothing():
            pass
        """
    ).run(failed=1)
    assert result.has("NeverStruck: adversarial(at=0) never struck: model.call was never passed")


def test_an_attack_makes_no_visits(example):
    """The attack calls the model and takes gradients, which other faults must not count."""
    example.with_tests(
        SERVICE
        + """
    from pytest_mlchaos import Fault

    seen = []

    class Counts(Fault):
        def apply(self, visit):
            seen.append((visit.site, visit.index))
            visit.record_injection()

    @chaos.register
    class Calls(Counts):
        site = "model.forward"

    @chaos.register
    class Backward(Counts):
        site = "train.backward"

    @chaos.adversarial(epsilon=0.3, at=0)
    @chaos.calls(at=chaos.EVERY)
    @chaos.backward(at=chaos.EVERY)
    def test_counts():
        model(X)
        model(X).sum().backward()
        assert seen == [("model.forward", 0), ("model.forward", 1), ("train.backward", 0)]
    """
    ).run(passed=1)


@pytest.mark.slow
def test_the_evaluation_of_a_trainer_is_struck(example):
    """The Trainer of transformers, whose model returns its own loss, is not modified."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    example.with_tests(
        """
        import torch
        from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

        from pytest_mlchaos import chaos

        torch.manual_seed(0)
        SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        IMAGES = {"intermediate_size": 32, "image_size": 8, "patch_size": 4, "num_channels": 1}
        model = ViTForImageClassification(ViTConfig(**SMALL, **IMAGES, num_labels=2))
        labels = torch.arange(64) % 2
        pixels = torch.rand(64, 1, 8, 8)
        pixels[:, :, :, :4] += labels[:, None, None, None]
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(40):
            optimizer.zero_grad()
            model(pixel_values=pixels, labels=labels).loss.backward()
            optimizer.step()
        DATA = [{"pixel_values": x, "labels": int(y)} for x, y in zip(pixels, labels)]

        def accuracy(folder):
            trainer = Trainer(
                model,
                TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True,
                                  per_device_eval_batch_size=32),
                eval_dataset=DATA,
                compute_metrics=lambda found: {
                    "right": float((found.predictions.argmax(1) == found.label_ids).mean())
                },
            )
            return trainer.evaluate()["eval_right"]

        def test_as_it_is(tmp_path):
            assert accuracy(tmp_path) > 0.95

        @chaos.adversarial(epsilon=0.7, at=[0, 1])
        def test_under_attack(tmp_path):
            assert accuracy(tmp_path) < 0.7
        """
    ).run(passed=2)


# -- the assertion ---------------------------------------------------------------------------------


def test_a_robust_model_passes_and_a_weak_one_does_not():
    """The margin of each sample is known."""
    x, y = samples(400)
    x[:, 1] = torch.where(y == 1, x[:, 0] - 0.5, x[:, 0] + 0.5)
    net = Net(normal=False).eval()
    assert_robust(net, x, y, epsilon=0.2, at_least=0.95)
    assert_robust(net, x, y, epsilon=0.2, method="fgsm", norm="2", at_least=0.95)
    with pytest.raises(MetricMissed, match="accuracy under attack"):
        assert_robust(net, x, y, epsilon=0.3, at_least=0.95)


def test_functions_are_judged_by_decisions():
    """A function of NumPy, with texts as classes."""
    x, y = (one.numpy() for one in samples(100))
    x[:, 1] = np.where(y == 1, x[:, 0] - 0.5, x[:, 0] + 0.5)
    words = np.array(["no", "yes"])

    def predict(rows):
        return words[(rows[:, 0] > rows[:, 1]).astype(int)]

    assert_robust(predict, x, words[y], epsilon=0.2, at_least=0.9)
    with pytest.raises(MetricMissed):
        assert_robust(predict, x, words[y], epsilon=0.3, at_least=0.9)


def test_few_samples_are_inconclusive():
    """Ten right ones do not show 95 %."""
    x, y = samples(10)
    x[:, 1] = torch.where(y == 1, x[:, 0] - 0.5, x[:, 0] + 0.5)
    with pytest.raises(Inconclusive, match="samples would probably be enough"):
        assert_robust(Net(normal=False).eval(), x, y, epsilon=0.1, at_least=0.95)


class Saturated(Net):
    """A model whose probabilities are exactly 0 or 1 far from the boundary."""

    def forward(self, x):
        """Return probabilities."""
        return torch.softmax(1000 * super().forward(x), 1)


def test_hidden_gradients_do_not_pass():
    """Samples whose gradient is 0 count as unknown."""
    x, y = samples(200)
    model = Saturated(normal=False).eval()
    with pytest.raises((Inconclusive, BadArgument), match=r"is 0|are 0"):
        assert_robust(model, x, y, epsilon=0.5, random_start=False, at_least=0.9)


def test_hidden_gradients_of_a_struck_call_are_inconclusive():
    """Most samples are far from the boundary, and cannot be attacked there."""
    x, _ = samples(200)
    with pytest.raises(Inconclusive, match="samples is 0"):
        struck(pgd(random_start=False), Saturated(normal=False).eval(), x)


def test_an_attack_by_decisions_keeps_its_budget():
    """No sample takes more queries than it may."""
    x = samples(16)[0].double().numpy()
    asked = np.zeros(16, dtype=int)

    def is_wrong(points, numbers):
        np.add.at(asked, numbers, 1)
        return points[:, 0] < -0.3

    attack = make_attack("test", "boundary", 0.1, "2", queries=500)
    fresh, used = attack_by_decisions(is_wrong, x, attack, seed=0)
    assert (used == asked).all()
    assert used.max() <= 500
    assert np.abs(fresh - x).max() <= 0.1 + 1e-9

"""Sites of training loops on torch. (needs torch)"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pytest_mlchaos import batches, faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import SimulatedCrash
from pytest_mlchaos.runs import torch_steps

faults.load()
sites.load()


def armed(*declared, probing=False):
    """A trial with these faults."""
    return trial(Schedule(declared), Patches(), probing=probing)


def model_and_optimizer():
    """A small model, and its optimizer."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 1))
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def step(model, optimizer, x=None):
    """One training step."""
    optimizer.zero_grad()
    model(torch.ones(3, 4) if x is None else x).sum().backward()
    optimizer.step()


def test_a_loop_passes_each_site_once_a_step():
    """Submodules, losses and evaluation make no forward visit of their own."""
    model, optimizer = model_and_optimizer()
    criterion = nn.MSELoss()
    with armed(probing=True) as controller:
        for x, y in DataLoader(TensorDataset(torch.ones(12, 4), torch.ones(12, 1)), batch_size=3):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            with torch.no_grad():
                model(x)
    assert controller.passed() == {
        "train.step": 4,
        "train.step.end": 4,
        "train.forward": 4,
        "train.backward": 4,
        "data.batch": 4,
        "model.forward": 8,
    }


def test_everything_is_as_before_after_a_trial():
    """No hook, no wrapper is left on torch."""
    from torch.optim import optimizer as optimizer_module
    from torch.utils.data import dataloader

    def state():
        return (
            nn.Module.__call__,
            torch.autograd._engine_run_backward,
            dict(optimizer_module._global_optimizer_pre_hooks),
            dataloader._BaseDataLoaderIter.__next__,
            dataloader._BaseDataLoaderIter.__init__,
            dataloader._SingleProcessDataLoaderIter.__dict__.get("__next__"),
        )

    before = state()
    with pytest.raises(KeyboardInterrupt), armed(create("gpu_oom", phase="forward", at=0)):
        assert state() != before
        raise KeyboardInterrupt
    assert state() == before


class Inner(torch.optim.SGD):
    """A subclass whose step calls that of its parent."""

    def step(self, closure=None):
        return super().step(closure)


class Holder(torch.optim.Optimizer):
    """An optimizer that lets a second one take its steps."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.inner = torch.optim.SGD(self.param_groups[0]["params"][:1], lr=0.1)

    def step(self, closure=None):
        self.inner.step(closure)


@pytest.mark.parametrize("make", [lambda ps: Inner(ps, lr=0.1), Holder])
def test_a_step_inside_a_step_does_not_count(make):
    """The user takes one step, also after one that has raised."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # torch hooks its step now
    model, _ = model_and_optimizer()
    optimizer = make(model.parameters())
    with armed(probing=True) as controller:
        step(model, optimizer)
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
        step(model, optimizer)
    assert controller.passed()["train.step"] == 3
    with torch_steps.trained_parameters() as trained:
        step(model, optimizer)
        assert [len(one) for one in trained()] == [4]


@pytest.mark.parametrize(
    "run",
    [
        lambda t: t.backward(),
        torch.autograd.backward,
        lambda t: torch.autograd.grad(t, t.grad_fn and [LEAF]),
    ],
)
def test_every_way_to_start_a_backward_pass_is_seen(run):
    """The method, the function, and ``grad``."""
    with armed(create("crash", site="train.backward", at=99)) as controller:
        run((LEAF * 2).sum())
    assert controller.count("train.backward") == 1


LEAF = torch.ones(3, requires_grad=True)


def test_a_backward_inside_a_backward_is_one_visit():
    """Activation checkpointing runs a backward pass of its own."""
    from torch.utils.checkpoint import checkpoint

    layer = nn.Linear(4, 4)
    with armed(probing=True) as controller:
        checkpoint(layer, torch.ones(2, 4, requires_grad=True), use_reentrant=True).sum().backward()
    assert controller.count("train.backward") == 1


def test_an_optimizer_of_the_users_own_is_seen():
    """Whatever derives from torch's Optimizer, wrapped by a scheduler or not."""

    class Plain(torch.optim.Optimizer):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(p.grad, alpha=-0.1)

    weight = nn.Parameter(torch.ones(2))
    optimizer = Plain([weight], {})
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([weight], lr=0.1), 1)
    with armed(probing=True) as controller:
        weight.sum().backward()
        optimizer.step()
        scheduler.optimizer.step()
    assert controller.count("train.step") == 2


class Squares(Dataset):
    """Numbers."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class Stream(IterableDataset):
    """Numbers, one after the other."""

    def __iter__(self):
        return iter(torch.arange(8.0))


class OwnIterator(DataLoader):
    """A loader with a generator of its own on top, as frameworks have."""

    def __iter__(self):
        yield from super().__iter__()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "make", [lambda **k: DataLoader(Squares(), **k), lambda **k: OwnIterator(Squares(), **k)]
)
def test_each_batch_of_a_loader_is_one_visit_workers_included(make, workers):
    """And the batch that is struck is the one that was scheduled."""
    loader = make(batch_size=2, num_workers=workers)
    with armed(create("corrupt_batch", at=2)) as controller:
        seen = [bool(batch.isnan().any()) for batch in loader]
    assert seen == [False, False, True, False]
    assert controller.count("data.batch") == 4


def test_iterable_datasets_and_later_defined_iterators_are_seen():
    """A class of iterators that comes into being during the trial is wrapped too."""
    from torch.utils.data import dataloader

    with armed(create("corrupt_batch", at=[1, 9])) as controller:

        class Late(dataloader._SingleProcessDataLoaderIter):
            def __next__(self):
                return super().__next__()

        assert [bool(x.isnan().any()) for x in DataLoader(Stream(), batch_size=1)] == [
            False,
            True,
        ] + [False] * 6
        assert [bool(x.isnan().any()) for x in Late(DataLoader(Stream(), batch_size=1))] == [
            False,
            True,
        ] + [False] * 6
    assert controller.count("data.batch") == 16


def test_other_iterables_pass_the_same_site_once():
    """``batches`` around a list makes visits; around a DataLoader it makes no second one."""
    with armed(create("corrupt_batch", at=1)) as controller:
        assert [bool(x.isnan().any()) for x in batches([torch.ones(2), torch.ones(2)])] == [
            False,
            True,
        ]
        wrapped = batches(DataLoader(Squares(), batch_size=4))
        assert len(wrapped) == 2
        assert wrapped.batch_size == 4
        list(wrapped)
    assert controller.count("data.batch") == 4


def test_in_place_modules_and_compiled_ones_still_work():
    """Watching does not change the user's graph."""
    model, optimizer = model_and_optimizer()
    compiled = torch.compile(model, backend="eager")
    with armed(probing=True) as controller:
        step(model, optimizer)
        step(compiled, optimizer)
    assert controller.count("train.forward") == 2
    assert controller.count("train.backward") == 2


def left_behind(model):
    """Which gradients are written."""
    return [p.grad is not None for p in model.parameters()]


class Stops(torch.autograd.Function):
    """The identity, whose backward pass fails: a failure by other means than ours."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise MemoryError("stop")


def test_an_oom_in_backward_leaves_the_gradients_that_a_failure_there_leaves():
    """The layers behind the failing operator have gradients, those in front have none, and nothing
    else was touched.
    """
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(stop):
        x = torch.ones(2, 4)
        for number, layer in enumerate(layers):
            x = layer(Stops.apply(x) if stop and number == 2 else x)
        return x.sum()

    with pytest.raises(MemoryError):
        forward(stop=True).backward()
    reference = left_behind(layers)
    gradients = [p.grad.clone() for p in layers.parameters() if p.grad is not None]
    patterns = []
    for op in range(40):
        layers.zero_grad(set_to_none=True)
        with armed(create("gpu_oom", op=op, at=0)) as controller:
            try:
                forward(stop=False).backward()
            except torch.OutOfMemoryError:
                patterns.append(left_behind(layers))
        if not controller.journal:
            break
        if patterns[-1] == reference:
            written = [p.grad for p in layers.parameters() if p.grad is not None]
            assert all(torch.equal(a, b) for a, b in zip(written, gradients, strict=True))
    assert reference in patterns
    assert patterns[0] == [False] * 8
    assert sum(map(sum, patterns)) > 0
    assert patterns == sorted(patterns, key=sum), "later operators leave more gradients behind"


def test_the_error_is_the_true_one_with_a_message_like_cudas():
    """Handlers look at the class, the single argument, and the words."""
    model, optimizer = model_and_optimizer()
    with (
        armed(create("gpu_oom", at=0)) as controller,
        pytest.raises(torch.OutOfMemoryError) as caught,
    ):
        step(model, optimizer)
    assert isinstance(caught.value, RuntimeError)
    assert len(caught.value.args) == 1
    assert str(caught.value).startswith("CUDA out of memory. Tried to allocate ")
    assert controller.is_injected(caught.value)


@pytest.mark.parametrize(
    ("phase", "site"),
    [("forward", "train.forward"), ("backward", "train.backward"), ("optimizer", "train.step")],
)
def test_each_phase_fails_at_the_step_and_operator_asked_for(phase, site):
    """And after it the loop goes on as if nothing were patched."""
    model, optimizer = model_and_optimizer()
    with armed(create("gpu_oom", phase=phase, at=1, op=1)) as controller:
        step(model, optimizer)
        with pytest.raises(torch.OutOfMemoryError):
            step(model, optimizer)
        assert torch._C._len_torch_dispatch_stack() == 0
        step(model, optimizer)
    assert [(strike.site, strike.visit) for strike in controller.journal] == [(site, 1)]


def test_an_oom_in_the_optimizer_leaves_it_half_done():
    """Some parameters are updated, or have their state, and others not."""
    weights = [nn.Parameter(torch.ones(3)) for _ in range(4)]
    optimizer = torch.optim.Adam(weights, foreach=False)
    with (
        armed(create("gpu_oom", phase="optimizer", at=0, op=5)),
        pytest.raises(torch.OutOfMemoryError),
    ):
        sum(w.sum() for w in weights).backward()
        optimizer.step()
    with_state = [len(optimizer.state.get(w, {})) for w in weights]
    assert with_state[0] > 0
    assert with_state[-1] == 0


def test_an_optimizer_that_fails_leaves_no_mode_on_the_users_stack():
    """The dispatch mode is gone before the user's own modes are left."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mine(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    model, optimizer = model_and_optimizer()
    with (
        armed(create("gpu_oom", phase="optimizer", at=0)),
        pytest.raises(torch.OutOfMemoryError),
        Mine(),
    ):
        step(model, optimizer)
    assert torch._C._len_torch_dispatch_stack() == 0


def test_an_operator_that_is_never_reached_strikes_nothing():
    """The journal says what really happened."""
    model, optimizer = model_and_optimizer()
    with armed(create("gpu_oom", at=EVERY, op=10_000)) as controller:
        step(model, optimizer)
    assert len(controller.journal) == 0


def test_the_probing_trial_measures_how_many_operators_a_phase_has():
    """Exploration then draws operators that exist."""
    model, optimizer = model_and_optimizer()
    with armed(create("gpu_oom"), probing=True) as controller:
        step(model, optimizer)
        step(model, optimizer)
    reach = controller.scheduled[0].measures["op"]
    with armed(create("gpu_oom", at=0, op=reach - 1)), pytest.raises(torch.OutOfMemoryError):
        step(model, optimizer)
    with armed(create("gpu_oom", at=0, op=reach)) as controller:
        step(model, optimizer)
    assert not controller.journal


def test_random_numbers_are_not_drawn_by_an_operator_that_did_not_run():
    """A dropout that found no memory has not moved the generator."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))
    with armed(create("gpu_oom", phase="forward", at=0, op=0)):
        before = torch.get_rng_state()
        with pytest.raises(torch.OutOfMemoryError):
            model(torch.ones(2, 4))
        assert torch.equal(torch.get_rng_state(), before)


def test_the_end_of_a_step_is_a_site_of_its_own():
    """train.step.end is passed behind the step: the weights have changed; an error there leaves
    step and gradients counted.
    """
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    weight.grad = torch.ones(1)
    with (
        trial(Schedule((create("crash", site="train.step.end", at=1),)), Patches()) as controller,
        torch_steps.watch_training() as trained,
    ):
        optimizer.step()
        with pytest.raises(SimulatedCrash, match=r"train\.step\.end 1"):
            optimizer.step()
        assert weight.item() == 0.0
        assert controller.count("train.step", succeeded=True) == 2
        assert len(trained.gradients()) == 2
        controller.restart()

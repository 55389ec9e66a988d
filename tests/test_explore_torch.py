"""``mlchaos.explore_crashes`` on training loops: each thing that a checkpoint can lack is named. Needs torch."""

from __future__ import annotations

import textwrap

import pytest

pytest.importorskip("torch")

LOOP = '''
import copy, os, pathlib, random
import numpy as np, pytest, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ALL = ("model", "opt", "sched", "rng", "python", "numpy", "gen", "ema", "scaler", "position")

def train(workdir, steps=12, *, without=(), atomic=True, every=3, shift=0, noise=True):
    """Saves and restores all that matters, but for what it is told to forget."""
    torch.manual_seed(0); np.random.seed(0); random.seed(0); torch.set_num_threads(1)
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    gen = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=True), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
    ema = copy.deepcopy(model)
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    sched = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    file = pathlib.Path(workdir) / "last.pt"
    step, order, at = 0, None, 0
    if file.exists():
        c = torch.load(file, weights_only=False)
        step = c["step"]
        for name, target in (("model", model), ("opt", opt), ("sched", sched), ("ema", ema), ("scaler", scaler)):
            if name not in without:
                state = c[name]
                if name == "model" and "buffers" in without:
                    state = {k: v for k, v in state.items() if "running" not in k and "num_batches" not in k}
                target.load_state_dict(state, strict=False) if name == "model" else target.load_state_dict(state)
        if "gen" not in without: gen.set_state(c["gen"])
        if "position" not in without: order, at = c["order"], c["at"] + shift
        if "rng" not in without: torch.set_rng_state(c["rng"])
        if "python" not in without: random.setstate(c["python"])
        if "numpy" not in without: np.random.set_state(c["numpy"])
    while step < steps:
        if order is None or at + 4 > len(order):
            order, at = torch.randperm(20, generator=gen), 0
        batch = x[order[at:at + 4]]
        if noise: batch = batch * random.choice([1.0, 0.9]) + 0.01 * float(np.random.randn())
        loss = model(batch).pow(2).mean()
        opt.zero_grad(); scaler.scale(loss).backward(); scaler.step(opt); scaler.update(); sched.step()
        with torch.no_grad():
            for a, b in zip(ema.parameters(), model.parameters()): a.lerp_(b, 0.1)
        step += 1; at += 4
        if step % every == 0:
            held = dict(model=model, opt=opt, sched=sched, ema=ema, scaler=scaler)
            state = {name: one.state_dict() for name, one in held.items()}
            state |= dict(gen=gen.get_state(), order=order, at=at, step=step)
            state |= dict(rng=torch.get_rng_state(), python=random.getstate(), numpy=np.random.get_state())
            if atomic:
                torch.save(state, f"{file}.tmp"); os.replace(f"{file}.tmp", file)
            else:
                torch.save(state, file)
    return {"model": model.state_dict(), "ema": ema.state_dict(), "scale": scaler.get_scale(), "step": step}

def first(report):
    return next(outcome.divergence.component for outcome in report.failures if outcome.divergence)
'''


@pytest.fixture
def project(example):
    """A project with the loop."""
    return lambda tests: example.with_tests(LOOP + textwrap.dedent(tests))


def test_a_loop_that_saves_all_recovers_and_one_that_writes_in_place_does_not(project):
    """The flagship: exhaustive, no false alarm, the torn checkpoint named."""
    project("""
        def test_sound(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path)
            report.assert_recovers(max_lost_steps=3)
            assert report.steps == 12 and report.max_lost_steps == 3 and report.recovery_time > 0 and len(report.states) > 20

        def test_unsound(mlchaos, tmp_path):
            def in_place(workdir): return train(workdir, atomic=False)
            mlchaos.explore_crashes(in_place, tmp_path).assert_recovers()
    """).run(passed=1, failed=1, fresh=True).has(
        "resume raised EOFError",
        "first: last.pt cut at byte 0 of ",
        'reproduce: @chaos.crash(state="last.pt@0#3")',
        "lost work: at most 3 steps",
    )


def test_what_a_checkpoint_lacks_is_the_first_diagnosis(project):
    """One at a time: the component that is named is the one that was forgotten."""
    project("""
        @pytest.mark.parametrize(("forgotten", "component"), [
            ("opt", {"optimizer state"}), ("sched", {"learning rate", "scheduler"}), ("buffers", {"buffers"}),
            ("scaler", {"gradient scaler"}), ("rng", {"rng.torch"}), ("python", {"rng.python"}), ("numpy", {"rng.numpy"}),
            ("gen", {"data order"}), ("position", {"data order"}), ("model", {"parameters", "optimizer state", "learning rate"}),
        ])
        def test_it(mlchaos, tmp_path, forgotten, component):
            def forgets(workdir): return train(workdir, without=(forgotten,), every=3)
            report = mlchaos.explore_crashes(forgets, tmp_path, torn_writes=False)
            print(report)
            assert first(report) in component

        def test_ema(mlchaos, tmp_path):
            def forgets(workdir): return train(workdir, without=("ema",))
            report = mlchaos.explore_crashes(forgets, tmp_path, torn_writes=False)
            assert first(report) == "ema" and "moving average" in str(report)

        @pytest.mark.parametrize(("shift", "says"), [(4, "the batch of step 3 is skipped"), (-4, "the batch of step 2 is repeated")])
        def test_off_by_one(mlchaos, tmp_path, shift, says):
            def shifted(workdir): return train(workdir, shift=shift, noise=False)
            report = mlchaos.explore_crashes(shifted, tmp_path, torn_writes=False)
            assert first(report) == "data order" and f"off by one: {says}" in str(report)
    """).run(passed=13, fresh=True)


def test_steps_are_seen_where_a_framework_brings_its_own_optimizer(project):
    """Backward passes are the steps then, and the leaves of the graph the parameters."""
    project("""
        def own(workdir, steps=8):
            torch.manual_seed(0)
            w, step, file = torch.zeros(3, requires_grad=True), 0, pathlib.Path(workdir) / "w.pt"
            if file.exists():
                c = torch.load(file); step = c["step"]
                with torch.no_grad(): w.copy_(c["w"])
            while step < steps:
                (w * torch.arange(3.0) + step).pow(2).sum().backward()
                with torch.no_grad(): w -= 0.01 * w.grad
                w.grad = None; step += 1
                if step % 2 == 0: torch.save({"w": w.detach().clone(), "step": step}, f"{file}.tmp"); os.replace(f"{file}.tmp", file)
            return w

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(own, tmp_path)
            report.assert_recovers(max_lost_steps=2)
            assert report.steps == 8 and {outcome.resumed_at for outcome in report.outcomes} == {0, 2, 4, 6, 8}
    """).run(passed=1, fresh=True)


def test_a_horizon_ends_runs_that_match(project):
    """Once so many steps were the golden run's, the rest is not run; a bug before the horizon is still found."""
    project("""
        def test_it(mlchaos, tmp_path):
            taken = []
            def counted(workdir):
                value = train(workdir, steps=24)
                taken.append(value["step"])
                return value
            report = mlchaos.explore_crashes(counted, tmp_path, horizon=4, torn_writes=False)
            report.assert_recovers()
            early = [o for o in report.outcomes if o.resumed_at is not None and o.resumed_at < 18]
            assert len(early) > 3 and report.steps == 24

        def test_found(mlchaos, tmp_path):
            def forgets(workdir): return train(workdir, without=("opt",), steps=24)
            assert mlchaos.explore_crashes(forgets, tmp_path, horizon=4, torn_writes=False).failures
    """).run(passed=2, fresh=True)


def test_a_subject_without_any_step_is_told_so(project):
    """Zero steps asked for: nothing could be lost."""
    project("""
        def idle(workdir):
            model = nn.Linear(2, 2); model(torch.ones(1, 2))
            torch.save(model.state_dict(), pathlib.Path(workdir) / "m.pt")
            return 1

        def test_it(mlchaos, tmp_path):
            mlchaos.explore_crashes(idle, tmp_path)
    """).run(failed=1, fresh=True).has("made 1 forward passes in training and took no step")

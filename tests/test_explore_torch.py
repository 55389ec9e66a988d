"""``mlchaos.explore_crashes`` on training loops: each thing that a checkpoint can lack is named.
Needs torch.
"""

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_horizon_ends_runs_that_match(project):
    """Once so many steps were the golden run's, the rest is not run; a bug before the horizon is
    still found.
    """
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


@pytest.mark.slow
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


SMALL = '''
import random
import numpy as np, pytest, torch

def train(workdir, *, draw, forgotten=(), early=False, returns="model", extra=0):
    """Batches that are drawn from a replay buffer, with a generator whose state is in the checkpoint."""
    torch.manual_seed(0); np.random.seed(0); random.seed(0)
    model = torch.nn.Linear(1, 1)
    path, done, replay = workdir / "last.pt", 0, []
    if path.exists():
        saved = torch.load(path, weights_only=False)
        model.load_state_dict(saved["model"]); done = saved["step"]
        if "rng" not in forgotten:
            np.random.set_state(saved["numpy"]); torch.set_rng_state(saved["torch"]); random.setstate(saved["python"])
        if "replay" not in forgotten: replay = saved["replay"]
        torch.randint(0, 9, (extra,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(done, 6):
        replay.append(float(step))
        picked = [replay[i] for i in draw(len(replay))]
        optimizer.zero_grad()
        (model(torch.tensor(picked)[:, None]) - 1).square().mean().backward()
        if not early: optimizer.step()
        if step % 3 == 2:
            rng = {"numpy": np.random.get_state(), "torch": torch.get_rng_state(), "python": random.getstate()}
            torch.save({"model": model.state_dict(), "step": step + 1, "replay": list(replay), **rng}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        if early: optimizer.step()
    return model.state_dict() if returns == "model" else model.weight.sum().item()

DRAWS = {
    "numpy": lambda n: np.random.randint(0, n, 4), "torch": lambda n: torch.randperm(n)[:4].tolist(),
    "python": lambda n: random.sample(range(n), min(n, 3)),
}

def explored(mlchaos, tmp_path, **options):
    report = mlchaos.explore_crashes(lambda workdir: train(workdir, **options), tmp_path, torn_writes=False)
    return report.text() if report.failures else "all recover"
'''


@pytest.mark.slow
def test_a_generator_that_differs_because_a_buffer_was_lost_is_not_blamed(example):
    """The lost buffer and the generator's other draws come in one step; a generator that really is
    lost is still named.
    """
    example.with_tests(
        SMALL
        + """
@pytest.mark.parametrize("name", sorted(DRAWS))
def test_buffer(mlchaos, tmp_path, name):
    text = explored(mlchaos, tmp_path, draw=DRAWS[name], forgotten=("replay",))
    assert f"rng.{name} was restored, but differs in the same step" in text
    assert "generator's state is not restored" not in text

@pytest.mark.parametrize("name", sorted(DRAWS))
def test_generator(mlchaos, tmp_path, name):
    text = explored(mlchaos, tmp_path, draw=DRAWS[name], forgotten=("rng",))
    assert f"step 3: rng.{name}" in text and "generator's state is not restored" in text and "epoch" not in text

def test_a_draw_that_is_made_when_it_resumes(mlchaos, tmp_path):
    text = explored(mlchaos, tmp_path, draw=DRAWS["torch"], extra=1)
    assert "more or fewer numbers were drawn after the load" in text and "not restored either" not in text
    assert "generator's state is not restored" not in text

def test_sound(mlchaos, tmp_path):
    for name in DRAWS:
        assert "all recover" in explored(mlchaos, tmp_path / name, draw=DRAWS[name])
"""
    ).run(passed=8, fresh=True)


@pytest.mark.slow
def test_a_checkpoint_that_is_saved_before_its_own_step_is_named_for_the_last_one_too(example):
    """Also where the optimizer is made behind the load, and a number is returned."""
    example.with_tests(
        SMALL
        + """
@pytest.mark.parametrize("returns", ["model", "number"])
def test_it(mlchaos, tmp_path, returns):
    text = explored(mlchaos, tmp_path, draw=lambda n: [n - 1], early=True, returns=returns)
    assert text.count("off by one: one step is missing") == 2
    assert "continues with step 3" in text and "no step follows" in text
"""
    ).run(passed=2, fresh=True)

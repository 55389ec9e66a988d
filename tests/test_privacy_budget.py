# needs torch
"""Differential privacy under fault: what the accountant holds, and what was spent."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
import torch

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import BadArgument, BudgetExceeded, Inconclusive, NotAccounted

STEPS = 12


class Accountant:
    """An accountant by the book of Gaussian mechanisms without sampling: epsilon grows with the
    root of the number of steps.
    """

    def __init__(self):
        self.history = []

    def step(self, noise, rate):
        if self.history and self.history[-1][:2] == (noise, rate):
            self.history[-1] = (noise, rate, self.history[-1][2] + 1)
        else:
            self.history.append((noise, rate, 1))

    def get_epsilon(self, delta):
        spent = sum(rate**2 * steps / noise**2 for noise, rate, steps in self.history)
        return math.sqrt(2 * math.log(1.25 / delta) * spent)


class NoisySgd:
    """An optimizer that wraps a second one, as libraries for differential privacy do."""

    def __init__(self, inner, noise_multiplier, accountant):
        self.inner, self.noise_multiplier, self.accountant = inner, noise_multiplier, accountant

    def step(self):
        for group in self.inner.param_groups:
            for parameter in group["params"]:
                parameter.grad += self.noise_multiplier * torch.randn_like(parameter) / 64
        self.accountant.step(self.noise_multiplier, 0.5)
        self.inner.step()


def train(
    folder, *, steps=STEPS, save=("model", "accountant"), every=1, noise=4.0, noisy_again=True
):
    """Train a model with noise, and save it after each ``every`` steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    accountant, done, resumed = Accountant(), 0, False
    if (folder / "last.pt").exists():
        state = torch.load(folder / "last.pt")
        done, resumed = state["done"], True
        if "model" in state:
            model.load_state_dict(state["model"])
        if "accountant" in state:
            accountant.history = list(map(tuple, state["accountant"]))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    private = NoisySgd(sgd, noise, accountant)
    while done < steps:
        sgd.zero_grad()
        model(torch.randn(64, 4)).square().mean().backward()
        (private if noisy_again or not resumed else sgd).step()
        done += 1
        if done % every == 0:
            found = {"model": model.state_dict(), "accountant": accountant.history}
            torch.save({"done": done, **{name: found[name] for name in save}}, folder / "new.pt")
            (folder / "new.pt").replace(folder / "last.pt")
    return {"epsilon": accountant.get_epsilon(1e-5)}


BUDGET = {"epsilon": 20.0, "delta": 1e-5}


@chaos.crash(at=7, site="train.step")
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_a_job_that_saves_its_accountant_passes(mlchaos, tmp_path, isolation):
    """In this process, and in processes that get SIGKILL."""
    run = mlchaos.run(train, tmp_path, isolation=isolation)
    assert run.restarts == 1
    run.assert_privacy_budget(**BUDGET)


@chaos.crash(at=7, site="train.step")
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_a_job_that_forgets_its_accountant_fails(mlchaos, tmp_path, isolation):
    """It reports the steps since the restart, and all of them are in the model."""

    def forgetful(folder):
        return train(folder, save=["model"])

    run = mlchaos.run(forgetful, tmp_path, isolation=isolation)
    with pytest.raises(
        NotAccounted,
        match=r"the accountant of the run holds 5 of 12 noisy optimizer steps\. It reports "
        r"epsilon = 1\.35 where 2\.10 was spent .* must load the accountant's state",
    ):
        run.assert_privacy_budget(**BUDGET)
    with pytest.raises(NotAccounted, match="the run took 12 noisy optimizer steps"):
        run.assert_privacy_budget(**BUDGET, reported="epsilon")


@chaos.crash(at=7, site="train.step")
def test_lost_steps_count_if_they_were_seen(mlchaos, tmp_path):
    """A crash loses three steps. They are not in the model, but a log may show them."""

    def seldom(folder):
        return train(folder, every=4)

    run = mlchaos.run(seldom, tmp_path)
    assert run.steps == STEPS + 3
    run.assert_privacy_budget(**BUDGET)
    with pytest.raises(NotAccounted, match="holds 12 of 15 noisy optimizer steps"):
        run.assert_privacy_budget(**BUDGET, lost_steps="counted")


@chaos.crash(at=7, site="train.step")
def test_a_job_that_starts_afresh_has_lost_all_steps(mlchaos, tmp_path):
    """It begins with the parameters of the first attempt's start."""

    def afresh(folder):
        return train(folder, every=99)

    mlchaos.run(afresh, tmp_path).assert_privacy_budget(**BUDGET)


@chaos.crash(at=7, site="train.step")
def test_a_start_that_no_step_left_is_inconclusive(mlchaos, tmp_path):
    """A job may change its parameters when it loads them, so its steps cannot be placed."""

    def rounded(folder):
        if (folder / "last.pt").exists():
            state = torch.load(folder / "last.pt")
            state["model"] = {name: one.half().float() for name, one in state["model"].items()}
            torch.save(state, folder / "last.pt")
        return train(folder, save=["model"])

    run = mlchaos.run(rounded, tmp_path)
    with pytest.raises(Inconclusive, match="attempt 2 of the run begins with parameters that no"):
        run.assert_privacy_budget(**BUDGET)


@chaos.crash(at=7, site="train.step")
def test_steps_without_noise_are_not_private(mlchaos, tmp_path):
    """A restart may forget to make its optimizer private again."""

    def plain_again(folder):
        return train(folder, noisy_again=False)

    run = mlchaos.run(plain_again, tmp_path)
    with pytest.raises(NotAccounted, match="5 of 12 optimizer steps of the run added no noise"):
        run.assert_privacy_budget(**BUDGET)


@chaos.crash(at=7, site="train.step")
def test_a_budget_that_the_golden_run_exceeds(mlchaos, tmp_path):
    """No fault is the cause."""
    run = mlchaos.run(train, tmp_path)
    with pytest.raises(
        BudgetExceeded,
        match=r"the golden run, without any fault, spent epsilon = 2\.10 with 12 noisy optimizer "
        r"steps, and the budget is 2 ",
    ):
        run.assert_privacy_budget(epsilon=2.0, delta=1e-5)


@chaos.crash(at=7, site="train.step")
def test_more_steps_than_planned_exceed_the_budget(mlchaos, tmp_path):
    """A job that counts its steps anew after a restart trains longer, and accounts for that."""

    def longer(folder):
        if (folder / "last.pt").exists():
            state = torch.load(folder / "last.pt")
            torch.save({**state, "done": 0}, folder / "last.pt")
        return train(folder)

    run = mlchaos.run(longer, tmp_path)
    with pytest.raises(BudgetExceeded, match=r"the run spent epsilon = 2\.64 with 19 noisy"):
        run.assert_privacy_budget(epsilon=2.2, delta=1e-5)


@chaos.crash(at=2, site="train.step")
def test_a_job_without_noise_has_nothing_to_judge(mlchaos, tmp_path):
    """The message says how a private optimizer is recognised."""

    def plain(folder):
        model = torch.nn.Linear(2, 1)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model(torch.ones(4, 2)).sum().backward()
            sgd.step()

    run = mlchaos.run(plain, tmp_path)
    with pytest.raises(BadArgument, match="no optimizer step of the golden run adds noise"):
        run.assert_privacy_budget(**BUDGET)


@chaos.crash(at=2, site="train.step")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"epsilon": 0, "delta": 1e-5}, "epsilon must be a positive number"),
        ({"epsilon": math.nan, "delta": 1e-5}, "epsilon must be a positive number"),
        ({"epsilon": 1, "delta": 1}, "delta must be between 0 and 1"),
        ({**BUDGET, "lost_steps": "none"}, "lost_steps must be 'discarded' or 'counted'"),
        ({**BUDGET, "reported": "eps"}, "reported must give a number .* KeyError"),
    ],
)
def test_wrong_arguments(mlchaos, tmp_path, arguments, told):
    """Each is named."""
    run = mlchaos.run(train, tmp_path)
    with pytest.raises(BadArgument, match=told):
        run.assert_privacy_budget(**arguments)


@pytest.mark.slow
def test_the_example_with_opacus(pytestconfig):
    """Its checkpoints lack the accountant unless the user saves it."""
    pytest.importorskip("opacus")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/private"],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "1 failed, 1 passed" in ended.stdout
    assert re.search(
        r"holds 15 of 30 noisy optimizer steps \(2 more were taken, and a crash lost their result\)\. "
        r"It reports epsilon = 3\.\d+ where 4\.\d+ was spent",
        ended.stdout,
    )


@pytest.mark.slow
@chaos.crash(at=3)
def test_a_numerical_accountant(mlchaos, tmp_path):
    """Its epsilon has an error bound, and it is told of each step by a hook of the optimizer."""
    opacus = pytest.importorskip("opacus")

    def job(folder):
        torch.manual_seed(len(list(folder.iterdir())))
        (folder / f"attempt {len(list(folder.iterdir()))}").touch()
        data = torch.utils.data.TensorDataset(torch.randn(256, 4), torch.randint(0, 2, (256,)))
        model = torch.nn.Linear(4, 2)
        engine = opacus.PrivacyEngine()
        model, sgd, loader = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=torch.utils.data.DataLoader(data, batch_size=64),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for x, y in loader:
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            sgd.step()
        return engine.get_epsilon(1e-5)

    run = mlchaos.run(job, tmp_path)
    # The second attempt begins with other weights, so it does not go on from the first
    with pytest.raises(Inconclusive, match="attempt 2 of the run begins with parameters"):
        run.assert_privacy_budget(epsilon=8, delta=1e-5)
    with pytest.raises(NotAccounted, match=r"where .* was spent"):
        run.assert_privacy_budget(epsilon=8, delta=1e-5, reported=lambda epsilon: epsilon)

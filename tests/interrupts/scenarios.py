"""Define the scenarios to interrupt: each way in which the plugin runs code, as small as possible.

``soak.py`` runs one at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import time

from pytest_mlchaos import chaos


def train(folder):
    """Counts to four; goes on from its checkpoint."""
    path = pathlib.Path(folder, "state.json")
    steps = json.loads(path.read_text()) if path.exists() else 0
    while steps < 4:
        time.sleep(0)
        steps += 1
        part = path.with_suffix(".part")
        part.write_text(json.dumps(steps))
        os.replace(part, path)
    return steps


@chaos.flaky_storage(op="write", path="*.part", at=1)
@chaos.call_delay(target="json:dumps", at=0, delay=0.001)
def test_run(mlchaos, tmp_path):
    """Restarts, and a golden run with other directories in their place."""
    mlchaos.run(train, tmp_path).assert_recovered()


@chaos.call_delay(target="json:dumps")
@chaos.call_failure(target="json:loads", error=ValueError)
@chaos.settings(max_trials=15)
def test_search(monkeypatch):
    """Some fifteen trials, with fixtures of their own."""
    monkeypatch.setenv("MLCHAOS_SEEN", "1")
    for _ in range(10):
        try:
            json.loads(json.dumps({}))
        except ValueError:
            pass


@chaos.flaky_storage
@chaos.settings(max_trials=10)
def test_storage(tmp_path):
    """Each of the operations of a writer that tries again."""
    for number in range(3):
        for _ in range(4):
            try:
                (tmp_path / f"part-{number}").write_text("data")
                break
            except OSError:
                time.sleep(1)


async def answer(number):
    """A handler that waits, in virtual time."""
    await asyncio.sleep(1)
    return json.loads(json.dumps(number))


@chaos.call_delay(target="json:dumps", at=2, delay=5)
def test_serve(mlchaos):
    """A service on its own event loop, and its golden run."""
    service = mlchaos.serve(answer)
    service.drive(list(range(8)))
    service.drive(list(range(8))).assert_slo(error_rate=0)


def test_explore(mlchaos, tmp_path):
    """Crash states, each resumed in this process."""
    mlchaos.explore_crashes(train, tmp_path, isolation="in-process").assert_recovers()


def test_explore_fresh(mlchaos, tmp_path):
    """Crash states, each resumed in a fresh process."""
    mlchaos.explore_crashes(train, tmp_path, isolation="process").assert_recovers()


def test_explore_jobs(mlchaos, tmp_path):
    """The same, two at a time."""
    mlchaos.explore_crashes(train, tmp_path, jobs=2).assert_recovers()


@chaos.flaky_storage(op="write", path="*.part", at=1)
def test_process(mlchaos, tmp_path):
    """Attempts and the golden run are processes."""
    mlchaos.run(train, tmp_path, isolation="process").assert_recovered()


def learn(folder):
    """Trains with torch's own loader, hooks and optimizer."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(torch.ones(8, 2))
    for (batch,) in torch.utils.data.DataLoader(data, batch_size=2):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    torch.save(model.state_dict(), os.path.join(folder, "model.pt"))
    return model.state_dict()


@chaos.gpu_oom(at=1)
@chaos.nan_gradient(at=2)
def test_torch(mlchaos, tmp_path):
    """Hooks, dispatch modes, and the golden run."""
    assert mlchaos.run(learn, tmp_path).restarts == 1


def rank(steps=2):
    """Two ranks that meet at each step."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    for _ in range(steps):
        dist.all_reduce(torch.ones(1))
    dist.destroy_process_group()


def test_world(mlchaos):
    """Two ranks, their agent, and the warm process."""
    assert mlchaos.world(ranks=2, timeout=20).run(rank).restarts == 0

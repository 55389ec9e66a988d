"""Measure a world of two ranks from the call to the end of the last process, plain and with a
killed rank, and the schedules of a search over such worlds.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
from pathlib import Path

from sessions import run_test_file
from timing import Figure, Spread

NEEDS = "psutil"
MODULE = "test_bench_worlds"
TESTS = """
import functools, os, signal, time
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from pytest_mlchaos import chaos

seconds = {}
real_seconds = functools.partial(time.perf_counter)  # no name of a function of time: virtual time leaves it alone

def train(kill=False):
    dist.init_process_group("gloo")
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        model(torch.ones(2, 4)).sum().backward()
        if kill and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step()

def job(folder, steps=20):
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saved, done = folder / "last.pt", 0
    if saved.exists():
        done, state = torch.load(saved)
        model.load_state_dict(state)
    for step in range(done, steps):
        optimizer.zero_grad()
        ddp(torch.full((8, 4), (dist.get_rank() + step) / 20)).square().mean().backward()
        optimizer.step()
        if step % 5 == 4:
            if dist.get_rank() == 0:
                torch.save((step + 1, model.state_dict()), folder / "new.pt")
                os.replace(folder / "new.pt", saved)
            dist.barrier()
    return model.state_dict()

starts = {"a killed rank": [], "restarted": []}

@chaos.rank_failure(mode=chaos.one_of("kill", "raise", "exit"))
@chaos.settings(max_trials=SCHEDULES, max_faults=2, timeout=None)
def test_search_of_failures(mlchaos, tmp_path):
    starts["a killed rank"].append(real_seconds())
    mlchaos.world(ranks=2).run(job, tmp_path).assert_failed_fast()

@chaos.rank_failure(mode=chaos.one_of("kill", "raise", "exit"))
@chaos.settings(max_trials=SCHEDULES, max_faults=1, timeout=None)
def test_search_of_restarts(mlchaos, tmp_path):
    starts["restarted"].append(real_seconds())
    mlchaos.world(ranks=2, restarts=1).run(job, tmp_path).assert_recovered()

def measured(mlchaos, name, rounds, check, *args):
    world = mlchaos.world(ranks=2)
    check(world.run(train, *args))  # the first starts the warm process
    for _ in range(rounds):
        start = real_seconds()
        run = world.run(train, *args)
        seconds.setdefault(name, []).append(real_seconds() - start)
        check(run)

@chaos.settings(timeout=None)
def test_up_and_down(mlchaos):
    measured(mlchaos, "up and down", ROUNDS, lambda run: run.assert_finished())

@chaos.settings(timeout=None)
def test_killed(mlchaos):
    def check(run):
        assert run.ranks[1].exitcode == -9
        assert run.ranks[0].exitcode == 1
    measured(mlchaos, "killed", ROUNDS, check, True)
    import psutil
    left = [p for p in psutil.Process().children(recursive=True) if p.is_running() and p.status() != "zombie"]
    assert len(left) == 1, left  # the warm process
"""


def measure(quick: bool) -> list[Figure]:
    """Measure both, one world after the other, in one process."""
    if importlib.util.find_spec("torch") is None:
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = TESTS.replace("ROUNDS", "10" if quick else "50")
        tests = tests.replace("SCHEDULES", "20" if quick else "200")
        (folder / f"{MODULE}.py").write_text(tests)
        run_test_file(folder, MODULE)
    seconds, starts = sys.modules[MODULE].seconds, sys.modules[MODULE].starts
    return [
        _figure("world of 2 ranks (DDP, gloo), up and down", seconds["up and down"], 250),
        _figure("the same, one rank killed", seconds["killed"], 500),
        *(
            _figure(f"one schedule of a search, 2 ranks and 20 steps, {name}", _gaps(times), 300)
            for name, times in starts.items()
        ),
    ]


def _gaps(times: list[float]) -> list[float]:
    """Return the seconds from one trial to the next. The first two also run without faults."""
    return [later - earlier for earlier, later in itertools.pairwise(times[2:])]


def _figure(what: str, seconds: list[float], budget: float) -> Figure:
    samples = [value * 1e3 for value in seconds]
    note = f"longest of {len(samples)}: {max(samples):.0f} ms"
    return Figure(
        what=what,
        unit="ms",
        measured=Spread.of(samples),
        quiet=sorted(samples)[len(samples) // 10],
        budget=budget,
        note=note,
    )

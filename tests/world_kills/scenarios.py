"""Worlds that run until something is killed: one scenario is a test that ``soak.py`` runs.

The test tells the soak on one pipe where it is, and waits on the other before each world.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from pytest_mlchaos import chaos

STEPS = 12
NEVER = 10**9
# pytest passes these descriptors to nothing else, so that they end with it
TOLD, AWAITED = (int(fd) for fd in os.environ["MLCHAOS_KILLS_PIPES"].split(","))


def job(folder, *, beside=False, asks_for_segments=False):
    """Train in step. Write the port and the processes that the soak must not find later."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    started = []
    if beside:
        code = "import os, time; os.setsid(); time.sleep(600)"
        started = [subprocess.Popen([sys.executable, "-c", code])]
        iterator = iter(DataLoader(list(range(10_000)), num_workers=1))
    shared = multiprocessing.Queue() if asks_for_segments else None
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    (folder / f"port-{os.getpid()}").write_text(os.environ["MASTER_PORT"])
    for step in range(STEPS):
        if beside:
            next(iterator)
        if shared is not None:
            shared.put(torch.ones(1000).share_memory_())
        weight.grad = torch.full((4,), float(rank + step))
        dist.all_reduce(weight.grad)
        optimizer.step()
        time.sleep(0.01)
    for child in started:
        child.kill()
        child.wait()
    dist.destroy_process_group()


def worlds(mlchaos, tmp_path, work=job, **options):
    """Run worlds until the soak ends."""
    number = 0
    while os.read(AWAITED, 1):
        tell("begin", number)
        try:
            run = mlchaos.world(ranks=2, timeout=20, grace=2, **options).run(work, tmp_path)
            ended = run.story()
        except Exception as error:  # noqa: BLE001  # any end is told
            ended = f"{type(error).__name__}: {error}"
        tell("end", ended)
        number += 1


def tell(kind, what):
    """Send a line to the soak."""
    os.write(TOLD, (json.dumps([kind, what]) + "\n").encode())


@chaos.settings(timeout=100_000)
def test_plain(mlchaos, tmp_path):
    """Two ranks."""
    worlds(mlchaos, tmp_path)


@chaos.settings(timeout=100_000)
def test_children(mlchaos, tmp_path):
    """Ranks with loader workers, a child that has a session of its own, and shared memory."""

    def work(folder: Path):
        job(folder, beside=True, asks_for_segments=True)

    worlds(mlchaos, tmp_path, work)


@chaos.settings(timeout=100_000)
def test_restarts(mlchaos, tmp_path):
    """A world that starts again."""
    worlds(mlchaos, tmp_path, restarts=1)


@chaos.settings(timeout=100_000, allow_quiet=True)
@chaos.network_partition(groups=[[0], [1]], at=NEVER)
def test_links(mlchaos, tmp_path):
    """Connections that a switch passes on."""
    worlds(mlchaos, tmp_path)


@chaos.settings(timeout=100_000, allow_quiet=True)
@chaos.store_failure(mode="down", at=NEVER)
def test_store(mlchaos, tmp_path):
    """A store in a process of its own."""
    worlds(mlchaos, tmp_path)


@chaos.settings(timeout=100_000, allow_quiet=True)
@chaos.network_partition(groups=[[0], [1]], at=NEVER, real=True)
def test_real(mlchaos, tmp_path):
    """Ranks with networks of their own."""
    worlds(mlchaos, tmp_path)


@chaos.settings(timeout=100_000)
def test_elastic(mlchaos, tmp_path):
    """Torch's own elastic agent, which starts the ranks again."""
    worlds(mlchaos, tmp_path, elastic=True, min_ranks=1, restarts=1)

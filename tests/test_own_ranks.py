"""Ranks that a subject starts by itself: by commands, by multiprocessing, by launchers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import pytest

from pytest_mlchaos import chaos

torch = pytest.importorskip("torch")

WRITER = """
import pathlib, sys

folder = pathlib.Path(sys.argv[1])
for step in range(4):
    (folder / f"{sys.argv[2]}-{step}").write_text("done")
"""


def launch(folder, ranks=2):
    """Start a command for each rank, as launchers do, and return the exit codes."""
    script = folder / "writer.py"
    script.write_text(WRITER)
    codes = []
    for rank in range(ranks):
        variables = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks)}
        command = [sys.executable, str(script), str(folder), str(rank)]
        codes.append(subprocess.run(command, env=variables, check=False).returncode)
    return codes


def written(folder):
    """Return the names of what the ranks have written to the end."""
    return sorted(path.name for path in folder.iterdir() if path.read_text() == "done")


@chaos.rank_failure(site="storage.write", rank=1, at=2)
def test_a_rank_that_a_command_starts_dies(mlchaos, tmp_path):
    """The visits of rank 0 do not count, and the strike is attributed to rank 1."""
    assert launch(tmp_path) == [0, -9]
    assert written(tmp_path) == ["0-0", "0-1", "0-2", "0-3", "1-0", "1-1"]
    assert [strike.details["rank"] for strike in mlchaos.journal] == [1]


@chaos.flaky_storage(op="write", rank=1, at=1)
def test_any_fault_can_be_bound_to_such_a_rank(mlchaos, tmp_path):
    """Each rank counts its own visits."""
    assert launch(tmp_path) == [0, 1]
    assert written(tmp_path) == ["0-0", "0-1", "0-2", "0-3", "1-0"]


@chaos.rank_failure(site="storage.write", rank=1, at=2)
def test_the_counts_go_on_after_a_restart_in_the_subject(mlchaos, tmp_path):
    """A launcher that starts its ranks again meets the fault once."""
    assert launch(tmp_path) == [0, -9]
    assert launch(tmp_path) == [0, 0]
    assert len(mlchaos.journal) == 1


@chaos.rank_failure(site="storage.write", rank=0, at=0)
def test_nothing_is_left_in_the_environment(mlchaos, tmp_path):
    """The hook is there for the test's body only, and only processes with a rank are struck."""
    assert "mlchaos-ranks-" in os.environ["PYTHONPATH"]
    os.environ.setdefault("LEFT", os.environ["PYTHONPATH"])
    assert launch(tmp_path, ranks=1) == [-9]


def test_the_environment_is_as_before():
    """Nothing of the test before is left."""
    assert "mlchaos-ranks-" not in os.environ.get("PYTHONPATH", "")


@chaos.slow_storage(at=0)
def test_a_test_without_ranks_has_no_hook(mlchaos, tmp_path):
    """The environment changes only if a fault strikes only in ranks."""
    (tmp_path / "file").write_text("x")
    assert "mlchaos-ranks-" not in os.environ.get("PYTHONPATH", "")


STEPS = """
import torch

weight = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.1)
for _ in range(3):
    weight.grad = torch.ones(1)
    optimizer.step()
"""


def takes_steps(folder):
    """Let a command take steps as rank 1, and once more if it fails. Return the last exit code."""
    (folder / "steps.py").write_text(STEPS)
    command = [sys.executable, str(folder / "steps.py")]
    variables = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    codes = [subprocess.run(command, env=variables, check=False).returncode for _ in range(2)]
    return codes[-1]


@pytest.mark.slow
@chaos.settings(timeout=250)
@chaos.rank_failure(rank=1, at=1)
def test_the_steps_of_such_a_rank_are_not_those_of_the_run(mlchaos, tmp_path):
    """The golden run does not see them either, so the run can be compared with it."""
    run = mlchaos.run(takes_steps, tmp_path)
    assert len(run.faults) == 1
    assert run.steps == 0
    run.assert_recovered()


def write(folder, rank):
    """Write a file at each step."""
    for step in range(4):
        (folder / f"{rank}-{step}").write_text("done")


@pytest.mark.slow
@chaos.rank_failure(site="storage.write", rank=1, at=2)
def test_a_spawned_process_joins_once(mlchaos, tmp_path, monkeypatch):
    """It finds both the hook in the environment, and the order in its process object."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    process = multiprocessing.get_context("spawn").Process(target=write, args=(tmp_path, 1))
    process.start()
    process.join(50)
    assert process.exitcode == -9
    assert written(tmp_path) == ["1-0", "1-1"]
    assert [strike.details["rank"] for strike in mlchaos.journal] == [1]


def spawned(rank, folder, size):
    """Train one rank of a job that torch.multiprocessing starts."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for step in range(4):
        weight.grad = torch.ones(1)
        dist.all_reduce(weight.grad)
        optimizer.step()
        (folder / f"{rank}-{step}").write_text("done")
    dist.destroy_process_group()


@pytest.mark.slow
@chaos.settings(timeout=250)
@chaos.rank_failure(rank=1, at=2)
def test_a_rank_that_multiprocessing_spawns_dies(mlchaos, tmp_path):
    """It becomes a rank when it initializes its process group."""
    with pytest.raises(Exception, match=r"SIGKILL|Connection (closed|reset)"):
        torch.multiprocessing.spawn(spawned, (tmp_path, 2), nprocs=2)
    (strike,) = mlchaos.journal
    assert (strike.visit, strike.details["rank"]) == (2, 1)
    # Each step is one visit, so rank 1 has finished two of them.
    assert sorted(path.name for path in tmp_path.glob("1-*")) == ["1-0", "1-1"]


TORCHRUN = """
import sys, pathlib, torch, torch.distributed as dist

dist.init_process_group("gloo")
folder = pathlib.Path(sys.argv[1])
weight = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.1)
for _ in range(4):
    weight.grad = torch.ones(1)
    dist.all_reduce(weight.grad)
    optimizer.step()
(folder / f"end-{dist.get_rank()}").write_text("done")
dist.destroy_process_group()
"""


def torchrun(folder):
    """Run a script under torchrun, as a shell does."""
    (folder / "train.py").write_text(TORCHRUN)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    options = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    command = [*launcher, *options, str(folder / "train.py"), str(folder)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
@chaos.settings(timeout=250)
@chaos.rank_failure(rank=1, at=2)
def test_a_rank_under_torchrun_dies(mlchaos, tmp_path):
    """The hook passes through the launcher, whose own process is not a rank."""
    ended = torchrun(tmp_path)
    assert ended.returncode == 1
    assert (
        "SIGKILL" in ended.stderr or "Signal 9" in ended.stderr or "exitcode  : -9" in ended.stderr
    )
    assert [(strike.visit, strike.details["rank"]) for strike in mlchaos.journal] == [(2, 1)]
    assert not (tmp_path / "end-1").exists()


WORLD = """
from pytest_mlchaos import chaos

def write(folder):
    import os
    for step in range(4):
        (folder / f"{os.environ['RANK']}-{step}").write_text("x" + os.environ.get("PYTHONPATH", ""))

@chaos.rank_failure(site="storage.write", rank=1, at=2)
def test_it(mlchaos, tmp_path):
    run = mlchaos.world(ranks=2).run(write, tmp_path)
    assert len(run.faults) == 1
    assert (tmp_path / "1-1").exists() and (tmp_path / "1-1").read_text().find("mlchaos-") < 0
    assert not (tmp_path / "1-3").exists() and (tmp_path / "0-3").exists()
    assert run.ranks[1].exitcode == -9
"""


@pytest.mark.slow
def test_the_ranks_of_a_world_do_not_join_twice(tmp_path):
    """The processes of the plugin do not run the hook, also if a world starts them first."""
    (tmp_path / "test_world.py").write_text(WORLD)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_world.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stdout

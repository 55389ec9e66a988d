"""Worlds under torch's elastic agent: restarts, lost nodes, nodes that come back, scripts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_mlchaos import chaos
from pytest_mlchaos.core.faults import find
from pytest_mlchaos.errors import BadArgument, MlchaosError, NotRecovered, RankFailed
from pytest_mlchaos.ranks.elastic.options import ElasticOptions, check_lost

psutil = pytest.importorskip("psutil")
torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


def resumable(path, steps=8, resumes=True, reads_size_anew=True):
    """Train on all samples of each step, shared out among the ranks, with a checkpoint a step.

    ``resumes=False`` starts from scratch. ``reads_size_anew=False`` shares out by the first size.
    """
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    shards = path / "shards"
    if rank == 0 and not shards.exists():
        shards.write_text(str(size))
    dist.barrier()
    if not reads_size_anew:
        size = int(shards.read_text())
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    done, checkpoint = 0, path / "last.pt"
    if checkpoint.exists() and resumes:
        state = torch.load(checkpoint)
        done = state["step"]
        with torch.no_grad():
            weight.copy_(state["weight"])
    for step in range(done, steps):
        gradient = torch.zeros(1, dtype=torch.float64)
        for sample in range(rank, 4, size):
            gradient += (weight.detach() - sample - step) / 4
        dist.all_reduce(gradient)
        weight.grad = gradient
        optimizer.step()
        if rank == 0:
            torch.save({"step": step + 1, "weight": weight.detach()}, f"{checkpoint}.tmp")
            os.replace(f"{checkpoint}.tmp", checkpoint)
        dist.barrier()
    dist.destroy_process_group()
    # A job that began again must not be mistaken for one that went on.
    return {"weight": weight.detach().clone(), "first step": done if not resumes else None}


def environment():
    """Return what the rank finds in its environment."""
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    return {name: os.environ[name] for name in names}


@chaos.settings(allow_quiet=True)
def test_ranks_of_an_elastic_world_have_nodes(mlchaos):
    """Each node has its own agent and ranks, as under torchrun."""
    run = mlchaos.world(ranks=4, elastic=True, nodes=2).run(environment)
    run.assert_finished()
    assert [rank.value["GROUP_RANK"] for rank in run.ranks] == ["0", "0", "1", "1"]
    assert [rank.value["LOCAL_RANK"] for rank in run.ranks] == ["0", "1", "0", "1"]
    assert {rank.value["WORLD_SIZE"] for rank in run.ranks} == {"4"}
    assert [attempt.ranks for attempt in run.attempts] == [4]


@pytest.mark.slow
@chaos.rank_failure(rank=1, at=3)
def test_the_agent_restarts_a_failed_rank(mlchaos, tmp_path):
    """A rank that is killed makes the agents start all ranks again, and the visits go on."""
    run = mlchaos.world(ranks=2, elastic=True, restarts=1).run(resumable, tmp_path)
    run.assert_finished()
    run.assert_recovered()
    first, second = [attempt.ended for attempt in run.attempts]
    assert first.startswith("rank 1 was killed by SIGKILL")
    assert second == "all ranks returned"
    assert [strike.details["rank"] for strike in run.faults] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("resumes", [True, False])
@chaos.rank_failure(rank=1, at=3)
def test_a_job_that_starts_from_scratch_is_found(mlchaos, tmp_path, resumes):
    """Only a job that resumes after a restart of the worker group recovers without lost work."""
    run = mlchaos.world(ranks=2, elastic=True, restarts=1).run(resumable, tmp_path, 8, resumes)
    run.assert_finished()
    assert (run.attempts[-1].steps == 8) is not resumes


@chaos.rank_failure(rank=1, at=2)
def test_an_elastic_world_without_restarts_fails(mlchaos, tmp_path):
    """Without a restart left, the failure is reported with the rank that failed first."""
    run = mlchaos.world(ranks=2, elastic=True).run(resumable, tmp_path)
    with pytest.raises(RankFailed, match="rank 1 was killed by SIGKILL"):
        run.assert_finished()
    assert len(run.attempts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sound", [True, False])
@chaos.node_loss(ranks=[1], at=3)
def test_a_lost_node_leaves_a_smaller_world(mlchaos, tmp_path, sound):
    """A job that shares data out by its first size loses some in the smaller world."""
    world = mlchaos.world(ranks=2, elastic=True, min_ranks=1, restarts=1)
    run = world.run(resumable, tmp_path, 8, True, sound)
    run.assert_finished()
    assert [attempt.ranks for attempt in run.attempts] == [2, 1]
    assert run.attempts[0].ended == "the node of rank 1 was lost"
    if sound:
        run.assert_recovered(rtol=1e-12)
    else:
        with pytest.raises(NotRecovered, match="weight"):
            run.assert_recovered(rtol=1e-12)


@pytest.mark.slow
@chaos.node_loss(ranks=[0], at=3)
def test_the_first_node_may_be_lost(mlchaos, tmp_path):
    """The store outlives each node, so the other two go on with new numbers."""
    run = mlchaos.world(ranks=3, elastic=True, min_ranks=1, restarts=1).run(resumable, tmp_path)
    run.assert_finished()
    assert [attempt.ranks for attempt in run.attempts] == [3, 2]
    run.assert_in_sync()


@pytest.mark.slow
@chaos.node_loss(ranks=[2, 3], at=2)
def test_a_node_is_lost_with_all_its_ranks(mlchaos, tmp_path):
    """Both ranks of the node die at once, though only one visits the site."""
    world = mlchaos.world(ranks=4, elastic=True, nodes=2, min_ranks=2, restarts=1)
    run = world.run(resumable, tmp_path)
    run.assert_finished()
    assert [attempt.ended for attempt in run.attempts] == [
        "the node of ranks 2, 3 was lost",
        "all ranks returned",
    ]


@pytest.mark.slow
@chaos.node_loss(ranks=[1], at=3)
@chaos.rank_rejoin(at=6)
def test_a_lost_node_comes_back(mlchaos, tmp_path):
    """The agents start the job again with all nodes, and it ends as if nothing had happened."""
    run = mlchaos.world(ranks=2, elastic=True, min_ranks=1, restarts=1).run(resumable, tmp_path, 12)
    run.assert_finished()
    assert [attempt.ranks for attempt in run.attempts] == [2, 1, 2]
    assert [strike.fault.partition("(")[0] for strike in run.faults] == ["node_loss", "rank_rejoin"]
    run.assert_recovered(rtol=1e-12)


@chaos.node_loss(ranks=[1], at=1)
def test_a_world_that_is_too_small_does_not_go_on(mlchaos, tmp_path):
    """Below ``min_ranks``, the world ends soon, and says why."""
    run = mlchaos.world(ranks=2, elastic=True, restarts=3, timeout=500).run(resumable, tmp_path)
    with pytest.raises(RankFailed, match="Too few nodes were left for a world of at least 2 ranks"):
        run.assert_finished()
    assert run.duration < 400


def test_a_world_without_nodes_loses_none():
    """A fault of nodes needs an elastic world."""
    with pytest.raises(BadArgument, match="elastic=True"):
        check_lost("node_loss", (), 2, None)


@pytest.mark.parametrize(
    ("lost", "message"), [((2,), r"give \[2, 3\]"), ((4, 5), "ranks must be below 4")]
)
def test_only_whole_nodes_of_the_world_are_lost(lost, message):
    """An agent ends with all of its ranks."""
    options = ElasticOptions(nodes=2, per_node=2, min_nodes=1, restarts=0, timeout=1.0)
    with pytest.raises(BadArgument, match=message):
        check_lost("node_loss", lost, 4, options)


@pytest.mark.parametrize("ranks", [[], "1", 1, [-1], [1.5]])
def test_ranks_that_are_none_are_refused(ranks):
    """The message names the argument."""
    with pytest.raises(BadArgument, match="node_loss: ranks must be a list of ranks"):
        find("node_loss")(ranks=ranks, at=1)


@chaos.settings(allow_quiet=True)
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"min_ranks": 1}, "min_ranks= needs elastic=True"),
        ({"elastic": True, "nodes": 3}, "nodes must be a number that divides ranks=2"),
        ({"elastic": True, "min_ranks": 3}, "min_ranks must be a number from 1 to 2"),
        ({"elastic": True, "nodes": 1, "min_ranks": 1}, "divides by the 2 ranks of a node"),
    ],
)
def test_an_elastic_world_that_makes_no_sense_is_refused(mlchaos, keywords, message):
    """The message names the argument."""
    with pytest.raises(BadArgument, match=message):
        mlchaos.world(ranks=2, **keywords)


SCRIPT = """
import argparse, os, sys
import torch, torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--out")
out = parser.parse_args().out
dist.init_process_group()
total = torch.ones(1) * (dist.get_rank() + 1)
weight = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=1.0)
for step in range(3):
    gradient = total.clone()
    dist.all_reduce(gradient)
    weight.grad = gradient
    optimizer.step()
if __name__ == "__main__" and dist.get_rank() == 0:
    with open(os.path.join(out, "end"), "w") as file:
        file.write(f"{weight.item():g} of {dist.get_world_size()}, local {os.environ['LOCAL_WORLD_SIZE']}")
dist.destroy_process_group()
"""


@chaos.settings(allow_quiet=True)
def test_a_script_runs_under_torchrun(mlchaos, tmp_path):
    """An unmodified script finds its arguments, and the nodes that torchrun would make."""
    (tmp_path / "train.py").write_text(SCRIPT)
    run = mlchaos.torchrun(tmp_path / "train.py", "--out", tmp_path, nproc=1, nnodes=2)
    run.assert_finished()
    assert (tmp_path / "end").read_text() == "-9 of 2, local 1"


@chaos.rank_failure(rank=1, at=1)
def test_a_fault_strikes_in_a_script(mlchaos, tmp_path):
    """The faults of the test strike in the ranks, which torch's agent starts again."""
    (tmp_path / "train.py").write_text(SCRIPT)
    run = mlchaos.torchrun(tmp_path / "train.py", "--out", tmp_path, nproc=2, restarts=1)
    run.assert_finished()
    run.assert_recovered()
    assert (tmp_path / "end").read_text() == "-9 of 2, local 2"
    assert len(run.attempts) == 2


@chaos.settings(allow_quiet=True)
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"nproc": 0}, "nproc must be 1 or more, got 0"),
        ({"nnodes": -1}, "nnodes must be 1 or more, got -1"),
        ({"min_nodes": 2}, "min_ranks must be a number from 1 to 1"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused(mlchaos, tmp_path, keywords, message):
    """The message names the argument."""
    (tmp_path / "train.py").write_text("")
    with pytest.raises(BadArgument, match=message):
        mlchaos.torchrun(tmp_path / "train.py", **keywords)


@chaos.settings(allow_quiet=True)
def test_a_script_that_does_not_exist_is_named(mlchaos):
    """The message names the file."""
    with pytest.raises(
        BadArgument, match=r"mlchaos\.torchrun: the file 'no_such.py' does not exist"
    ):
        mlchaos.torchrun("no_such.py")


def misbehaves(how):
    """Print a lot, die, raise, or ignore SIGTERM."""
    rank = int(os.environ["RANK"])
    if how == "loud":
        print("x" * (3 << 20))
    elif rank == 1 and how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif rank == 1:
        raise ValueError("no")
    elif how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


@chaos.settings(allow_quiet=True)
def test_a_rank_with_a_segmentation_fault_is_named(mlchaos):
    """The agent of the other rank would wait for minutes, but the world ends at once."""
    run = mlchaos.world(ranks=2, elastic=True).run(misbehaves, "segfault")
    with pytest.raises(RankFailed, match="rank 1 was killed by SIGSEGV"):
        run.assert_finished()


@pytest.mark.slow
@chaos.settings(allow_quiet=True)
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_rank_that_ignores_sigterm_is_killed(mlchaos, nodes):
    """Its own agent kills it after a while. On a different node, it has the grace period."""
    run = mlchaos.world(ranks=2, elastic=True, nodes=nodes, timeout=300).run(misbehaves, "deaf")
    with pytest.raises(RankFailed, match="rank 1 returned nothing: it raised ValueError"):
        run.ranks[1].value  # noqa: B018
    assert not run.ranks[0].finished
    assert run.duration < 200


def kills(place):
    """Let rank 1 kill a process that the tool has started before the ranks."""
    if os.environ["RANK"] == "1":
        children = psutil.Process(os.getppid()).children()
        sorted(children, key=lambda child: child.pid)[place].kill()
    time.sleep(600)


@pytest.mark.slow
@chaos.settings(allow_quiet=True)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (0, "the store of the ranks has ended. Was it killed"),
        (1, "the agent of a node has ended. Was it killed"),
    ],
)
def test_a_process_of_the_tool_that_is_killed_is_no_verdict(mlchaos, place, message):
    """Nothing is waited for, and the ranks are not blamed."""
    with pytest.raises(MlchaosError, match=message):
        mlchaos.world(ranks=2, elastic=True, timeout=300).run(kills, place)


@chaos.settings(allow_quiet=True)
def test_megabytes_of_output_do_not_block(mlchaos):
    """Their beginning and their end are kept."""
    run = mlchaos.world(ranks=2, elastic=True).run(misbehaves, "loud")
    run.assert_finished()
    assert all(100 << 10 < len(rank.output) < 1 << 20 for rank in run.ranks)


INTERRUPTED = """
import os, pathlib, time

def waits(folder):
    rank = os.environ["RANK"]
    (folder / f"{rank}.tmp").write_text(f"{os.getpid()} {os.getppid()}")
    (folder / f"{rank}.tmp").rename(folder / rank)
    time.sleep(600)

def test_it(mlchaos):
    folder = pathlib.Path("pids").resolve()
    mlchaos.world(ranks=2, elastic=True, timeout=500).run(waits, folder)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_after_an_interruption(tmp_path, number):
    """Ctrl-C, and the end of pytest itself, end the ranks, the agents and the store."""
    (tmp_path / "pids").mkdir()
    (tmp_path / "test_waits.py").write_text(INTERRUPTED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_waits.py"]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **output)
    try:
        files = [tmp_path / "pids" / str(rank) for rank in range(2)]
        _wait_until(lambda: all(file.exists() for file in files))
        pids = {int(pid) for file in files for pid in file.read_text().split()}
        running.send_signal(number)
        running.wait(120)
    finally:
        running.kill()
    _wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def _wait_until(done, seconds=90):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)

"""The same test in the ranks of a launcher: a journal for each rank, and their merging."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from pytest_mlchaos.__main__ import main
from tests.example import entries_in

pytest.importorskip("torch")

TEST = """
from pytest_mlchaos import chaos

def write(folder):
    for step in range(3):
        (folder / f"{step}").write_text("done")

@chaos.rank_failure(site="storage.write", rank=1, mode="raise", at=1)
def test_it(tmp_path):
    write(tmp_path)

@chaos.rank_failure(site="storage.write", rank=1, at=2)
def test_killed(tmp_path):
    write(tmp_path)

@chaos.rank_failure(site="storage.write", rank=7, at=2)
def test_no_such_rank(tmp_path):
    write(tmp_path)

@chaos.rank_failure(site="storage.write")
def test_searched(tmp_path):
    write(tmp_path)
"""


def pytest_in_rank(folder, rank, *names):
    """Run tests as one of two ranks."""
    (folder / "test_ranks.py").write_text(TEST)
    variables = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [f"test_ranks.py::{name}" for name in names]
    options = ["--mlchaos-journal=run.jsonl", f"--basetemp={folder}/tmp{rank}"]
    return subprocess.run(
        [*command, *options, *tests],
        cwd=folder,
        env=variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def merged(folder):
    """Merge the journals of both ranks, and return the entries."""
    paths = [str(folder / f"run.rank{rank}.jsonl") for rank in range(2)]
    assert main(["merge", *paths, "-o", str(folder / "run.jsonl")]) == 0
    return folder / "run.jsonl"


def test_a_fault_strikes_in_its_rank_only(tmp_path):
    """The other rank passes, and the merged journal has the strike and the failure."""
    first, second = (pytest_in_rank(tmp_path, rank, "test_it") for rank in range(2))
    assert first.returncode == 0, first.stdout
    assert second.returncode == 1, second.stdout
    journal = merged(tmp_path)
    (strike,) = entries_in(journal, "strike")
    assert strike["details"]["rank"] == 1
    (end,) = entries_in(journal, "test")
    assert (end["outcome"], end["rank"], end["strikes"]) == ("failed", "1 of 2", 1)


@pytest.mark.slow
def test_a_killed_rank_leaves_its_strike(tmp_path):
    """The session of the rank dies for real, and its journal has the strike."""
    first, second = (pytest_in_rank(tmp_path, rank, "test_killed") for rank in range(2))
    assert first.returncode == 0, first.stdout
    assert second.returncode == -9, second.stdout
    journal = merged(tmp_path)
    (strike,) = entries_in(journal, "strike")
    assert strike["details"]["rank"] == 1
    (end,) = entries_in(journal, "test")
    assert end["outcome"] == "passed"


@pytest.mark.slow
def test_a_rank_that_does_not_exist_fails_the_merged_test(tmp_path):
    """Each rank may pass, but together they have shown nothing."""
    for rank in range(2):
        assert pytest_in_rank(tmp_path, rank, "test_no_such_rank").returncode == 0
    (end,) = entries_in(merged(tmp_path), "test")
    assert (end["outcome"], end["error"]) == ("failed", "NeverStruck")


@pytest.mark.slow
def test_a_search_is_refused_under_a_launcher(tmp_path):
    """Each rank would try its own schedules."""
    ended = pytest_in_rank(tmp_path, 0, "test_searched")
    assert ended.returncode == 1
    assert "Pin the faults" in ended.stdout


COLLECTIVE = """
import torch, torch.distributed as dist
from pytest_mlchaos import chaos

@chaos.rank_failure(rank=1, at=2, mode="raise")
def test_both_machines_train():
    dist.init_process_group("gloo")
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    try:
        for _ in range(4):
            weight.grad = torch.ones(1)
            dist.all_reduce(weight.grad)
            optimizer.step()
    except RuntimeError:
        pass
"""


@pytest.mark.slow
def test_the_same_test_runs_under_two_agents(tmp_path):
    """Two agents of torchrun, as on two machines, run an unchanged test."""
    (tmp_path / "test_two.py").write_text(COLLECTIVE)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=1"]
    test = ["-m", "pytest", "test_two.py", "-q", "-p", "no:cacheprovider"]
    command = [*launcher, *meeting, *test, "--mlchaos-journal=run.jsonl"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    agents = [subprocess.Popen(command, cwd=tmp_path, **output) for _ in range(2)]
    try:
        texts = [agent.communicate(timeout=200)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], texts
    journal = merged(tmp_path)
    (strike,) = entries_in(journal, "strike")
    assert (strike["site"], strike["visit"], strike["details"]["rank"]) == ("train.step", 2, 1)
    (end,) = entries_in(journal, "test")
    assert (end["outcome"], end["strikes"]) == ("passed", 1)


NAMESPACES = """
set -e
mount -t tmpfs none /run; mkdir -p /run/netns
ip link add br0 type bridge; ip link set br0 up
for i in 0 1; do
  ip netns add n$i; ip link add v$i type veth peer name eth0 netns n$i
  ip link set v$i master br0 up; ip -n n$i addr add 10.0.0.$((i+1))/24 dev eth0
  ip -n n$i link set eth0 up; ip -n n$i link set lo up
done
export GLOO_SOCKET_IFNAME=eth0
for i in 0 1; do
  ip netns exec n$i "$PYTHON" -m torch.distributed.run --nnodes=2 --nproc-per-node=1 \\
    --rdzv-backend=c10d --rdzv-endpoint=10.0.0.1:29400 --rdzv-conf=is_host=$((1-i)) --rdzv-id=1 \\
    --local-addr=10.0.0.$((i+1)) -m pytest test_two.py -q -p no:cacheprovider \\
    --mlchaos-journal=run.jsonl > agent$i.txt 2>&1 &
  eval P$i=$!
done
wait $P0; wait $P1
"""


def namespaces(script, folder):
    """Run a shell script as the root of a new user, network and mount namespace."""
    command = ["unshare", "-Urnm", "sh", "-c", script]
    variables = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        command, cwd=folder, env=variables, check=False, capture_output=True, text=True, timeout=250
    )


@pytest.mark.slow
def test_the_same_test_runs_in_two_network_namespaces(tmp_path):
    """Each agent has an address of its own, as on two machines."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare and ip are needed for network namespaces")
    tried = namespaces(
        "ip link add v0 type veth peer name v1 && ip link add b0 type bridge", tmp_path
    )
    if tried.returncode:
        pytest.skip(f"the kernel does not allow network namespaces: {tried.stderr.strip()}")
    (tmp_path / "test_two.py").write_text(COLLECTIVE)
    ended = namespaces(NAMESPACES, tmp_path)
    texts = [path.read_text() for path in sorted(tmp_path.glob("agent*.txt"))]
    assert ended.returncode == 0, (ended.stderr, texts)
    (strike,) = entries_in(merged(tmp_path), "strike")
    assert (strike["visit"], strike["details"]["rank"]) == (2, 1)


def free_port():
    """Return a port that is free now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]

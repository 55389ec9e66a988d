"""One session on many workers: which worker gets which shards, and what becomes of them."""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from pytest_mlchaos.cluster.allocation import Allocation
from pytest_mlchaos.cluster.engine import ClusterError, Done, Gone, Ready, conduct
from pytest_mlchaos.cluster.engines import ENGINES
from pytest_mlchaos.cluster.futures import FuturesEngine
from pytest_mlchaos.cluster.options import add_options, read_options
from pytest_mlchaos.core.shards import Shard
from pytest_mlchaos.errors import BadArgument, MissingExtra

from . import cluster

# The folder benchmarks is not a package, and its other modules must not be found by their names.
_SPEC = importlib.util.spec_from_file_location(
    "cluster_simulation", Path(__file__).parent.parent / "benchmarks" / "cluster_simulation.py"
)
simulation = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = simulation  # dataclasses look their module up
_SPEC.loader.exec_module(simulation)


# -- several shards in one session -----------------------------------------------------------------


def test_a_session_may_run_several_shards():
    """They are written as ranges, and own what each of them owns."""
    several = Shard.parse("1-3,7/8")
    assert str(several) == "1-3,7/8"
    assert several.words == "shards 1-3,7 of 8"
    assert Shard.parse(str(several)) == several
    for number in range(100):
        owners = [Shard(index, 8).owns(str(number)) for index in (1, 2, 3, 7)]
        assert several.owns(str(number)) == any(owners)


@pytest.mark.parametrize("text", ["3-1/8", "1,1/8", "2,1/8", "1-9/8", "0-2/8", "1,,2/8", "1-/8"])
def test_wrong_lists_of_shards_are_refused(text):
    """Each number occurs once, from 1 to the count."""
    with pytest.raises(BadArgument, match="--mlchaos-shard"):
        Shard.parse(text)


# -- who gets what ---------------------------------------------------------------------------------


class ScriptedEngine:
    """An engine whose workers do what ``fate(worker, share)`` says: end with a code, or die."""

    def __init__(self, fate):
        self.fate, self.events, self.time, self.given, self.number = fate, [], 0.0, [], 0

    def start(self, workers):
        for _ in range(workers):
            self._add()

    def _add(self):
        self.number += 1
        self.events.append(Ready(f"worker {self.number}"))

    def workers(self):
        return 2

    def give(self, worker, share):
        self.given.append(share)
        code = self.fate(worker, share)
        self.events.append(Gone(worker) if code is None else Done(worker, code))
        if code is None:
            self._add()

    def wait(self, seconds):
        self.time += 1.0
        return [self.events.pop(0)] if self.events else []

    def cancel(self, worker):
        self.events.append(Done(worker, 2))

    def stop(self):
        pass

    def now(self):
        return self.time


def conducted(fate, *, count=40, attempts=3):
    """The allocation and the engine of a session that ended."""
    engine, allocation = ScriptedEngine(fate), Allocation(count, 2, attempts)
    engine.start(2)
    conduct(engine, allocation, lambda done, share: None if done.exit_code < 0 else str(share))
    return allocation, engine


def shards_of(journals):
    """The numbers of the shards in these journals."""
    return sorted(index for journal in journals for index in Shard.parse(journal).indexes)


@pytest.mark.parametrize("seed", range(5))
def test_every_shard_is_in_one_journal_whatever_dies(seed):
    """Workers die and pytests are killed at random: no shard is lost, and none counts twice."""
    draw = random.Random(seed)
    allocation, _ = conducted(lambda worker, share: draw.choice([0, 0, 1, None, -9]), attempts=99)
    assert shards_of(allocation.journals()) == list(range(1, 41))
    assert not allocation.given_up


def test_first_shares_are_large_and_last_ones_small():
    """A share pays for its golden runs, and a small one evens out the end."""
    _, engine = conducted(lambda worker, share: 0)
    sizes = [len(share.shards) for share in engine.given]
    assert sizes[0] == sizes[1] == 18
    assert max(sizes[2:]) <= 2


def test_a_shard_that_ends_its_worker_is_given_up_alone():
    """It has three workers. The shards beside it are done by others."""
    allocation, engine = conducted(lambda worker, share: None if 7 in share.shards else 0)
    assert allocation.given_up == {7}
    assert shards_of(allocation.journals()) == [index for index in range(1, 41) if index != 7]
    assert [share.shards for share in engine.given if 7 in share.shards][-1] == (7,)


def test_a_late_share_is_repeated_in_parts_by_others():
    """The slow worker is cancelled when they have ended."""
    slow = []

    class Engine(ScriptedEngine):
        def give(self, worker, share):
            if not slow and worker == "worker 1":
                slow.append(share)
                self.given.append(share)
            else:
                super().give(worker, share)

        def cancel(self, worker):
            self.cancelled = worker
            super().cancel(worker)

    engine, allocation = Engine(lambda worker, share: 0), Allocation(40, 2)
    engine.start(2)
    conduct(engine, allocation, lambda done, share: str(share))
    assert engine.cancelled == "worker 1"
    assert str(slow[0]) not in allocation.journals()
    assert shards_of(allocation.journals()) == list(range(1, 41))


def test_a_late_share_that_ends_after_all_counts_once():
    """Its copies are dropped."""
    allocation = Allocation(20, 2)
    first = allocation.take("a", 2, 0.0)
    other = allocation.take("b", 2, 0.0)
    allocation.finish("b", str(other), 1.0)
    while (share := allocation.take("b", 2, 10.0)) is not None and share.shards[0] not in (
        first.shards
    ):
        allocation.finish("b", str(share), 10.0)
    allocation.finish("b", str(share), 11.0)
    copy = allocation.take("b", 2, 11.0)
    allocation.finish("a", str(first), 12.0)
    assert copy is not None
    assert allocation.obsolete() == ["b"]
    assert str(first) in allocation.journals()
    assert shards_of(allocation.journals()) == list(range(1, 21))
    assert allocation.is_over


def test_ten_percent_dead_workers_cost_less_than_a_third():
    """10,000 states on 100 workers, simulated: the promise of the docs."""
    for seed in range(3):
        cluster_ = simulation.Cluster(golden=3.0, deaths=0.1, seed=seed)
        assert simulation.simulate(cluster_).seconds <= 1.3 * cluster_.ideal


def test_one_worker_more_is_faster():
    """The curve of the docs grows, also where workers die."""
    ups = [simulation.speedup(count, 1_000_000, golden=10.0) for count in (10, 100)]
    assert 8.5 < ups[0] < 10
    assert 80 < ups[1] < 100


# -- engines ---------------------------------------------------------------------------------------


class DyingEngine(FuturesEngine):
    """An engine whose workers cannot start."""

    def _start_worker(self, worker):
        raise OSError("no place for it")

    _run = _end_worker = cancel = lambda *arguments: None

    def stop(self):
        pass


def test_a_cluster_without_workers_ends_the_session():
    """It does not wait for ever, and says why the last one did not start."""
    engine = DyingEngine(None)
    engine.start(2)
    with pytest.raises(ClusterError, match=r"no worker is left\. .*no place for it"):
        conduct(engine, Allocation(4, 2), lambda done, share: "")


def test_a_missing_library_is_one_line(monkeypatch):
    """It names the extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"--on=ray needs ray, .*'pytest-mlchaos\[ray\]'"):
        ENGINES["ray"].check("--on=ray")


# -- the command line ------------------------------------------------------------------------------


def options(*arguments):
    """The options that a command line gives."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser)
    return read_options(*parser.parse_known_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on=yarn"], "--on=yarn: expected one of local, ray, dask"),
        (["--on=slurm"], r"need no engine: see docs/howto/cluster\.md"),
        (["--workers=0"], "--workers=0: expected a number from 1 to 10000"),
        (["--workers=x"], "--workers=x: expected a number"),
        (["--shards=0"], "--shards=0: expected a number"),
        (["--attempts=-1"], "--attempts=-1: expected a number"),
        (["--mlchaos-shard=1/2"], "`run` divides the session into shards by itself"),
        (["--lf"], "--lf: workers change what failed last while others read it"),
        (["--mlchaos-report=x.html"], "each worker would write its own"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    """Before anything starts."""
    with pytest.raises(BadArgument, match=message):
        options(*arguments)


def test_other_arguments_are_those_of_pytest(tmp_path, monkeypatch):
    """Absolute paths below this directory become relative, because workers have it elsewhere."""
    (tmp_path / "pyproject.toml").touch()
    tests = tmp_path / "sub" / "tests"
    tests.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub")
    found = options("--workers=3", "-k", "a or b", f"{tests}::test_x", "-q", "--", "-x")
    assert found.session.arguments == ["-k", "a or b", "tests::test_x", "-q", "-x"]
    assert (found.session.project, found.session.folder) == (str(tmp_path), "sub")
    assert (found.workers, found.shards) == (3, 96)


# -- on this machine -------------------------------------------------------------------------------


def test_two_processes_give_the_report_of_one(tmp_path):
    """The same states, verdicts and causes, byte for byte."""
    folder = cluster.project(tmp_path / "project", write=cluster.UNSAFE)
    ended = cluster.run(folder, "--workers=2", "--shards=4", f"--report={tmp_path / 'many'}")
    assert ended.code == 1, ended.err
    assert "FAILED" in ended.out
    assert cluster.alone(folder, tmp_path / "one") == 1
    assert (tmp_path / "many").read_text() == (tmp_path / "one").read_text()


@pytest.mark.slow
def test_a_sound_project_passes_and_writes_its_journal(tmp_path):
    """Exit code 0. The progress is one line."""
    folder = cluster.project(tmp_path / "project")
    ended = cluster.run(folder, "--workers=2", f"--mlchaos-journal={tmp_path / 'all.jsonl'}")
    assert (ended.code, ended.out.strip()[-6:]) == (0, "PASSED"), ended.err
    assert '"test_train.py::test_sound"' in (tmp_path / "all.jsonl").read_text()


@pytest.mark.slow
def test_a_plain_test_that_fails_fails_the_whole(tmp_path):
    """It has no fault, and belongs to one shard."""
    folder = cluster.project(tmp_path / "project", check="assert False")
    ended = cluster.run(folder, "--workers=2", "--shards=4")
    assert ended.code == 1
    assert "test_plain" in ended.out
    assert "assert False" in ended.err


@pytest.mark.slow
def test_a_pytest_that_is_killed_is_repeated(tmp_path):
    """The verdict does not change."""
    kill = (
        "import pathlib\n    mark = pathlib.Path(os.environ['MARK'])\n"
        "    if not mark.exists():\n        mark.touch()\n        os.kill(os.getpid(), 9)"
    )
    folder = cluster.project(tmp_path / "project", check=kill)
    ended = cluster.run(folder, "--workers=2", "--shards=4", MARK=str(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_a_shard_that_always_dies_makes_the_whole_inconclusive(tmp_path):
    """After three attempts. The report names it."""
    folder = cluster.project(tmp_path / "project", check="os.kill(os.getpid(), 9)")
    ended = cluster.run(folder, "--workers=2", "--shards=4")
    assert ended.code == 1
    assert "INCONCLUSIVE" in ended.out
    assert "is lost" in ended.out
    assert "pytest ended with exit code -9" in ended.err


@pytest.mark.slow
def test_wrong_arguments_of_pytest_end_the_session_at_once(tmp_path):
    """The first worker's error is shown, with pytest's exit code."""
    ended = cluster.run(cluster.project(tmp_path / "project"), "--workers=2", "--no-such-option")
    assert ended.code == 4
    assert "unrecognized arguments: --no-such-option" in ended.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(tmp_path, number):
    """Ctrl-C cancels everything, and so does the death of the runner."""
    wait = "import time, pathlib\n    pathlib.Path(os.environ['MARK']).touch()\n    time.sleep(300)"
    folder, mark = cluster.project(tmp_path / "project", check=wait), tmp_path / "mark"
    process = cluster.start(folder, "--workers=2", "--shards=4", MARK=str(mark))
    try:
        assert cluster.wait_until(mark.exists)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    if number == signal.SIGINT:
        assert process.returncode == 2
        assert "interrupted" in err
        assert "INCONCLUSIVE" in err
    assert cluster.wait_until(lambda: not cluster.processes_with(f"MARK={mark}"))

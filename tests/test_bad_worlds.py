"""Test worlds of subjects that misbehave: a clear error, a bounded end, nothing left. (needs
torch)
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist

from pytest_mlchaos import chaos
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.counters import ScheduledFault
from pytest_mlchaos.errors import BadArgument, MlchaosError, RankFailed
from pytest_mlchaos.processes.stack_dumps import last_words
from pytest_mlchaos.ranks.bounded_output import MAX_HEAD_BYTES, MAX_TAIL_BYTES, BoundedOutput

psutil = pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")  # some subjects here are local functions

TIMEOUT = 60
"""Seconds for a world that needs less than one, because the machine may be busy."""


def train(steps=3):
    """Train in step with the other ranks, and leave the group open."""
    dist.init_process_group("gloo")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(steps):
        weight.grad = torch.ones(2)
        dist.all_reduce(weight.grad)
        optimizer.step()
    return weight.detach()


# -- a rank outside of the world -------------------------------------------------------------------


@pytest.mark.slow
@chaos.rank_failure(rank=2, at=1)
def test_a_rank_that_one_of_two_worlds_has_is_struck_there(mlchaos):
    """The smaller world is undisturbed, whichever comes first."""
    small = mlchaos.world(ranks=2, timeout=TIMEOUT).run(train)
    large = mlchaos.world(ranks=3, timeout=TIMEOUT, grace=20).run(train)
    small.assert_finished()
    assert not small.faults
    assert large.ranks[2].exitcode == -signal.SIGKILL
    assert [len(rank.faults) for rank in large.ranks] == [0, 0, 1]


NO_SUCH_RANK = """
from pytest_mlchaos import chaos

def idle():
    pass

@chaos.rank_failure(rank=2, at=1)
def test_pinned(mlchaos):
    mlchaos.world(ranks=2, timeout=60).run(idle).assert_finished()

@chaos.rank_failure(rank=2)
def test_searched(mlchaos):
    mlchaos.world(ranks=2, timeout=60).run(idle).assert_finished()

@chaos.rank_failure(rank=2, at=1)
def test_expecting(mlchaos):
    assert mlchaos.world(ranks=2, timeout=60).run(idle).faults
"""


@pytest.mark.slow
def test_a_rank_that_no_world_has_is_an_error(example):
    """It is reported for pinned and for searched faults, and beside an assertion that fails."""
    result = example.with_tests(NO_SUCH_RANK).run(failed=3)
    result.has(
        "BadArgument: rank_failure: rank must be below 2, because this world has 2 ranks, got 2"
    )
    result.has("mlchaos: rank_failure: rank must be below 2, because this world has 2 ranks")


def test_a_world_that_fits_clears_the_mismatch():
    """If a fault does not strike in a world that has its rank, the rank is not the reason."""
    scheduled = ScheduledFault(create("rank_failure", rank=2, at=100), 0, 0)
    scheduled.meet_world(2)
    assert isinstance(scheduled.mismatch, BadArgument)
    scheduled.meet_world(3)
    scheduled.meet_world(2)
    assert scheduled.mismatch is None


# -- groups that are not as they should be ---------------------------------------------------------


@pytest.mark.slow
def test_a_rank_that_never_joins_is_named(mlchaos):
    """The other one waits for it, and both are told."""

    def subject():
        if os.environ["RANK"] == "0":
            dist.init_process_group("gloo")

    run = mlchaos.world(timeout=15).run(subject)
    with pytest.raises(
        RankFailed,
        match=r"rank 0 did not finish: it was still running after .*\(test_bad_worlds\.py",
    ):
        run.assert_finished()
    assert "and never called init_process_group" in run.story().splitlines()[1]
    assert "never called" not in run.story().splitlines()[0]


def test_ranks_without_any_group_are_not_blamed(mlchaos):
    """A job may work without one."""
    run = mlchaos.world(timeout=TIMEOUT).run(os.getpid)
    run.assert_finished()
    assert "init_process_group" not in run.story()


@chaos.settings(allow_quiet=True)
def test_groups_that_are_left_open_do_no_harm(mlchaos):
    """Not even with an operation that nothing waits for."""

    def subject():
        dist.init_process_group("gloo")
        dist.new_group([0, 1])
        dist.all_reduce(torch.ones(2))
        if dist.get_rank() == 0:
            dist.irecv(torch.ones(2), src=1)  # never sent
        return 3

    run = mlchaos.world(timeout=TIMEOUT).run(subject)
    run.assert_finished()
    assert [rank.value for rank in run.ranks] == [3, 3]


def test_a_port_in_use_names_the_rank_that_needs_it(mlchaos):
    """A subject that hosts its own store on ``MASTER_PORT`` fails at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        def subject():
            os.environ["MASTER_PORT"] = port
            dist.init_process_group("gloo")

        run = mlchaos.world(timeout=TIMEOUT, grace=0.5).run(subject)
    with pytest.raises(
        RankFailed, match=rf"rank 0 did not finish: it raised OSError: .*port {port} is in use"
    ):
        run.assert_finished()
    assert run.duration < TIMEOUT


# -- deaths ----------------------------------------------------------------------------------------


def test_a_segmentation_fault_is_told_with_rank_and_place(mlchaos):
    """The rank that died leads, not the one that lost its peer."""

    def subject():
        dist.init_process_group("gloo")
        if dist.get_rank() == 1:
            ctypes.string_at(0)
        dist.barrier()

    run = mlchaos.world(timeout=TIMEOUT, grace=20).run(subject)
    with pytest.raises(
        RankFailed,
        match=r"^rank 1 did not finish: it was killed by SIGSEGV in string_at \(.*\), called from "
        r"subject \(test_bad_worlds\.py:\d+\)",
    ):
        run.assert_finished()
    # Whether its peer reads the end of the connection or a reset is a matter of time
    assert re.search(r"rank 0: .*raised RuntimeError: ", run.story())


UNCAUGHT = """[rank1]:[E112 12:00:00.0 ProcessGroupNCCL.cpp:1] noise
terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG ID 0 PG GUID 0(default_pg) Rank 1] Process group watchdog thread terminated with \
exception: [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2, OpType=ALL\
REDUCE) ran for 5023 milliseconds before timing out.
Exception raised from checkTimeout at ProcessGroupNCCL.cpp:1 (most recent call first):
"""


def test_an_uncaught_exception_of_cpp_is_told_in_words(mlchaos):
    """A watchdog aborts its process. Its message is the reason."""

    def subject():
        if os.environ["RANK"] == "1":
            os.write(2, UNCAUGHT.encode())
            os.abort()

    run = mlchaos.world(timeout=TIMEOUT, grace=20).run(subject)
    with pytest.raises(
        RankFailed,
        match=r"^rank 1 did not finish: it was killed by SIGABRT in subject "
        r"\(test_bad_worlds\.py:\d+\) \(Process group watchdog thread terminated with exception: "
        r"Watchdog caught collective operation timeout: … ran for … milliseconds before timing",
    ):
        run.assert_finished()


def test_the_stack_of_a_different_death_is_not_shown():
    """A worker process of the rank prints to the same stream."""
    text = (
        "Fatal Python error: Aborted\n\nCurrent thread 0x0a (most recent call first):\n"
        '  File "/x/worker.py", line 3 in work\n'
    )
    assert last_words(text, 10, signal.SIGABRT) == " in work (worker.py:3)"
    assert not last_words(text, 10, signal.SIGSEGV)
    assert not last_words(text + UNCAUGHT, 10, signal.SIGKILL)


def test_an_agent_that_is_killed_is_no_verdict_on_the_subject(mlchaos):
    """Something outside has killed it, for example because the memory was exhausted."""

    def subject():
        if os.environ["RANK"] == "1":
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    with pytest.raises(MlchaosError, match=r"the agent, the process that runs them, has ended"):
        mlchaos.world(timeout=TIMEOUT).run(subject)
    mlchaos.world(timeout=TIMEOUT).run(os.getpid).assert_finished()


def test_no_process_is_left_of_an_agent_that_is_killed(mlchaos, tmp_path):
    """Not even one in a session of its own, which nothing below the agent can end."""

    def subject():
        if os.environ["RANK"] == "1":
            code = "import time; time.sleep(600)"
            child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            (tmp_path / "pid").write_text(str(child.pid))
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    with pytest.raises(MlchaosError, match=r"the agent, the process that runs them, has ended"):
        mlchaos.world(timeout=TIMEOUT).run(subject)
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + TIMEOUT
    while psutil.pid_exists(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


@chaos.settings(allow_quiet=True)
@chaos.network_partition(groups=[[0], [1]], at=10**6)
def test_a_switch_that_is_killed_is_no_verdict_on_the_subject(mlchaos):
    """Ranks whose connections it passed on wait for nothing."""

    def subject():
        dist.init_process_group("gloo")
        dist.barrier()
        if dist.get_rank() == 1:
            for process in psutil.Process(os.getppid()).children():
                if process.pid not in ranks():
                    process.kill()
        time.sleep(600)

    def ranks():
        here = psutil.Process()
        first = min(here.parent().children(), key=lambda process: process.pid)
        return {process.pid for process in here.parent().children()} - {first.pid}

    with pytest.raises(MlchaosError, match=r"the switch between them has ended"):
        mlchaos.world(timeout=TIMEOUT).run(subject)


# -- output ----------------------------------------------------------------------------------------


def test_megabytes_of_output_neither_block_nor_fill_memory(mlchaos):
    """The beginning and the end are kept, and the report says what is missing."""

    def subject():
        for stream in (1, 2):
            os.write(stream, b"first\n")
            for _ in range(5):
                os.write(stream, b"x" * 1_000_000 + b"\n")
            os.write(stream, b"last\n")
        return 3

    run = mlchaos.world(timeout=TIMEOUT).run(subject)
    run.assert_finished()
    for rank in run.ranks:
        assert rank.value == 3
        assert len(rank.output) < 2 * (MAX_HEAD_BYTES + MAX_TAIL_BYTES) + 200
        assert rank.output.startswith("first\nxxx")
        assert rank.output.endswith("xxx\nlast\n")
        assert "bytes are left out here]" in rank.output


def test_output_within_the_bound_is_whole():
    """Nothing is lost, also if a character is cut at the end of the first part."""
    output = BoundedOutput()
    text = "ä" * ((MAX_HEAD_BYTES + 3) // 2)
    output.feed(b"x" + text.encode())
    assert output.text == "x" + text
    assert not output.mentions(b"y")
    output.feed(b"y" * MAX_TAIL_BYTES + b"z")
    assert output.left_out > 0
    assert output.mentions(b"anything")  # it may have been in the middle


def test_binary_garbage_is_printed_without_an_error(mlchaos, capsys):
    """Print bytes that are not text, and escape sequences of terminals."""

    def subject():
        os.write(1, bytes(range(256)) * 4)
        os.write(2, b"\xff\xfe\x00\xd8" * 10)
        return 3

    run = mlchaos.world(timeout=TIMEOUT).run(subject)
    run.assert_finished()
    assert "[rank 1] " in capsys.readouterr().out
    assert "ABCDEF" in run.ranks[0].output


def test_a_rank_may_close_its_streams(mlchaos):
    """Its collectives, its value and its end arrive all the same."""

    def subject():
        dist.init_process_group("gloo")
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        dist.barrier()
        return 3

    run = mlchaos.world(timeout=TIMEOUT).run(subject)
    run.assert_finished()
    assert [rank.value for rank in run.ranks] == [3, 3]


def test_a_rank_that_closes_our_descriptors_is_told(mlchaos):
    """Its value cannot come home, which is never taken for a success."""

    def subject():
        os.closerange(3, 200)
        return 3

    run = mlchaos.world(timeout=TIMEOUT, grace=20).run(subject)
    with pytest.raises(RankFailed, match=r"rank \d did not finish: it exited with code 1"):
        run.assert_finished()
    assert "the subject closed file descriptor" in run.ranks[0].output


# -- processes -------------------------------------------------------------------------------------


def test_a_restart_does_not_wait_for_a_rank_that_ignores_sigterm(mlchaos, tmp_path):
    """It gets ``grace`` seconds. Its child, which ignores SIGTERM too, is ended with it."""

    def subject():
        if os.environ["RANK"] == "1":
            while not (tmp_path / "child").exists():
                time.sleep(0.01)
            if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                raise ValueError("restart")
            return
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (tmp_path / "pid").write_text(str(child.pid))
            (tmp_path / "pid").rename(tmp_path / "child")
            time.sleep(600)

    run = mlchaos.world(restarts=1, timeout=TIMEOUT, grace=1).run(subject)
    run.assert_finished()
    assert run.restarts == 1
    assert run.duration < TIMEOUT
    assert not psutil.pid_exists(int((tmp_path / "child").read_text()))


def test_daemons_of_a_subject_are_ended(mlchaos, tmp_path):
    """Not even a process with a session of its own, and without our descriptors, is left."""

    def subject():
        rank = os.environ["RANK"]
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 200)
                (tmp_path / f"{rank}.new").write_text(str(os.getpid()))
                (tmp_path / f"{rank}.new").rename(tmp_path / rank)
                time.sleep(600)
            os._exit(0)
        while not (tmp_path / rank).exists():
            time.sleep(0.01)

    mlchaos.world(timeout=TIMEOUT).run(subject).assert_finished()
    pids = [int(file.read_text()) for file in tmp_path.iterdir()]
    assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.slow
def test_a_thread_that_never_ends_is_bounded_by_the_timeout(mlchaos):
    """The subject has returned, but its process waits for the thread, as Python does."""

    def subject():
        if os.environ["RANK"] == "1":
            threading.Thread(target=time.sleep, args=(600,)).start()

    run = mlchaos.world(timeout=15).run(subject)
    with pytest.raises(RankFailed, match="rank 1 did not finish: it was still running"):
        run.assert_finished()

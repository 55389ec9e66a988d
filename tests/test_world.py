"""Test worlds of ranks: real processes, real faults, and no process left (needs torch)."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pytest_mlchaos import Fault, chaos, visit
from pytest_mlchaos.core.faults import register
from pytest_mlchaos.errors import (
    BadArgument,
    GaveUp,
    MlchaosError,
    NotRecovered,
    OutOfSync,
    RankFailed,
    RankHung,
    Vacuous,
)
from pytest_mlchaos.processes.fork_server import ForkServer
from pytest_mlchaos.ranks.agent import ENTRY

psutil = pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")  # most subjects here are local functions

SIGKILL = -signal.SIGKILL


def train(steps=4):
    """An ordinary DDP training function."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rank = dist.get_rank()
    for step in range(steps):
        model(torch.full((8, 4), float(step + rank))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()
    return model.module.state_dict()


def local_steps(steps=4):
    """Takes steps and never meets its peers; what it learns depends on the rank."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(steps):
        (weight - float(os.environ["RANK"])).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return int(os.environ["RANK"])


def environment():
    """Return the environment that the rank finds."""
    return dict(os.environ)


# -- without faults --------------------------------------------------------------------------------


@chaos.settings(allow_quiet=True)
def test_an_unmodified_ddp_function_runs_in_it(mlchaos):
    """Every rank returns, with the same parameters, and the world equals its golden run."""
    run = mlchaos.world(ranks=2).run(train)
    run.assert_finished()
    run.assert_failed_fast()
    run.assert_in_sync(values=True)
    run.assert_recovered()
    assert [(rank.exitcode, rank.error, rank.steps, rank.faults) for rank in run.ranks] == [
        (0, None, 4, ())
    ] * 2
    assert run.ranks[0].value["weight"].shape == (1, 4)


def test_the_subject_finds_what_torchrun_sets(mlchaos, monkeypatch, tmp_path):
    """Ranks and sizes, one address for all, the environment and directory of the test."""
    monkeypatch.setenv("MINE", "x")
    monkeypatch.chdir(tmp_path)
    found = [rank.value for rank in mlchaos.world(ranks=3).run(environment).ranks]
    assert [(e["RANK"], e["LOCAL_RANK"], e["ROLE_RANK"]) for e in found] == [
        (str(r),) * 3 for r in range(3)
    ]
    names = (
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "TORCHELASTIC_RESTART_COUNT",
        "MASTER_ADDR",
        "MINE",
    )
    assert {tuple(e[name] for name in names) for e in found} == {
        ("3", "3", "0", "1", "0", "127.0.0.1", "x")
    }
    assert len({e["MASTER_PORT"] for e in found}) == 1
    assert mlchaos.world(ranks=1).run(os.getcwd).ranks[0].value == str(tmp_path)


def test_a_rank_has_the_environment_of_its_test(mlchaos, monkeypatch):
    """Not that of the session's first world: torch reads some variables at import, which was in the
    warm process.
    """

    def reads():
        return dist.get_debug_level().name, torch.get_num_threads()

    assert mlchaos.world(ranks=1).run(reads).ranks[0].value == ("OFF", 1)
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert mlchaos.world(ranks=1).run(reads).ranks[0].value == ("DETAIL", 2)


@pytest.mark.parametrize(
    ("name", "replaced"),
    [("MINE_LEVEL", True), ("MINE_AGAIN", False), ("THEIRS", False), ("OMP_NUM_THREADS", False)],
)
def test_another_warm_process_is_started_for_what_libraries_read_at_import(
    monkeypatch, name, replaced
):
    """For those variables alone: others are set in each rank."""
    server = ForkServer([], ENTRY, ("MINE_", "OMP_"), ("MINE_AGAIN",))
    try:
        server.start()
        first = server._process.pid
        monkeypatch.setenv(name, "3")
        server.start()
        assert (server._process.pid != first) == replaced
        monkeypatch.delenv(name)
        server.start()
        assert (server._process.pid != first) == replaced
    finally:
        server.stop()


def test_init_process_group_without_a_backend_gets_the_worlds(mlchaos):
    """``backend="gloo"`` is the default of the subject's own call."""

    def subject():
        dist.init_process_group()
        return dist.get_backend()

    assert [rank.value for rank in mlchaos.world().run(subject).ranks] == ["gloo", "gloo"]


def test_local_functions_and_closures_are_sent(mlchaos):
    """With cloudpickle."""
    offset = torch.tensor(3.0)
    run = mlchaos.world(ranks=2).run(lambda x: offset + x + int(os.environ["RANK"]), 1)
    assert [float(rank.value) for rank in run.ranks] == [4.0, 5.0]


def test_without_cloudpickle_a_lambda_is_refused_with_the_cure(mlchaos, monkeypatch):
    """And a module's function still goes."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(
        BadArgument,
        match=r"lambda.* cannot be sent to the processes of the ranks.*pip install 'pytest-mlchaos\[process\]'",
    ):
        mlchaos.world().run(lambda: 1)
    mlchaos.world().run(environment).assert_finished()


def test_what_cannot_be_sent_is_refused(mlchaos):
    """The message says what."""
    with pytest.raises(
        BadArgument, match=r"environment and its arguments cannot be sent.*generator"
    ):
        mlchaos.world().run(environment, (i for i in range(3)))
    with pytest.raises(BadArgument, match="a coroutine function"):

        async def subject():
            """Nothing."""

        mlchaos.world().run(subject)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ranks": 0}, "ranks must be a number from 1"),
        ({"ranks": "2"}, r"'2' \(str\)"),
        ({"restarts": -1}, "restarts must be 0 or more"),
        ({"backend": "mpi"}, "'gloo' or 'nccl'"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"timeout": "soon"}, "'soon'"),
    ],
)
def test_a_world_that_makes_no_sense_is_refused(mlchaos, keywords, message):
    """With the argument and its value."""
    with pytest.raises(BadArgument, match=message):
        mlchaos.world(**keywords)


# -- ranks that end in their own ways --------------------------------------------------------------


def test_a_rank_that_raises_is_told_with_its_own_exception(mlchaos):
    """Its error is the original; with no fault about it is a failure, however fast."""

    def subject():
        if os.environ["RANK"] == "1":
            raise KeyError("lost")
        return "fine"

    run = mlchaos.world().run(subject)
    assert (run.ranks[0].value, run.ranks[1].exitcode) == ("fine", 1)
    with pytest.raises(RankFailed, match="rank 1 returned nothing: it raised"):
        run.ranks[1].value  # noqa: B018
    assert isinstance(run.ranks[1].error, KeyError)
    with pytest.raises(RankFailed, match=r"rank 1 did not finish: it raised KeyError: 'lost'"):
        run.assert_failed_fast()
    with pytest.raises(RankFailed, match="fewer than two ranks finished"):
        run.assert_in_sync()


@pytest.mark.parametrize(
    ("leave", "exitcode", "words"),
    [
        (lambda: sys.exit(3), 3, "exited with code 3"),
        (lambda: sys.exit("no"), 1, "exited with code 1"),
        (lambda: os._exit(4), 4, "exited with code 4"),
        (lambda: os.kill(os.getpid(), signal.SIGABRT), -signal.SIGABRT, "was killed by SIGABRT"),
        (lambda: sys.exit(), 0, None),
    ],
)
def test_exit_codes_are_those_of_processes(mlchaos, leave, exitcode, words):
    """``sys.exit``, ``os._exit`` and signals."""
    run = mlchaos.world(ranks=1).run(leave)
    assert run.ranks[0].exitcode == exitcode
    if words is None:
        run.assert_finished()
    else:
        with pytest.raises(RankFailed, match=f"rank 0 did not finish: it {words}"):
            run.assert_finished()


def test_a_value_that_cannot_be_sent_home_is_an_error_where_it_is_asked_for(mlchaos):
    """The rank has finished all the same."""
    run = mlchaos.world(ranks=1).run(lambda: (i for i in range(3)))
    run.assert_finished()
    with pytest.raises(BadArgument, match=r"the value of rank 0 cannot be sent back.*generator"):
        _ = run.ranks[0].value


@pytest.mark.slow
@chaos.settings(allow_quiet=True)
def test_a_hanging_subject_is_ended_and_shown_where_it_stood(mlchaos):
    """Within the world's timeout; the line is the user's."""

    def subject():
        if os.environ["RANK"] == "1":
            time.sleep(600)

    run = mlchaos.world(timeout=15).run(subject)
    assert run.duration < 120
    assert (run.ranks[0].exitcode, run.ranks[1].exitcode) == (0, None)
    assert "in subject" in run.ranks[1].stack
    assert "rank.py" not in run.ranks[1].stack
    with pytest.raises(
        RankHung,
        match=r"rank 1 was still running after \d+\.\d s, and hung in subject \(test_world\.py:\d+\), and no rank had",
    ):
        run.assert_failed_fast()
    with pytest.raises(RankFailed, match="rank 1 did not finish: it was still running after"):
        run.assert_finished()


def fails_after(file):
    """Fail when a different rank is where it hangs. The world ends after its grace period."""
    while not file.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    raise ValueError("enough")


def test_all_threads_of_a_hanging_rank_are_shown(mlchaos, tmp_path):
    """The main thread first, then those that run the user's code. How it hung is told of the main
    thread.
    """

    def waits_for_work():
        time.sleep(600)

    def subject():
        if os.environ["RANK"] == "1":
            fails_after(tmp_path / "ready")
        threading.Thread(target=importlib.import_module("queue").Queue().get, daemon=True).start()
        threading.Thread(target=waits_for_work, daemon=True).start()
        (tmp_path / "ready").touch()
        time.sleep(600)

    run = mlchaos.world(timeout=100, grace=0.5).run(subject)
    main, users, library = run.ranks[0].stack.split("another thread:\n")
    assert "in subject" in main
    assert "waits_for_work" not in main
    assert "in waits_for_work" in users
    assert "queue.py" in library
    assert "hung in subject (test_world.py:" in run.story()


def test_one_that_blocks_in_a_collective_shows_its_line_too(mlchaos, tmp_path):
    """Python's own stack cannot be asked there; the dump is written by a signal handler in C."""

    def subject():
        if os.environ["RANK"] == "2":
            fails_after(tmp_path / "ready")
        dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=2)
        if dist.get_rank() == 0:
            (tmp_path / "ready").touch()
            dist.barrier()
        else:
            time.sleep(600)

    run = mlchaos.world(ranks=3, timeout=100, grace=0.5).run(subject)
    assert "in barrier" in run.ranks[0].stack
    assert "called from subject (test_world.py:" in run.story()


def test_a_port_that_is_in_use_is_a_clear_error(mlchaos):
    """A rendezvous of the subject's own is hosted by rank 0, as without torchrun, and fails at
    once.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        def subject():
            dist.init_process_group(
                "gloo",
                init_method=f"tcp://127.0.0.1:{port}",
                rank=int(os.environ["RANK"]),
                world_size=2,
            )

        run = mlchaos.world(timeout=100, grace=0.5).run(subject)
    with pytest.raises(
        RankFailed,
        match=r"rank 0 did not finish: it raised OSError: .*port \d+ is in use, so rank 0 cannot host the store",
    ):
        run.assert_finished()
    assert run.duration < 60


def test_a_rendezvous_of_the_users_own_works(mlchaos):
    """``MASTER_PORT`` set by the subject itself, as scripts for ``mp.spawn`` do."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def subject():
        os.environ["MASTER_PORT"] = str(port)
        return train(2)

    run = mlchaos.world(timeout=60).run(subject)
    run.assert_finished()
    run.assert_in_sync()


def test_a_subject_that_does_not_load_in_a_rank_is_no_verdict(mlchaos, tmp_path, monkeypatch):
    """A module that raises when it is imported for the second time, say."""
    (tmp_path / "imported_once.py").write_text(
        "import os\nassert 'RANK' not in os.environ, 'imported in a rank'\ndef subject(): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import imported_once

    with pytest.raises(
        BadArgument,
        match="the subject cannot be loaded in the process of a rank: AssertionError: imported in a rank",
    ):
        mlchaos.world().run(imported_once.subject)
    sys.modules.pop("imported_once")


def test_a_rank_that_cannot_start_is_an_error_of_the_tool(mlchaos, tmp_path, monkeypatch):
    """No verdict on the subject either."""
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(
        MlchaosError, match="rank 0 could not be started: ValueError: invalid literal"
    ):
        mlchaos.world().run(environment)


# -- faults ----------------------------------------------------------------------------------------


@chaos.rank_failure(rank=1, at=2)
def test_a_killed_rank_is_really_killed_and_its_strike_is_told(mlchaos):
    """SIGKILL; the survivor notices in its collective; the journal has the strike."""
    run = mlchaos.world(grace=30).run(train)
    run.assert_failed_fast(within=25)
    assert run.ranks[1].exitcode == SIGKILL
    assert isinstance(run.ranks[0].error, RuntimeError)
    assert [json.loads(line) for line in mlchaos.journal.lines()] == [
        {
            "fault": "rank_failure(at=2, rank=1)",
            "site": "train.step",
            "visit": 2,
            "details": {"rank": 1},
        }
    ]
    assert [strike.visit for strike in run.ranks[1].faults] == [2]
    assert run.ranks[1].steps == 3
    with pytest.raises(RankFailed, match="rank 1 did not finish: it was killed by SIGKILL"):
        run.assert_finished()
    with pytest.raises(NotRecovered, match="rank 1 did not finish"):
        run.assert_recovered()


@chaos.rank_failure(rank=0, at=1, mode="hang")
def test_a_rank_that_hangs_takes_the_others_with_it(mlchaos):
    """Neither ends; the survivor is the one to blame, and shown with its line."""
    run = mlchaos.world(grace=1).run(train)
    with pytest.raises(
        RankHung,
        match=r"rank 1 was still running \d+\.\d s after rank 0 hung \(injected\).*called from train \(test_world",
    ):
        run.assert_failed_fast(within=0.5)
    with pytest.raises(BadArgument, match="Give the world more time"):
        run.assert_failed_fast(within=20)
    assert run.ranks[0].exitcode is None


@chaos.rank_failure(rank=0, at=1, mode="hang")
def test_survivors_that_end_are_not_blamed_for_the_one_that_hangs(mlchaos):
    """The world is over once no other rank runs."""
    run = mlchaos.world(timeout=100).run(local_steps)
    run.assert_failed_fast(within=60)
    assert run.ranks[1].value == 1
    assert run.duration < 60


@chaos.rank_failure(rank=1, at=0, mode="raise")
def test_a_rank_that_raises_may_handle_it(mlchaos):
    """It is an exception like any other."""

    def subject():
        try:
            return local_steps()
        except RuntimeError as error:
            return str(error)

    run = mlchaos.world().run(subject)
    run.assert_finished()
    assert run.ranks[1].value == "rank 1 failed at train.step 0 (injected by mlchaos)"


@chaos.crash(at=1, where=lambda visit: visit.attributes["rank"] == 0)
def test_a_crash_in_a_world_ends_the_process(mlchaos):
    """The same fault as in process, with nothing simulated; a predicate sees the rank."""
    run = mlchaos.world().run(local_steps)
    assert [rank.exitcode for rank in run.ranks] == [SIGKILL, 0]


@chaos.corrupt_batch(kind="nan", fraction=1.0, at=1)
def test_each_rank_counts_its_own_visits(mlchaos):
    """A fault that names no rank strikes in each; the journal goes by rank."""

    def subject():
        return [bool(batch.isnan().any()) for batch in DataLoader(torch.ones(3), batch_size=1)]

    run = mlchaos.world().run(subject)
    assert [rank.value for rank in run.ranks] == [[False, True, False]] * 2
    assert [(strike.visit, strike.details["rank"]) for strike in mlchaos.journal] == [
        (1, 0),
        (1, 1),
    ]


@chaos.corrupt_batch(kind="nan", fraction=1.0, at=1, rank=1)
def test_every_fault_can_be_bound_to_a_rank(mlchaos):
    """The keyword rank= replaces a predicate on the visit."""

    def subject():
        return [bool(batch.isnan().any()) for batch in DataLoader(torch.ones(3), batch_size=1)]

    run = mlchaos.world().run(subject)
    assert [rank.value for rank in run.ranks] == [[False, False, False], [False, True, False]]


WHERE_JOB = """
    import torch

    def subject():
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(3):
            optimizer.step()
    """


def test_a_predicate_on_the_rank_prints_as_visits_and_rank(example):
    """The line to paste strikes the same rank at the same visit, and was run before it was shown."""
    example.with_file("job.py", WHERE_JOB).with_tests("""
        from job import subject

        @chaos.crash(at=[1, 2], where=lambda visit: visit.attributes["rank"] == 1 and visit.index > 1)
        def test_it(mlchaos):
            mlchaos.world().run(subject).assert_finished()
    """).run(failed=1).has("reproduce: @chaos.crash(at=2, rank=1)")


def test_ranks_that_drift_apart_are_found(mlchaos):
    """The message names ranks and entry."""
    with pytest.raises(
        OutOfSync,
        match=r"rank 1 and rank 0 ended in different states\n  trained parameters\[0\]\[0\]\[0\]: differs",
    ):
        mlchaos.world().run(local_steps).assert_in_sync()


def alike():
    """Ranks that end alike because none has heard of another."""
    return 7


def test_ranks_without_a_process_group_are_not_in_sync(mlchaos):
    """Their states are equal by chance. One rank alone has no other rank to be in sync with."""
    with pytest.raises(BadArgument, match="no rank initialized its process group"):
        mlchaos.world().run(alike).assert_in_sync()
    with pytest.raises(BadArgument, match="needs a world of two ranks"):
        mlchaos.world(ranks=1).run(alike).assert_in_sync()


@chaos.settings(allow_quiet=True)
def test_there_must_be_something_to_compare(mlchaos):
    """A subject that returns nothing and trains nothing proves nothing."""
    run = mlchaos.world().run(time.sleep, 0)
    with pytest.raises(BadArgument, match="assert_in_sync has nothing to compare"):
        run.assert_in_sync()
    with pytest.raises(BadArgument, match="assert_recovered has nothing to judge"):
        run.assert_recovered()


# -- restarts --------------------------------------------------------------------------------------


def resumable(path, sound=True):
    """Saves after every step; the unsound version forgets the weights."""
    dist.init_process_group("gloo")
    model = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.zeros_(model.bias)
    saved = path / "checkpoint.pt"
    start = 0
    if saved.exists():
        start, state = torch.load(saved)
        if sound:
            model.load_state_dict(state)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    for step in range(start, 5):
        ddp(torch.full((2, 2), float(step))).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 0:
            torch.save((step + 1, model.state_dict()), path / "new")
            (path / "new").replace(saved)
        dist.barrier()
    return start, int(os.environ["TORCHELASTIC_RESTART_COUNT"])


@chaos.rank_failure(rank=1, at=2)
def test_a_world_is_started_again_as_torchrun_does(mlchaos, tmp_path):
    """All ranks, in the same directory; visits are counted on, so the fault strikes once."""
    run = mlchaos.world(restarts=3).run(resumable, tmp_path)
    run.assert_finished()
    assert run.restarts == 1
    # Was the survivor stopped before it had saved?
    assert [rank.value for rank in run.ranks] in ([(2, 1)] * 2, [(3, 1)] * 2)
    assert [str(strike) for strike in run.faults] == [
        "rank_failure(at=2, rank=1) struck train.step 2"
    ]
    assert "rank 1 was killed by SIGKILL" in run.story()
    golden = run.golden
    assert golden.ranks[0].value == (0, 0)
    assert (tmp_path / "checkpoint.pt").exists()
    run.assert_in_sync()


def saving(path, kind):
    """A job without steps of torch's, in one rank, that saves its progress."""
    saved = path / "saved.json"
    new = path / "new" if kind == "sound" else saved
    done = json.loads(saved.read_text()) if kind != "never loads" and saved.exists() else 0
    while done < 2:
        done += 1
        new.write_text(json.dumps(done))
        new.replace(saved)
        time.sleep(0.15)  # the recorder sees what another process writes a little later
    return done


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sound", "torn", "never loads"])
def test_a_world_inside_an_exploration_is_crashed_as_a_whole(mlchaos, tmp_path, kind):
    """Its ranks' files are the states. A rank that fails is the outcome of that state."""

    def whole(path):
        world = mlchaos.world(ranks=1).run(saving, path, kind)
        world.assert_finished()
        return [rank.value for rank in world.ranks]

    report = mlchaos.explore_crashes(whole, tmp_path / "work", isolation="in-process")
    assert "saved.json" in {state.path for state in report.states}
    expected = {
        "sound": {"recovered"},
        "never loads": {"restarted"},
        "torn": {"recovered", "failed"},
    }
    assert {outcome.verdict for outcome in report.outcomes} == expected[kind]
    if kind == "torn":
        assert all(
            isinstance(outcome.error, RankFailed) and "JSONDecodeError" in str(outcome.error)
            for outcome in report.failures
        )


@chaos.rank_failure(at=0, rank=0)
def test_no_fault_strikes_in_a_world_inside_an_exploration(mlchaos, tmp_path):
    """All its ranks finish, its visits do not count, and a comparison would show nothing."""

    def whole(path):
        world = mlchaos.world(ranks=1).run(local_steps, 2)
        (path / "done").write_text("1")
        with pytest.raises(
            Vacuous, match=r"no fault strikes inside the subject of mlchaos.explore_crashes"
        ):
            world.assert_recovered()
        return world.ranks[0].steps

    report = mlchaos.explore_crashes(whole, tmp_path / "work", isolation="in-process")
    report.assert_recovers(from_scratch=True)
    assert not mlchaos.journal
    run = mlchaos.world(ranks=1).run(local_steps, 1)
    assert [strike.visit for strike in run.faults] == [0]


def test_a_world_inside_another_subject_is_refused(example):
    """Only an exploration, whose subject no fault strikes, may have a world inside; and that world
    none beside it.
    """
    example.with_tests("""
        import contextlib, os, threading

        def test_run(mlchaos, tmp_path):
            mlchaos.run(lambda: mlchaos.world(ranks=1).run(os.getpid))

        def test_pipeline(mlchaos, tmp_path):
            mlchaos.pipeline(lambda: mlchaos.world(ranks=1).run(os.getpid)).assert_complete()

        def test_beside(mlchaos, tmp_path):
            def start():
                with contextlib.suppress(ValueError):
                    mlchaos.world(ranks=1).run(os.getpid)

            def whole(path):
                (path / "x").write_text("1")
                thread = threading.Thread(target=start)
                with mlchaos._controller.subject_of("mlchaos.world", within=["mlchaos.explore_crashes"]):
                    thread.start()
                    thread.join()
            mlchaos.explore_crashes(whole, tmp_path / "work", isolation="in-process").assert_recovers(from_scratch=True)
    """).run(failed=3).has(
        *(
            f"mlchaos.world was called inside the subject of mlchaos.{outer}"
            for outer in ("run", "pipeline", "world")
        )
    )


@chaos.rank_failure(rank=1, at=2)
@pytest.mark.parametrize("sound", [True, False])
def test_the_end_is_compared_with_an_undisturbed_world(mlchaos, tmp_path, sound):
    """One that resumes without its weights has not recovered."""

    def subject():
        resumable(tmp_path, sound)

    run = mlchaos.world(restarts=1).run(subject)
    if sound:
        run.assert_recovered()
    else:
        with pytest.raises(
            NotRecovered,
            match=r"rank 0 did not end in the state of its golden run\n  trained parameters",
        ):
            run.assert_recovered()


def forgetful(path, forgets, steps=5):
    """Resumes all but what it is told to forget: in rank 1 the position in its data, in both ranks
    the optimizer's state.
    """
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    rank, saved = dist.get_rank(), path / "checkpoint.pt"
    model = torch.nn.Linear(2, 1)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    start = 0
    if saved.exists():
        start, weights, state = torch.load(saved, weights_only=False)
        model.load_state_dict(weights)
        if "optimizer" not in forgets:
            optimizer.load_state_dict(state)
    for step in range(start, steps):
        position = step - start if "position" in forgets and rank == 1 else step
        ddp(torch.full((2, 2), float(position + 10 * rank))).square().mean().backward()
        if "rate" in forgets and rank == 1 and step == 3:
            optimizer.param_groups[0]["lr"] = 0.2
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0:
            torch.save((step + 1, model.state_dict(), optimizer.state_dict()), path / "new")
            (path / "new").replace(saved)
        dist.barrier()


@chaos.rank_failure(rank=1, at=2, site="train.backward")
@pytest.mark.parametrize(
    ("forgets", "says"),
    [
        ("position", r"  rank 1: data order, first at step 2 \("),
        (
            "optimizer",
            r"  ranks 0 and 1: optimizer state, first at step 2 \(the optimizer's state is not restored\)\n",
        ),
    ],
    ids=["position", "optimizer"],
)
def test_what_a_rank_has_not_restored_is_named(mlchaos, tmp_path, forgets, says):
    """The rank, the step and the component that first differ; not the parameters that differ later,
    in all ranks.
    """
    run = mlchaos.world(restarts=1).run(forgetful, tmp_path, forgets)
    before = (tmp_path / "checkpoint.pt").read_bytes(), list(mlchaos.journal)
    with pytest.raises(
        NotRecovered,
        match=rf"(?s)trained parameters[^\n]*\n  all ranks agree[^\n]*\n{says}.*rank 0: 3 steps",
    ):
        run.assert_recovered()
    # The traced run leaves no traces.
    assert before == ((tmp_path / "checkpoint.pt").read_bytes(), list(mlchaos.journal))


@chaos.settings(allow_quiet=True)
def test_the_step_at_which_ranks_part_is_named(mlchaos, tmp_path):
    """With the setting that made them part, not the parameters that differ one step later."""
    run = mlchaos.world().run(forgetful, tmp_path, "rate")
    with pytest.raises(OutOfSync, match=r"\n  they first differ at step 3: learning rate\n"):
        run.assert_in_sync()


@chaos.rank_failure(rank=0, at=[0, 1])
def test_restarts_are_used_up(mlchaos):
    """Then the last attempt counts, and two strikes against one restart are not put down to the
    job.
    """
    run = mlchaos.world(restarts=1).run(local_steps)
    assert run.restarts == 1
    assert run.ranks[0].exitcode == SIGKILL
    assert [attempt.ended for attempt in run.attempts] == [
        "rank 0 was killed by SIGKILL at train.step 0",
        "rank 0 was killed by SIGKILL at train.step 1",
    ]
    with pytest.raises(
        GaveUp,
        match="did not finish within 1 restart: faults ended it 2 times, and restarts=1 allows for 1",
    ):
        run.assert_finished()
    with pytest.raises(GaveUp):
        run.assert_recovered()


# -- what pytest shows -----------------------------------------------------------------------------


def test_a_failure_of_ranks_without_a_world_is_told_so(example):
    """The test's own process is not a rank, so nothing can strike there."""
    example.with_tests("""
        from pytest_mlchaos import chaos

        @chaos.rank_failure(at=1, site="mine.step")
        def test_it(mlchaos):
            assert [mlchaos.visit("mine.step", 3) for _ in range(4)] == [3] * 4
    """).run(failed=1).has(
        "rank_failure(site='mine.step', at=1) never struck: mine.step was passed 4 times, but not "
        "in a rank of a world"
    )


SUBJECT = """
import os, sys, torch
import torch.distributed as dist

def train(steps=3):
    dist.init_process_group("gloo")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for step in range(steps):
        weight.grad = torch.ones(2)
        dist.all_reduce(weight.grad)
        optimizer.step()
    print("trained by", dist.get_rank())
    print("a word", file=sys.stderr)
    return weight.detach()

@chaos.settings(max_trials=4)
@chaos.rank_failure
def test_explored(mlchaos):
    run = mlchaos.world(ranks=2).run(train)
    run.assert_finished()

@chaos.rank_failure(at=1)
def test_which_rank_is_searched_too(mlchaos):
    run = mlchaos.world(ranks=2).run(train)
    assert run.ranks[1].exitcode == 0 or run.ranks[0].exitcode == 0 or run.ranks[1].exitcode != -9

@chaos.rank_failure(rank=1, at=1)
def test_pinned(mlchaos):
    mlchaos.world(ranks=2).run(train).assert_failed_fast()

def test_output(mlchaos):
    mlchaos.world(ranks=2).run(train)
    assert not "shown"

@chaos.rank_failure(rank=2)
def test_no_such_rank(mlchaos):
    mlchaos.world(ranks=2).run(train)

@chaos.rank_failure(rank=1, at=9)
def test_too_late(mlchaos):
    mlchaos.world(ranks=2).run(train).assert_finished()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [(), ("-n", "2", "--import-mode=importlib")], ids=["plain", "xdist"]
)
def test_worlds_are_explored_reported_and_journalled(example, tmp_path, arguments):
    """The smallest schedule names the rank; the journal is the same, byte for byte, wherever the
    tests ran.
    """
    example = example.with_tests(SUBJECT)
    file = tmp_path / "journal"
    outcome = example.run(
        "--mlchaos-seed=3", f"--mlchaos-journal={file}", *arguments, fresh=True, failed=5, passed=1
    )
    assert "@chaos.rank_failure(at=0, rank=0)" in outcome.reproduce
    assert "@chaos.rank_failure(at=1, rank=1)" in outcome.reproduce
    outcome.has("[rank 0] trained by 0", "[rank 1] trained by 1", "[rank 1] a word")
    outcome.has("rank_failure: rank must be below 2, because this world has 2 ranks, got 2 (int)")
    outcome.has(
        "rank_failure(at=9, rank=1) never struck: train.step was passed 3 times (visits 0 to 2)"
    )
    JOURNALS.append(file.read_bytes())
    assert len(set(JOURNALS)) == 1


JOURNALS: list[bytes] = []
"""The journals of the plain run, and of the run under xdist."""


# -- no process is left ----------------------------------------------------------------------------


def descendants():
    """All processes below this one, but for the warm process."""
    found = psutil.Process().children(recursive=True)
    return [
        process
        for process in found
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def gone(processes, seconds=10):
    """Return True if all processes have ended by then."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def orphans(path):
    """Leaves a process in a session of its own, and loader workers, then goes the rank's way."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    loader = iter(DataLoader(torch.arange(100), num_workers=1))
    next(loader)
    (path / f"{os.environ['RANK']}").write_text(
        f"{child.pid} {psutil.Process().children()[-1].pid} {os.getpid()}"
    )
    dist.init_process_group("gloo")
    dist.barrier()
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600 if path.name == "hangs" else 0)


def started_by(path):
    """The processes that ranks have told of."""
    return [int(pid) for file in path.iterdir() for pid in file.read_text().split()]


def test_no_process_and_no_port_is_left_by_killed_worlds(mlchaos, tmp_path):
    """Not even one that has left the rank's session."""
    mlchaos.world().run(environment)
    before = {process.pid for process in descendants()}
    ports = set()
    for _ in range(3):
        run = mlchaos.world(grace=1).run(orphans, tmp_path)
        assert run.ranks[1].exitcode == SIGKILL
        assert not [pid for pid in started_by(tmp_path) if psutil.pid_exists(pid)]
        ports |= {int(rank.value["MASTER_PORT"]) for rank in mlchaos.world().run(environment).ranks}
    assert gone([process for process in descendants() if process.pid not in before])
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


RUNNER = """
import sys
from tests.test_world import orphans

def test_it(mlchaos, tmp_path):
    import pathlib
    mlchaos.world(ranks=2, timeout=300, grace=300).run(orphans, pathlib.Path(FOLDER))
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_the_ranks_die_with_their_runner(tmp_path, signum):
    """After a kill or an interruption no process survives, including orphans and the fork server."""
    folder = tmp_path / "hangs"
    folder.mkdir()
    (tmp_path / "test_runner.py").write_text(RUNNER.replace("FOLDER", repr(str(folder))))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    runner = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_runner.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while len(list(folder.iterdir())) < 2 or len(started_by(folder)) < 6:
            assert time.monotonic() < until
            assert runner.poll() is None
            time.sleep(0.05)
        everyone = psutil.Process(runner.pid).children(recursive=True)
        assert len(everyone) >= 4
        pids = started_by(folder)
        runner.send_signal(signum)
        runner.wait(20)
        assert gone(everyone)
        until = time.monotonic() + 10
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.05)
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
    finally:
        runner.kill()
        runner.wait()


def test_a_trial_that_is_over_ends_its_world(example):
    """The trial's own time limit interrupts the wait, and the ranks with it."""
    example.with_tests(
        """
        import os, time

        def subject(path):
            (path / os.environ["RANK"]).write_text(str(os.getpid()))
            time.sleep(600)

        @chaos.settings(timeout=5)
        def test_it(mlchaos, tmp_path_factory):
            mlchaos.world(ranks=2).run(time.sleep, 0)
            mlchaos.world(ranks=2).run(subject, tmp_path_factory.mktemp("pids"))

        def test_afterwards(tmp_path_factory):
            import psutil
            pids = [int(file.read_text()) for file in tmp_path_factory.getbasetemp().glob("pids0/*")]
            assert len(pids) == 2
            assert not [pid for pid in pids if psutil.pid_exists(pid)]
        """
    ).run(failed=1, passed=1).has("TrialTimeout: the trial took longer than 5 s")


# -- storage ---------------------------------------------------------------------------------------


def save_shards(folder):
    """Each rank writes three files of its own."""
    rank = os.environ["RANK"]
    for number in range(3):
        with open(f"{folder}/r{rank}-{number}", "w") as file:
            file.write("x")


@chaos.flaky_storage(op="write", at=1, path="r0-*")
def test_a_storage_fault_strikes_in_the_rank_that_writes_the_file(mlchaos, tmp_path):
    """The ways to reach a file are watched in ranks, too."""
    run = mlchaos.world(ranks=2).run(save_shards, tmp_path)
    assert [[(strike.site, strike.visit) for strike in rank.faults] for rank in run.ranks] == [
        [("storage.write", 1)],
        [],
    ]
    assert [rank.exitcode for rank in run.ranks] == [1, 0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "r0-1") == [
        "r0-0",
        "r1-0",
        "r1-1",
        "r1-2",
    ]


@chaos.flaky_storage(op="open", at=0)
def test_starting_the_warm_process_is_no_visit(mlchaos, tmp_path, monkeypatch):
    """The first operation that is struck is the test's own, whether or not ranks have been started
    before.
    """
    world_module = importlib.import_module("pytest_mlchaos.ranks.api")
    server = ForkServer(["torch", "torch.distributed"], ENTRY)
    monkeypatch.setattr(world_module, "_server", lambda: server)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        assert mlchaos.world(ranks=1).run(os.getpid).ranks[0].exitcode == 0
        assert not mlchaos.journal
    finally:
        server.stop()
    with pytest.raises(OSError, match="injected"):
        open(tmp_path / "a", "w")


# -- sharded parameters ----------------------------------------------------------------------------


def sharded(other=(), copies=False):
    """FSDP2, or parameters that each rank has whole (``copies``); ranks in ``other`` end with other
    weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_module

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 5)
    if copies:
        distribute_module(model, init_device_mesh("cpu", (2,)))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
    else:
        fully_shard(model)
        model(torch.ones(2, 3)).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    if dist.get_rank() in other or visit("late", 0) == 1:
        with torch.no_grad():
            next(model.parameters()).to_local().add_(1)
    return model.state_dict()


@register
class LateChange(Fault):
    """A rank goes on with another value."""

    site = "late"

    def apply(self, visit):
        """Change it."""
        return 1


@register
class LateNote(Fault):
    """A strike that harms nothing."""

    site = "late"

    def apply(self, visit):
        """Go on with a value that is not looked at."""
        return 2


@chaos.late_note(rank=1, at=0)
def test_sharded_parameters_are_judged_shard_by_shard(mlchaos):
    """FSDP2 recovers where each rank's shards are the golden ones; pieces that no other rank has
    are in sync.
    """
    run = mlchaos.world(timeout=60).run(sharded)
    run.assert_recovered()
    run.assert_in_sync(values=True)


@chaos.late_change(rank=1, at=0)
def test_a_shard_that_is_not_the_golden_one_is_found(mlchaos):
    """The rank, the parameter and the local shard are named."""
    run = mlchaos.world(timeout=60).run(sharded)
    with pytest.raises(
        NotRecovered,
        match=r"rank 1 did not end in the state .*\n  returned value\['weight'\].to_local\(\)\[0, 0\]: differs",
    ):
        run.assert_recovered()


def test_copies_of_a_distributed_parameter_are_compared_across_ranks(mlchaos):
    """Replicated values must be the same on all ranks."""
    run = mlchaos.world(timeout=60).run(sharded, (1,), True)
    with pytest.raises(
        OutOfSync, match=r"trained parameters\[0\]\[0\].to_local\(\)\[0, 0\]: differs"
    ):
        run.assert_in_sync()

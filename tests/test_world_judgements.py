"""Test what a world says about collectives, lost work, times and processes that ranks leave."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import BadArgument, MismatchedCollectives, Orphaned, RankHung
from pytest_mlchaos.ranks import world

pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")

error_in_step = chaos.rank_failure(rank=1, at=1, mode="raise")


def reduce_and_wait(on_fault, steps=3, size=2):
    """Take steps with an all-reduce and a barrier each. Return True in a rank with an error."""
    dist.init_process_group("gloo")
    weight = torch.nn.Parameter(torch.zeros(size))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(steps):
        weight.grad = torch.ones(size)
        try:
            optimizer.step()
        except RuntimeError:
            if on_fault(weight):
                continue
        dist.all_reduce(weight.grad)
        dist.barrier()


# -- collectives -----------------------------------------------------------------------------------


@error_in_step
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_launch_the_same_are_in_step(mlchaos, ranks):
    """A rank that handles an error, and launches all collectives, is sound."""
    run = mlchaos.world(ranks=ranks).run(reduce_and_wait, lambda weight: False)
    run.assert_finished()
    run.assert_no_desync()


@error_in_step
def test_a_rank_that_skips_collectives_is_found(mlchaos):
    """Gloo pairs its next ones with those of the other rank, until one is missing."""
    run = mlchaos.world(ranks=2, grace=1).run(reduce_and_wait, lambda weight: True)
    words = r"collective 4: rank 0 all_reduce, rank 1 none\n"
    with pytest.raises(MismatchedCollectives, match=words):
        run.assert_no_desync()


@error_in_step
def test_the_operations_that_were_paired_are_named(mlchaos):
    """Rank 1 launches one barrier too many."""

    def on_fault(weight):
        dist.barrier()

    run = mlchaos.world(ranks=2, grace=1, timeout=8).run(reduce_and_wait, on_fault)
    words = r"collective 2: rank 0 all_reduce, rank 1 barrier\n"
    with pytest.raises(MismatchedCollectives, match=words):
        run.assert_no_desync()


@error_in_step
def test_sizes_that_differ_are_found(mlchaos):
    """The operation is the same, the number of elements is not."""

    def on_fault(weight):
        dist.all_reduce(torch.ones(1))
        dist.barrier()
        return True

    run = mlchaos.world(ranks=2, grace=1, timeout=8).run(reduce_and_wait, on_fault)
    words = r"rank 0 all_reduce of 2 float32, rank 1 all_reduce of 1 float32"
    with pytest.raises(MismatchedCollectives, match=words):
        run.assert_no_desync()


@chaos.rank_failure(rank=1, at=1)
def test_a_rank_that_dies_is_not_blamed_for_what_it_did_not_launch(mlchaos):
    """Its log ends early. That is its death, and not a wrong order."""
    run = mlchaos.world(ranks=2, grace=1).run(reduce_and_wait, lambda weight: False)
    run.assert_no_desync()
    assert "last collective: " in run.story()


def reduce_once(folder):
    """Two ranks of a job that fails in the first attempt, because rank 1 gives more."""
    dist.init_process_group("gloo")
    rank, is_first = dist.get_rank(), not (folder / "second").exists()
    dist.barrier()
    apart = rank == 1 and is_first
    dist.all_reduce(torch.ones(2 if apart else 1), async_op=apart)
    if apart:
        (folder / "second").touch()
        raise RuntimeError("the ranks are apart")


@chaos.settings(allow_quiet=True)
def test_each_attempt_is_judged(mlchaos, tmp_path):
    """A restart that goes well does not hide what was wrong before."""
    run = mlchaos.world(ranks=2, grace=1, timeout=30, restarts=1).run(reduce_once, tmp_path)
    run.assert_finished()
    words = r"attempt 1, collective 1: rank 0 all_reduce of 1 float32, rank 1 all_reduce of 2 "
    with pytest.raises(MismatchedCollectives, match=words):
        run.assert_no_desync()


@chaos.rank_failure(rank=1, at=1)
def test_a_restart_after_a_death_is_not_a_desync(mlchaos):
    """The log of the first attempt ends early, and the second one is complete."""
    world = mlchaos.world(ranks=2, grace=1, restarts=1)
    run = world.run(reduce_and_wait, lambda weight: False)
    assert run.restarts == 1
    run.assert_no_desync()


# -- hangs, lost work and times --------------------------------------------------------------------


@chaos.rank_failure(rank=1, at=1)
def test_the_threads_of_a_rank_that_hangs_are_shown(mlchaos):
    """The report names the place where each thread stands."""

    def subject():
        try:
            reduce_and_wait(lambda weight: False)
        except RuntimeError:
            forever()

    def forever():
        import threading

        threading.Event().wait()

    run = mlchaos.world(ranks=2, grace=2).run(subject)
    with pytest.raises(RankHung) as caught:
        run.assert_failed_fast(within=0.5)
    (note,) = (note for note in caught.value.__notes__ if note.startswith("threads of rank 0"))
    assert "  forever (test_world_judgements.py:" in note
    assert "/" not in note


def resume(folder, steps=6):
    """Save after every second step, and go on from there."""
    dist.init_process_group("gloo")
    weight, saved = torch.nn.Parameter(torch.zeros(1)), folder / "last.pt"
    done = torch.load(saved) if saved.exists() else 0
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for step in range(done, steps):
        weight.grad = torch.ones(1)
        dist.all_reduce(weight.grad)
        optimizer.step()
        if step % 2 and dist.get_rank() == 0:
            torch.save(step + 1, folder / "new.pt")
            (folder / "new.pt").replace(saved)
        dist.barrier()


@chaos.rank_failure(rank=1, at=2)
def test_lost_steps_and_times_are_measured(mlchaos, tmp_path):
    """Rank 0 has taken step 2, which no checkpoint holds. The next start takes some time."""
    run = mlchaos.world(ranks=2, restarts=1).run(resume, tmp_path)
    run.assert_finished()
    assert run.lost_steps == 1
    assert 0 < run.recovery_time < run.duration
    assert run.ranks[0].after_strike is None  # of the last attempt


@chaos.rank_failure(rank=1, at=3)
def test_the_time_from_the_strike_to_the_end_of_each_rank(mlchaos, tmp_path):
    """The killed rank ends at once, and the other one after it has noticed."""
    run = mlchaos.world(ranks=2).run(resume, tmp_path)
    killed, other = run.ranks[1].after_strike, run.ranks[0].after_strike
    assert -1 < killed <= other < run.duration
    assert run.recovery_time is None


def attempt(failed, *stepped):
    """Return an attempt in which a rank failed, and ranks began steps, at these times."""
    failure = None if failed is None else (failed, 0)
    return SimpleNamespace(failure=failure, ranks=[SimpleNamespace(stepped=at) for at in stepped])


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        ([attempt(None, 1.0, 1.0)], None),
        ([attempt(2.0, 1.0, 1.0)], None),
        ([attempt(2.0, 1.0, 1.0), attempt(None, 5.0, 6.0)], 4.0),
        ([attempt(2.0, 1.0), attempt(3.0, None), attempt(None, 7.0)], 5.0),  # it failed twice
        ([attempt(None, 1.0), attempt(None, 7.0)], None),  # a node came back
    ],
)
def test_the_recovery_time_ends_with_a_step_of_all_ranks(attempts, seconds):
    """It begins with the first failure of a row."""
    assert world._recovery_time(attempts) == seconds


# -- processes that ranks leave --------------------------------------------------------------------


def starts_a_process(keeps):
    """Start a process in a session of its own, and a loader's worker, then end."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    loader = iter(DataLoader(torch.arange(100), num_workers=1))
    next(loader)
    if not keeps:
        child.kill()
        child.wait()
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step()


def starts_in_a_group(keeps, keeper=None):
    """Start a process, which rank ``keeper`` keeps at least, and wait for the other ranks."""
    dist.init_process_group("gloo")
    starts_a_process(keeps or dist.get_rank() == keeper)
    dist.barrier()
    dist.destroy_process_group()


@chaos.rank_failure(rank=1, at=0)
def test_a_process_that_outlives_its_rank_is_found(mlchaos, monkeypatch):
    """It is named with its rank."""
    monkeypatch.setattr(world, "LOADER_SECONDS", 0.2)
    run = mlchaos.world(ranks=2, grace=0.2).run(starts_a_process, True)
    with pytest.raises(Orphaned, match=r"\n  rank 1 left a process running: python"):
        run.assert_no_orphans()


@pytest.mark.slow
@chaos.rank_failure(rank=1, at=0)
def test_loader_workers_of_a_dead_rank_may_end_by_themselves(mlchaos):
    """They notice after some seconds that their process has died."""
    run = mlchaos.world(ranks=2).run(starts_a_process, False)
    run.assert_no_orphans()


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
@chaos.rank_failure(rank=1, at=0)
def test_what_outlives_the_ranks_of_agents_is_found(mlchaos, monkeypatch, keeps):
    """The agents start the ranks again. A process counts for the attempt that started it."""
    if keeps:
        monkeypatch.setattr(world, "LOADER_SECONDS", 0.2)
    grace = 0.2 if keeps else 5
    world_of_agents = mlchaos.world(ranks=2, grace=grace, elastic=True, restarts=1, timeout=120)
    run = world_of_agents.run(starts_in_a_group, keeps)
    run.assert_finished()
    assert 0 < run.recovery_time < run.duration
    if not keeps:
        run.assert_no_orphans()
        return
    with pytest.raises(Orphaned, match=r"\n  rank 1 of attempt 1 left a process.*python") as found:
        run.assert_no_orphans()
    for rank in range(2):
        assert f"rank {rank} of attempt 2 left a process running" in str(found.value)


@pytest.mark.slow
@chaos.node_loss(ranks=[1], at=0)
def test_what_is_lost_with_its_node_is_not_an_orphan(mlchaos):
    """A node has no process any more, also none in a session of its own."""
    world = mlchaos.world(ranks=2, elastic=True, min_ranks=1, restarts=1, timeout=120)
    run = world.run(starts_in_a_group, False, 1)
    run.assert_finished()
    assert [attempt.ranks for attempt in run.attempts] == [2, 1]
    assert 0 < run.recovery_time < run.duration
    run.assert_no_orphans()


@chaos.settings(allow_quiet=True)
def test_what_was_not_looked_for_cannot_be_judged(mlchaos):
    """The plugin finds the assertion by its name."""
    run = mlchaos.world(ranks=2).run(int)
    with pytest.raises(BadArgument, match="must be in the test function itself"):
        getattr(run, "_".join(["assert", "no", "orphans"]))()
    with pytest.raises(BadArgument, match="no collective was recorded"):
        run.assert_no_desync()

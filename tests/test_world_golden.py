"""Test golden worlds: kept across the trials of a test, and never a reason for a false verdict."""

from __future__ import annotations

import functools
import os
import zlib

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import GoldenRunFailed, NotRecovered

pytest.importorskip("psutil")

STARTS = "GOLDEN_TEST_STARTS"
"""The variable with the path of a file in which each start of a world leaves a mark."""


def train(folder, steps=4, forgets=False, returns=lambda folder: None, seed=lambda folder: 0):
    """A DDP job with checkpoints. What it returns and its seed may depend on the folder."""
    if os.environ["RANK"] == "0":
        with open(os.environ[STARTS], "a") as file:
            file.write("|")
    dist.init_process_group("gloo")
    torch.manual_seed(seed(folder))
    model = torch.nn.Linear(4, 1)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saved, done = folder / "last.pt", 0
    if saved.exists():
        done, state = torch.load(saved)
        if not forgets:
            model.load_state_dict(state)
    for step in range(done, steps):
        optimizer.zero_grad()
        ddp(torch.full((8, 4), (dist.get_rank() + step) / 4)).square().mean().backward()
        optimizer.step()
        if dist.get_rank() == 0:
            torch.save((step + 1, model.state_dict()), folder / "new.pt")
            (folder / "new.pt").replace(saved)
        dist.barrier()
    return returns(folder)


@pytest.fixture
def starts(tmp_path_factory, monkeypatch):
    """Return a function that returns the number of starts so far, also of earlier trials."""
    file = tmp_path_factory.getbasetemp() / "golden_starts"
    file.touch()
    monkeypatch.setenv(STARTS, str(file))
    return lambda: len(file.read_text())


COUNTED = {"trials": 0}


@chaos.rank_failure(rank=1, site="train.backward")
@chaos.settings(max_trials=2, max_faults=1)
def test_the_trials_of_a_search_share_a_golden_world(mlchaos, tmp_path, starts):
    """Each trial has its own directory, and the same start."""
    COUNTED.setdefault("before", starts())
    COUNTED["trials"] += 1
    run = mlchaos.world(ranks=2, restarts=1).run(train, tmp_path)
    run.assert_recovered()
    COUNTED["starts"] = COUNTED.get("starts", 0) + len(run.attempts)


def test_there_was_one_golden_world(starts):
    """Count the worlds of the test before this one.

    On a busy machine, a trial may need a fresh one to compare with, but not each trial.
    """
    assert COUNTED["trials"] >= 3  # the first without faults
    golden = starts() - COUNTED["before"] - COUNTED["starts"]
    assert 1 <= golden < COUNTED["trials"]


@pytest.fixture
def folders(tmp_path_factory):
    """Return two directories that are not inside of one that the test works in."""
    return [tmp_path_factory.mktemp(name) for name in ("first", "second")]


def two(mlchaos, folders, **options):
    """Run the job in two directories, and return the second world."""
    for folder in folders:
        subject = functools.partial(train, **options)
        run = mlchaos.world(ranks=2, restarts=1).run(subject, folder)
        run.assert_recovered()
    return run


@chaos.rank_failure(rank=1, site="train.backward", at=[2, 7])
def test_two_worlds_with_the_same_start_share_one(mlchaos, folders, starts):
    """The names of the directories do not matter."""
    before = starts()
    two(mlchaos, folders)
    assert starts() - before == 5


@chaos.rank_failure(rank=1, site="train.backward", at=[2, 7])
def test_what_names_its_directory_gets_its_own_golden_world(mlchaos, folders, starts):
    """A returned path is equal in the golden world of the same directory only."""
    before = starts()
    run = two(mlchaos, folders, returns=str)
    assert run.golden.ranks[0].value == str(folders[1])
    assert starts() - before == 6


@chaos.rank_failure(rank=1, site="train.backward", at=[2, 7])
def test_what_depends_on_its_directory_is_not_blamed(mlchaos, folders, starts):
    """A difference from a kept golden world is checked with a new one."""
    two(mlchaos, folders, seed=lambda folder: zlib.crc32(str(folder).encode()))


@chaos.rank_failure(rank=1, site="train.backward", at=[2, 7])
def test_another_start_has_another_golden_world(mlchaos, folders, starts):
    """A checkpoint that is there from the start counts."""
    ends = []
    for folder, value in zip(folders, (1.0, 2.0), strict=True):
        state = {"weight": torch.full((1, 4), value), "bias": torch.ones(1)}
        torch.save((0, state), folder / "last.pt")
        run = mlchaos.world(ranks=2, restarts=1).run(train, folder)
        ends.append(run.golden.ranks[0].parameters)
        run.assert_recovered()
    assert not torch.equal(ends[0][0][0], ends[1][0][0])


@chaos.rank_failure(rank=1, site="train.backward", at=2)
def test_identical_and_wrong_ranks_are_seen(mlchaos, folders, starts):
    """Ranks that resume without their weights agree with each other, and are wrong."""
    subject = functools.partial(train, forgets=True)
    run = mlchaos.world(ranks=2, restarts=1).run(subject, folders[0])
    run.assert_in_sync()
    words = (
        r"(?s)trained parameters.*all ranks agree with each other, but not with the golden run\n"
    )
    with pytest.raises(NotRecovered, match=words):
        run.assert_recovered()


@chaos.rank_failure(rank=1, site="train.backward", at=[2, 7])
def test_a_wrong_end_is_found_with_a_kept_golden_world(mlchaos, folders, starts):
    """The second world is compared with the golden world of the first."""
    mlchaos.world(ranks=2, restarts=1).run(maybe_forgets, folders[0]).assert_recovered()
    run = mlchaos.world(ranks=2, restarts=1).run(maybe_forgets, folders[1])
    with pytest.raises(NotRecovered):
        run.assert_recovered()


def maybe_forgets(folder):
    """Forget the weights in a restart of the second world of the test."""
    train(folder, forgets=folder.name.startswith("second"))


def uneven():
    """Let rank 1 launch a collective more than rank 0."""
    dist.init_process_group("gloo")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(2 + dist.get_rank()):
        weight.grad = torch.ones(1)
        dist.all_reduce(weight.grad)
        optimizer.step()


@pytest.mark.parametrize("judgement", ["assert_finished", "assert_recovered"])
@chaos.straggler(rank=0, delay=0.01, at=1)
def test_a_job_that_fails_without_faults_is_not_blamed_on_them(mlchaos, judgement):
    """Mending the fault's effect would not help."""
    run = mlchaos.world(ranks=2).run(uneven)
    with pytest.raises(
        GoldenRunFailed,
        match=r"fails without any fault: rank 1 raised(.|\n)*rank 0: 2 steps, then returned",
    ):
        getattr(run, judgement)()


@pytest.mark.slow
def test_no_schedule_is_printed_for_a_job_that_fails_without_faults(example):
    """A line to reproduce it would name a fault that is not the cause."""
    outcome = example.with_tests("""
        from tests.test_world_golden import uneven

        @chaos.straggler(rank=0, delay=0.01, at=1)
        def test_it(mlchaos):
            mlchaos.world(ranks=2).run(uneven).assert_finished()
    """).run(failed=1)
    outcome.has("fails without any fault: rank 1")
    assert not outcome.reproduce

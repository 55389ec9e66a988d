"""Crash states of worlds of ranks: ``mlchaos.world(...).explore_crashes``."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from pytest_mlchaos.crashes.recording.own_events import is_available
from pytest_mlchaos.errors import BadArgument, NotRecovered

torch = pytest.importorskip("torch")
dist = torch.distributed
pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="a torch without distributed"),
    pytest.mark.skipif(not is_available("/tmp"), reason="the kernel does not tell ranks apart"),
]


class Job:
    """A job of two ranks. Each has a number of its own, and all add theirs in each step."""

    def __init__(self, workdir):
        dist.init_process_group()
        self.rank = dist.get_rank()
        self.folder = Path(workdir)
        self.step, self.total, self.own = 0, 0, 10 + self.rank

    def take_step(self):
        """Add the numbers of all ranks, as an optimizer step adds gradients."""
        self.own = self.own * 31 % 101
        numbers = torch.tensor([self.own])
        dist.all_reduce(numbers)
        self.total += int(numbers)
        self.step += 1

    def end(self):
        """Leave the group, and return the state."""
        dist.destroy_process_group()
        return self.step, self.total, self.own


def put(path, state, *, whole):
    """Write a file, in place or by a rename."""
    target = path.with_name(path.name + ".tmp") if whole else path
    with open(target, "w") as file:
        file.write(json.dumps(state))
    if whole:
        os.replace(target, path)


def one_file(workdir, whole=True):
    """Rank 0 saves all that it has gathered, then all meet."""
    job = Job(workdir)
    path = job.folder / "all.json"
    if path.exists():
        job.step, job.total, owns = json.loads(path.read_text())
        job.own = owns[job.rank]
    while job.step < 1:
        job.take_step()
        owns = [None] * dist.get_world_size()
        dist.all_gather_object(owns, job.own)
        if job.rank == 0:
            put(path, [job.step, job.total, owns], whole=whole)
        dist.barrier()
    return job.end()


def own_files(workdir, last="marker"):
    """Each rank saves its number, and rank 0 the sum. What tells that a save is complete?

    ``last`` is ``"marker"`` for a file that rank 0 writes after a barrier. Without it, the sum's
    own file tells, and a rank without its number begins with a new one.
    """
    job = Job(workdir)
    done = sorted(job.folder.glob("*.done" if last == "marker" else "*.sum"))
    if done:
        job.step = int(done[-1].stem)
        job.total = json.loads((job.folder / f"{job.step}.sum").read_text())
        mine = job.folder / f"{job.step}.own{job.rank}"
        if last == "marker" or mine.exists():
            job.own = json.loads(mine.read_text())
    while job.step < 1:
        job.take_step()
        put(job.folder / f"{job.step}.own{job.rank}", job.own, whole=True)
        if job.rank == 0:
            put(job.folder / f"{job.step}.sum", job.total, whole=True)
        dist.barrier()
        if job.rank == 0 and last == "marker":
            put(job.folder / f"{job.step}.done", 1, whole=True)
    return job.end()


@pytest.fixture
def explore(mlchaos, tmp_path):
    """Explore a world of two ranks, each time in a new directory."""
    numbers = itertools.count()

    def explored(subject, *args, **options):
        work = tmp_path / f"work-{next(numbers)}"
        return mlchaos.world(ranks=2).explore_crashes(subject, work, *args, **options)

    return explored


def test_a_file_that_rank_0_renames_recovers(explore):
    """A sound job is not flagged: all ranks find the old file or the new one."""
    report = explore(one_file)
    report.assert_recovers()
    assert {state.id for state in report.states} >= {"start#0", "rank0:all.json#0"}
    assert not report.untried


def test_a_file_that_rank_0_writes_in_place_fails(explore):
    """A kill of rank 0 leaves an empty file, and the report says so."""
    with pytest.raises(NotRecovered) as caught:
        explore(one_file, False).assert_recovers()
    text = str(caught.value)
    assert "resume raised JSONDecodeError" in text
    assert "all.json cut at byte 0" in text
    assert "rank 0 died there, the others went on" in text
    assert '@chaos.crash(state="rank0:all.json@0#0")' in text


@pytest.mark.slow
def test_a_marker_after_a_barrier_recovers(explore):
    """No state has the marker without the files of all ranks: the barrier excludes it."""
    report = explore(own_files)
    report.assert_recovers()
    for state in report.states:
        if "1.done" in state.tree:
            assert {"1.own0", "1.own1", "1.sum"} <= state.tree.keys()
    names = [state.tree.keys() & {"1.own0", "1.own1"} for state in report.states]
    assert {"1.own0"} in names
    assert {"1.own1"} in names


@pytest.mark.slow
def test_a_rank_without_its_file_diverges_silently(explore):
    """Rank 1 dies before it writes, while rank 0 completes the save."""
    with pytest.raises(NotRecovered) as caught:
        explore(own_files, "sum").assert_recovers()
    text = str(caught.value)
    assert "diverged" in text
    assert "rank 1" in text


@pytest.mark.slow
def test_fewer_ranks_resume_from_a_file_of_all(explore):
    """A sound job may come back with one rank."""
    explore(one_file, resume_ranks=1).assert_recovers()


@pytest.mark.slow
def test_more_ranks_miss_their_own_files(explore):
    """Each rank saves a file of its own, and the third rank has none."""
    report = explore(own_files, resume_ranks=3)
    with pytest.raises(NotRecovered, match=r"FileNotFoundError.*, in rank 2"):
        report.assert_recovers()


def test_crash_reproduces_a_state_of_a_world(example):
    """The line of the report runs that state alone."""
    example = example.with_tests("""
        from pytest_mlchaos import chaos
        from tests.test_world_crashes import one_file

        @chaos.crash(state="rank0:all.json@0#0")
        def test_job(mlchaos, tmp_path):
            report = mlchaos.world(ranks=2).explore_crashes(one_file, tmp_path / "work", False)
            assert len(report.outcomes) == 1
            report.assert_recovers()
    """)
    example.run(failed=1).has("1 crash state", "all.json cut at byte 0")


def test_nothing_crashes_with_mlchaos_off(example):
    """The world runs once."""
    example = example.with_tests("""
        from tests.test_world_crashes import one_file

        def test_job(mlchaos, tmp_path):
            report = mlchaos.world(ranks=2).explore_crashes(one_file, tmp_path / "work", False)
            assert not report.states
            report.assert_recovers()
    """)
    example.run("--mlchaos-off", passed=1)


@pytest.mark.slow
def test_without_fanotify_the_order_that_was_seen_is_tried(explore, monkeypatch):
    """The report says what is missing, and a sound job is not flagged."""
    monkeypatch.setattr("pytest_mlchaos.crashes.ranks.runner.is_available", lambda path: False)
    report = explore(own_files)
    report.assert_recovers()
    assert "the system does not tell which rank made a change" in str(report)
    assert not [state for state in report.states if state.cut]


def test_resume_ranks_must_be_a_number(mlchaos, tmp_path):
    """A wrong argument is an error of its own."""
    with pytest.raises(BadArgument, match="resume_ranks must be 1 or more, got 0"):
        mlchaos.world(ranks=2).explore_crashes(one_file, tmp_path / "work", resume_ranks=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("horizon", 3),
        ("isolation", "in-process"),
        ("record", "syscalls"),
        ("storage_options", {"anon": True}),
        ("allow_remote", True),
    ],
)
def test_keywords_that_worlds_do_not_have_say_why(mlchaos, tmp_path, name, value):
    """They are not ignored."""
    with pytest.raises(BadArgument, match=f"world.explore_crashes: {name} is not supported: .* "):
        mlchaos.world(ranks=2).explore_crashes(one_file, tmp_path / "work", **{name: value})


def test_keywords_that_say_what_worlds_do_are_taken(mlchaos, tmp_path):
    """A test may give them for worlds and single processes alike. A wrong name is an error."""
    world = mlchaos.world(ranks=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dept'"):
        world.explore_crashes(
            one_file, tmp_path / "work", horizon=None, isolation="process", dept=2
        )


def number_in_vain(workdir):
    """Rank 0 notes each start in place, and fails if it finds a note without a text."""
    job = Job(workdir)
    path = job.folder / "starts"
    count = int(path.read_text()) if path.exists() else 0
    dist.barrier()
    if job.rank == 0 and not (job.folder / "done").exists():
        put(path, count + 1, whole=count == 0)
    dist.barrier()
    if job.rank == 0:
        put(job.folder / "done", 1, whole=True)
    return job.end()


@pytest.mark.slow
def test_a_second_crash_strikes_the_world_that_resumes(explore):
    """The first start writes the file as a whole, and a second one in place."""
    explore(number_in_vain, compare="done").assert_recovers(from_scratch=True)
    with pytest.raises(NotRecovered, match="in the run that resumes from rank0:starts#0"):
        explore(number_in_vain, compare="done", depth=2).assert_recovers()


@pytest.mark.slow
def test_worlds_run_at_a_time(explore):
    """The outcomes are those of one world after the other."""
    one, two = explore(one_file, False), explore(one_file, False, jobs=2)

    def verdicts(report):
        return {outcome.state.id: outcome.verdict for outcome in report.outcomes}

    assert verdicts(one) == verdicts(two)


def stumble(workdir, place):
    """Fail if the file is there, and only in the first run that finds it."""
    job = Job(workdir)
    path = job.folder / "file"
    if path.exists() and job.rank == 1 and not Path(place).exists():
        Path(place).touch()
        raise RuntimeError("once")
    dist.barrier()
    if job.rank == 0:
        put(path, 1, whole=True)
    return job.end()


@pytest.mark.slow
def test_a_failure_that_does_not_repeat_is_no_finding(explore, tmp_path):
    """The same state is tried again, and the report says so."""
    report = explore(stumble, str(tmp_path / "stumbled"))
    report.assert_recovers(from_scratch=True)
    assert "the crash alone is not the cause: it raised RuntimeError" in str(report)

"""Worlds that resume with a different number of ranks, and what their ends are compared with."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from pytest_mlchaos.crashes.model import Content, CrashState, File, RunResult, StepEnd
from pytest_mlchaos.crashes.ranks.verdicts import ResizedWorldJudge
from pytest_mlchaos.crashes.recording.own_events import is_available
from pytest_mlchaos.errors import NonDeterministicSubject, NotRecovered
from pytest_mlchaos.runs.traces import StepRecord, Trace

torch = pytest.importorskip("torch")
STEPS = 3
TIMEOUT = 300
"""A world may take so long on a busy machine."""


# -- the judge alone -------------------------------------------------------------------------------


def tree(save):
    """A directory with the save of a step."""
    return {"save": File(Content(1, b"%d" % save))}


def ran(start, *, size=1, wrong=""):
    """A world of that size that took the steps from ``start`` on."""
    steps = [
        StepRecord({"parameters": f"{size} {start} {step} {wrong}".encode()}, (b"%d" % step,))
        for step in range(start, STEPS)
    ]
    trace = Trace(steps, {"parameters": f"{size} {start} {wrong}".encode()})
    return RunResult(value=f"{size} {start} {wrong}", trace=trace, traces=(trace,) * size)


def state(step, save=0, *, name="x"):
    """A crash state in a step. Its directory differs from each whole save."""
    return CrashState(f"{name}#{step}", step, name, name, tree(save) | {name: tree(9)["save"]})


def judge(*saved):
    """A judge of a golden world of two ranks, with whole saves at the ends of these steps."""
    golden = ran(0, size=2)
    golden.step_ends = (StepEnd(-1, tree(0)), *(StepEnd(step, tree(step)) for step in saved))
    return ResizedWorldJudge(golden)


def verdicts(judge, *pairs, runs=None):
    """The verdicts on states, after the runs that the judge wants. ``runs`` gets their saves."""
    outcomes = [judge.outcome(*pair) for pair in pairs]
    while (wanted := judge.wanted(outcomes)) is not None:
        save = int(wanted["save"].content.digest)
        judge.learn(wanted, ran(save))
        if runs is not None:
            runs.append(save)
    return judge.finish(outcomes)


def test_an_end_is_compared_with_the_saves_around_its_state():
    """The worlds of its own size, and no more of them than it takes."""
    runs = []
    pairs = [(state(2, 1), ran(1)), (state(2, 2, name="y"), ran(2))]
    found = verdicts(judge(1, 2, 3), *pairs, runs=runs)
    assert [(one.verdict, one.resumed_at) for one in found] == [("recovered", 1), ("recovered", 2)]
    assert runs == [1, 2, 0]  # the start tells how many steps there are


def test_an_end_that_no_whole_save_has_names_what_differs_first():
    """A partial exploration may say so, because worlds that took as many steps ended differently."""
    subject = judge(1, 2, 3)
    (found,) = verdicts(subject, (state(2, 1), ran(1, wrong="lost a shard")))
    assert found.verdict == "diverged"
    assert found.divergence.step == 1
    assert found.divergence.component == "parameters"
    assert not subject.undecided([found])


def test_worlds_that_vary_without_a_crash_are_not_blamed():
    """The job is not deterministic with this number of ranks."""
    subject, pair = judge(1), (state(1, 1), ran(1, wrong="luck"))
    outcomes = [subject.outcome(*pair)]
    with pytest.raises(NonDeterministicSubject, match="two worlds of a different size"):
        for number in range(9):
            wanted = subject.wanted(outcomes)
            subject.learn(wanted, ran(int(wanted["save"].content.digest), wrong=str(number)))


def test_one_state_alone_shows_what_is_wrong():
    """A test that repeats one state needs no other, unless it begins from scratch."""
    subject = judge(1, 2, 3)
    pairs = [(state(2, 1), ran(1, wrong="x")), (state(2, 2, name="y"), ran(2))]
    outcomes = [subject.outcome(*pair) for pair in [*pairs, (state(2, 0, name="z"), ran(0))]]
    verdicts(subject, *pairs)
    found = [subject.alone(outcome) for outcome in outcomes]
    assert [one.verdict for one in found] == ["diverged", "recovered", "recovered"]
    assert [one.resumed_at for one in found] == [1, 2, 0]


def test_a_save_that_is_replaced_within_a_step_is_not_blamed():
    """No end of a step has it, so the worlds that resume from it are compared with each other."""
    subject = judge(1, 3)
    found = verdicts(subject, (state(3, 2), ran(2)), (state(3, 2, name="y"), ran(2)))
    assert [one.verdict for one in found] == ["recovered", "recovered"]


def test_worlds_that_take_as_many_steps_end_alike():
    """If not, one of them is wrong. Only all states show which one."""
    subject = judge(1, 3)
    pairs = [(state(3, 2, name=name), ran(2)) for name in "xy"]
    found = verdicts(subject, *pairs, (state(3, 2, name="z"), ran(2, wrong="lost a shard")))
    assert [one.verdict for one in found] == ["recovered", "recovered", "diverged"]
    assert subject.undecided(found) == found[2:]
    assert not subject.undecided(found, is_whole=True)


def test_an_end_is_undecided_before_the_other_worlds_ran():
    """An interrupted exploration blames nothing."""
    subject = judge(1, 2, 3)
    found = subject.finish([subject.outcome(state(2, 1), ran(1))])
    assert subject.undecided(found, is_whole=True) == [
        one for one in found if one.verdict != "recovered"
    ]


def test_a_world_that_loses_a_complete_save_begins_from_scratch():
    """Its end is the one of a world from the start, and an earlier state resumed."""
    early, late = state(2, 1, name="early"), state(3, 2, name="late")
    found = verdicts(judge(1, 2, 3), (early, ran(1)), (late, ran(0)))
    assert [one.verdict for one in found] == ["recovered", "restarted"]


# -- real worlds -----------------------------------------------------------------------------------


def in_world(test):
    """Mark a test that runs worlds."""
    can_run = torch.distributed.is_available() and is_available("/tmp")
    skip = pytest.mark.skipif(not can_run, reason="no torch.distributed, or ranks look alike")
    return pytest.mark.slow(skip(test))


def put(path, value):
    """Write a file elsewhere and rename it."""
    spare = path.with_name(f"{path.name}.tmp")
    spare.write_text(json.dumps(value))
    os.replace(spare, path)


def shards(workdir, marks="after", strict=True, steps=2):
    """Each rank saves its part of the parameters, and rank 0 marks the save as complete.

    A world of any size puts the parts together. ``marks="before"`` does not wait for the other
    ranks, and with ``strict=False``, a missing part is left as it was initialized.
    """
    import torch.distributed as dist

    dist.init_process_group()
    rank, size, folder = dist.get_rank(), dist.get_world_size(), Path(workdir)
    weight = torch.nn.Parameter(torch.zeros(6))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    start = max((int(path.stem) for path in folder.glob("*.done")), default=0)
    for part in range(json.loads((folder / f"{start}.done").read_text()) if start else 0):
        with contextlib.suppress(*[] if strict else [FileNotFoundError]), torch.no_grad():
            of = json.loads((folder / f"{start}.done").read_text())
            weight[part::of] = torch.tensor(json.loads((folder / f"{start}.{part}").read_text()))
    for step in range(start, steps):
        weight.grad = torch.arange(6.0) + weight.detach() + 10 * step + rank
        dist.all_reduce(weight.grad)
        optimizer.step()
        if marks == "before" and rank == 0:
            put(folder / f"{step + 1}.done", size)
        put(folder / f"{step + 1}.{rank}", weight.detach()[rank::size].tolist())
        dist.barrier()
        if marks == "after" and rank == 0:
            put(folder / f"{step + 1}.done", size)
    dist.destroy_process_group()
    return weight.detach()


@pytest.fixture
def explore(mlchaos, tmp_path):
    """Explore all crash states of a world of two ranks."""

    def explored(subject, *args, **options):
        world = mlchaos.world(ranks=2, timeout=TIMEOUT)
        report = world.explore_crashes(
            subject, tmp_path / "work", *args, timeout=TIMEOUT, **options
        )
        assert not report.untried
        return report

    return explored


@pytest.mark.parametrize("ranks", [1, 3])
@in_world
def test_parts_that_are_put_together_recover(explore, ranks):
    """A sound job is not blamed, in a complete exploration."""
    explore(shards, resume_ranks=ranks).assert_recovers()


@in_world
def test_a_mark_before_the_parts_fails(explore):
    """Rank 1 dies before it has saved, and rank 0 says that the save is complete."""
    with pytest.raises(NotRecovered) as caught:
        explore(shards, "before", resume_ranks=1).assert_recovers()
    assert "resume raised FileNotFoundError" in str(caught.value)
    assert ".done" in str(caught.value)


@in_world
def test_a_part_that_is_ignored_diverges(explore):
    """The world resumes with parameters that no whole save has."""
    with pytest.raises(NotRecovered) as caught:
        explore(shards, "before", False, resume_ranks=1).assert_recovers()
    assert "diverged" in str(caught.value)
    assert "parameters" in str(caught.value)
    assert "no world of this size ends so if it resumes from a whole save" in str(caught.value)


def checkpoints(workdir, steps=2):
    """FSDP2, saved by torch.distributed.checkpoint in one directory for each step."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group()
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 6, bias=False)
    fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    start = max((int(path.parent.name) for path in Path(workdir).glob("*/.metadata")), default=0)
    if start:
        state = net.state_dict()
        dcp.load(state, checkpoint_id=str(Path(workdir) / str(start)))
        net.load_state_dict(state)
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
        net(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        dcp.save(net.state_dict(), checkpoint_id=str(Path(workdir) / str(step + 1)))
    end = {name: value.full_tensor() for name, value in net.state_dict().items()}
    dist.destroy_process_group()
    return end


@pytest.mark.parametrize("ranks", [1, 2, 3])
@in_world
def test_a_distributed_checkpoint_is_loaded_by_a_world_of_any_size(explore, ranks):
    """torch.distributed.checkpoint divides the state anew. All crash states are tried."""
    report = explore(checkpoints, resume_ranks=ranks)
    report.assert_recovers()
    assert any("1/.metadata" in state.tree and "2" not in state.tree for state in report.states)

"""A rank that fails: how, at which site, and before, during or after the operation."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from pytest_mlchaos import chaos  # noqa: E402
from pytest_mlchaos.core.faults import create  # noqa: E402
from pytest_mlchaos.errors import BadArgument  # noqa: E402


def train(folder=None, steps=4):
    """Train with DDP, and note each finished step in a file."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        for step in range(steps):
            optimizer.zero_grad()
            model(torch.full((2, 4), float(dist.get_rank() + step))).sum().backward()
            optimizer.step()
            if folder is not None:
                (folder / f"{dist.get_rank()}.txt").write_text(str(step))
    finally:
        if folder is not None:
            (folder / f"{dist.get_rank()}.left").touch()


def failing(mode, when, site="collective.all_reduce", at=2, **more):
    """A rank failure of rank 1."""
    return chaos.rank_failure(rank=1, mode=mode, when=when, site=site, at=at, **more)


@pytest.mark.parametrize(
    ("mode", "ended"),
    [
        pytest.param("kill", "was killed by SIGKILL", marks=failing("kill", "before")),
        pytest.param("hang", "hung (injected)", marks=failing("hang", "before")),
        pytest.param("freeze", "hung (injected)", marks=failing("freeze", "before")),
        pytest.param("raise", "raised RuntimeError", marks=failing("raise", "before")),
        pytest.param(
            "exit",
            "exited with code 1 at collective.all_reduce 2 (step 2)",
            marks=failing("exit", "before"),
        ),
    ],
)
def test_each_mode_ends_the_rank_in_its_way(mlchaos, tmp_path, mode, ended):
    """In DDP's all-reduce of step 2, inside C++ code. Nothing waits longer than the world."""
    run = mlchaos.world(ranks=2, grace=1 if mode in ("hang", "freeze") else 30).run(train, tmp_path)
    assert run._record.ranks[1].ended.startswith(ended)
    assert (tmp_path / "1.txt").read_text() == "1"
    assert (tmp_path / "1.left").exists() == (mode in ("raise", "exit"))
    if mode in ("hang", "freeze"):
        assert "backward" in run.ranks[1].stack
        assert "backward" in run.ranks[0].stack
    else:
        run.assert_failed_fast(within=25)
    if mode == "raise":
        assert str(run.ranks[1].error) == (
            "rank 1 failed at collective.all_reduce 2 (step 2) (injected by mlchaos)"
        )


@failing("kill", "after", site="collective.barrier", at=0)
def test_a_rank_dies_after_a_collective(mlchaos):
    """Its peer gets the result, and goes on."""
    run = mlchaos.world(ranks=2).run(barrier_and_return)
    assert run.ranks[0].value == "passed"
    assert run._record.ranks[1].ended == (
        "was killed by SIGKILL after collective.barrier 0 (step 0)"
    )


@failing("kill", "before", site="collective", at=0)
def test_a_rank_dies_before_a_collective(mlchaos):
    """Its peer waits for it, and gets an error."""
    run = mlchaos.world(ranks=2, grace=30).run(barrier_and_return)
    run.assert_failed_fast(within=25)
    assert run._record.ranks[1].ended == ("was killed by SIGKILL at collective 0 (barrier, step 0)")


def barrier_and_return():
    """Meet once."""
    dist.init_process_group("gloo")
    dist.barrier()
    return "passed"


@failing("raise", "during", at=1)
def test_a_rank_fails_while_its_contribution_is_on_the_way(mlchaos):
    """The peer may have received it: the launch is over, and nothing has waited."""
    run = mlchaos.world(ranks=2).run(launch_three)
    assert run.ranks[0].value == run.ranks[1].value == [2.0, 2.0, 2.0]


def launch_three():
    """Launch three operations, of which one may raise after its launch."""
    dist.init_process_group("gloo")
    tensors = [torch.ones(1) for _ in range(3)]
    works = []
    for tensor in tensors:
        try:
            works.append(dist.all_reduce(tensor, async_op=True))
        except RuntimeError as error:
            assert "during collective.all_reduce 1" in str(error)
    for work in works:
        work.wait()
    dist.barrier()
    return [float(tensor) for tensor in tensors]


@pytest.mark.parametrize(
    ("mode", "notes"),
    [
        pytest.param("kill", "1", marks=failing("kill", "after", site="train.step", at=1)),
        pytest.param("raise", "1", marks=failing("raise", "after", site="train.step", at=1)),
    ],
)
def test_a_rank_fails_after_another_operation(mlchaos, tmp_path, mode, notes):
    """The step is taken, and the line behind it is not reached."""
    run = mlchaos.world(ranks=2, grace=30).run(train, tmp_path)
    run.assert_failed_fast(within=25)
    assert (tmp_path / "1.txt").read_text() == "0"
    assert run.faults[0].place == "after train.step 1"


@failing("exit", "before", code=0)
def test_a_rank_that_leaves_early_seems_to_have_finished(mlchaos):
    """Its exit code is 0, and only its peer fails."""
    run = mlchaos.world(ranks=2, grace=30).run(train)
    assert run.ranks[1].exitcode == 0
    assert run.ranks[0].exitcode == 1


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"when": "during"}, "when='during' needs a collective"),
        ({"when": "during", "site": "data.batch"}, "when='during' needs a collective"),
        ({"mode": "exit", "code": 256}, "code must be an exit code from 0 to 255, got 256"),
        ({"mode": "die"}, "mode must be"),
        ({"when": "never"}, "when must be"),
    ],
)
def test_a_failure_that_makes_no_sense_is_refused(keywords, message):
    """When it is declared."""
    with pytest.raises(BadArgument, match=message):
        create("rank_failure", **keywords)


@pytest.mark.slow
def test_a_site_without_a_duration_has_no_end(example):
    """That is a mistake of the test, and no verdict."""
    example.with_tests("""
        from pytest_mlchaos import chaos, visit

        def job():
            visit("queue.get")

        @chaos.rank_failure(site="queue.get", rank=1, at=0, when="after")
        def test_it(mlchaos):
            mlchaos.world(ranks=2).run(job)
    """).run(failed=1).has("the site 'queue.get' has no duration")


@pytest.mark.slow
def test_rank_and_collective_are_searched_and_shrunk_together(example):
    """A job that only rank 1 breaks, from its third collective on."""
    outcome = example.with_tests("""
        import torch, torch.distributed as dist
        from pytest_mlchaos import chaos

        def job():
            dist.init_process_group("gloo")
            for number in range(6):
                try:
                    dist.all_reduce(torch.ones(1))
                except RuntimeError:
                    dist.all_reduce(torch.ones(1))
                    if dist.get_rank() == 1 and number >= 2:
                        return "lost"
            return "done"

        @chaos.rank_failure(site="collective", mode="raise")
        @chaos.settings(max_trials=15, max_faults=2)
        def test_it(mlchaos):
            run = mlchaos.world(ranks=2, grace=20).run(job)
            assert run.ranks[1].value == "done"
    """).run(failed=1)
    assert outcome.reproduce == [
        "@chaos.rank_failure(site='collective', at=2, rank=1, mode='raise')"
    ]

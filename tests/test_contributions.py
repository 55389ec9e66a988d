"""Test faults of contributions in worlds of real DDP and FSDP2 (needs torch)."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from pytest_mlchaos import assert_converged, assert_not_worse, chaos
from pytest_mlchaos.errors import (
    MismatchedCollectives,
    NotConverged,
    NotRecovered,
    OutOfSync,
    RankFailed,
    Worse,
)
from tests.rank_jobs import numbered, shards, train

pytest.importorskip("cloudpickle")
SAME_AND_WRONG = {
    "lost": chaos.lost_contribution(rank=1, at=1),
    "duplicated": chaos.duplicated_contribution(rank=1, at=1),
    "partial": chaos.partial_gradient(rank=1, fraction=0.4, at=1),
    "corrupt": chaos.corrupt_contribution(rank=1, bits=3, bit=13, at=1),
}
QUICK = {("lost", "ddp"), ("corrupt", "fsdp"), ("duplicated", "buckets"), ("partial", "ddp")}
FAULTS_AND_KINDS = [
    pytest.param(
        kind,
        id=f"{name}-{kind}",
        marks=[fault, *([] if (name, kind) in QUICK else [pytest.mark.slow])],
    )
    for name, fault in SAME_AND_WRONG.items()
    for kind in ("ddp", "buckets", "fsdp", "fp16", "no_sync")
]


@pytest.mark.parametrize("kind", FAULTS_AND_KINDS)
def test_ranks_that_are_identical_and_wrong_are_found(mlchaos, kind):
    """No rank raises and all agree, so the golden run alone shows it. The collective is named."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, kind)
    run.assert_finished()
    run.assert_in_sync()
    with pytest.raises(NotRecovered, match=r"struck collective 1"):
        run.assert_recovered()
    (strike,) = run.faults
    op = "reduce_scatter" if kind == "fsdp" else "all_reduce"
    assert (strike.details["rank"], strike.details["op"]) == (1, op)


@pytest.mark.parametrize("kind", FAULTS_AND_KINDS)
def test_a_job_that_computes_its_gradients_twice_recovers(mlchaos, kind):
    """It finds that they differ, and computes them again."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, kind, True)
    run.assert_recovered()
    run.assert_in_sync()
    assert len(run.faults) == 1


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
@chaos.lost_contribution(rank=2, at=1)
def test_the_last_of_three_ranks_is_struck(mlchaos, kind, sound):
    """The two others have the right values, and the sum lacks the third."""
    run = mlchaos.world(ranks=3, timeout=60).run(train, kind, sound)
    run.assert_in_sync()
    assert [len(rank.faults) for rank in run.ranks] == [0, 0, 1]
    if sound:
        run.assert_recovered()
    else:
        with pytest.raises(NotRecovered, match=r"rank 2: .* lost_contribution"):
            run.assert_recovered()


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
@chaos.corrupt_result(rank=1, bit=22, at=1)
def test_a_rank_that_received_wrong_values_is_found(mlchaos, kind):
    """Copies of the parameters differ between ranks, and shards differ from the golden ones."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, kind)
    with pytest.raises(NotRecovered, match=r"corrupt_result.* struck collective 1"):
        run.assert_recovered()
    if kind == "ddp":
        with pytest.raises(OutOfSync, match="step 1"):
            run.assert_in_sync()


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
@chaos.corrupt_result(rank=1, bit=22, at=1)
def test_a_job_that_computes_twice_receives_again(mlchaos, kind):
    """One rank sees a difference, and all compute again."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, kind, True)
    run.assert_recovered()
    assert len(run.faults) == 1


@chaos.partial_gradient
@chaos.settings(max_trials=4, max_faults=1, timeout=120)
def test_a_sound_job_recovers_from_any_part_of_any_contribution(mlchaos):
    """The rank, the collective and the fraction are searched."""
    mlchaos.world(ranks=2, timeout=60).run(train, "ddp", True, 2).assert_recovered()


@pytest.mark.parametrize(
    "name",
    [
        "lost_contribution",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("duplicated_contribution", "partial_gradient", "corrupt_contribution")
        ),
    ],
)
def test_the_rank_and_the_collective_are_searched_and_shrunk(example, name):
    """The report names the only pair that harms."""
    example.with_tests(f"""
        import torch
        import torch.distributed as dist

        def total():
            dist.init_process_group("gloo")
            found = []
            for step in range(3):
                own = torch.zeros(2) if step != 1 or dist.get_rank() == 0 else torch.ones(2)
                dist.all_reduce(own)
                found.append(own if step == 1 else 0)
            return found

        @chaos.{name}
        @chaos.settings(max_faults=1, timeout=200)
        def test_total(mlchaos):
            mlchaos.world(ranks=2, timeout=60).run(total).assert_recovered()
    """).run(failed=1).has(f"struck: {name}(at=1, rank=", ") at collective 1", "op=all_reduce")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["corrupt_result", "desync"])
def test_faults_that_part_ranks_are_searched(example, name):
    """The rank, the collective and the parameters are chosen."""
    example.with_tests(f"""
        import torch
        import torch.distributed as dist

        def total():
            dist.init_process_group("gloo")
            own = torch.tensor([1.0 + dist.get_rank()])
            dist.all_reduce(own)
            return own

        @chaos.{name}
        @chaos.settings(max_faults=1, timeout=200)
        def test_total(mlchaos):
            mlchaos.world(ranks=2, timeout=60, grace=1).run(total).assert_recovered()
    """).run(failed=1).has(f"struck: {name}(at=0, rank=", "op=all_reduce")


def test_a_job_without_reductions_is_not_tested(example):
    """The fault never strikes, and the report says which collectives were passed."""
    example.with_tests("""
        import torch
        import torch.distributed as dist

        def train():
            dist.init_process_group("gloo")
            dist.broadcast(torch.ones(2), 0)
            dist.barrier()
            return 1

        @chaos.lost_contribution(rank=1, at=0)
        def test_it(mlchaos):
            mlchaos.world(ranks=2, timeout=60).run(train).assert_recovered()
    """).run(failed=1).has(
        "never struck: collective reducing was never passed",
        "sites passed: collective.barrier, collective.broadcast 1 time each",
    )


# -- ranks that part -------------------------------------------------------------------------------

DESYNCS = [
    pytest.param(how, marks=chaos.desync(rank=1, how=how, site="collective.all_reduce", at=2))
    for how in ("skip", "double")
]


@pytest.mark.parametrize("how", DESYNCS)
def test_a_desync_goes_on_silently(mlchaos, tmp_path, how):
    """A rank's collective meets the next one of the others. No rank fails, and they disagree."""
    run = mlchaos.world(ranks=2, timeout=60).run(numbered, tmp_path, False)
    run.assert_finished()
    with pytest.raises(OutOfSync, match=r"desync.* struck collective.all_reduce 2"):
        run.assert_in_sync()
    with pytest.raises(MismatchedCollectives):
        run.assert_no_desync()


@pytest.mark.parametrize("how", DESYNCS)
def test_a_job_that_numbers_its_collectives_starts_again(mlchaos, tmp_path, how):
    """It refuses a sum of different steps, and goes on from its checkpoint."""
    run = mlchaos.world(ranks=2, restarts=1, timeout=60).run(numbered, tmp_path, True)
    run.assert_recovered()
    assert run.restarts == 1


def wrongly_sized():
    """Collectives of different sizes meet after a desync."""
    dist.init_process_group("gloo")
    for size in (1, 1000, 1):
        dist.all_reduce(torch.ones(size))


@chaos.desync(rank=1, at=0)
@chaos.settings(timeout=60)
def test_a_desync_of_unlike_collectives_is_an_end(mlchaos):
    """They are refused, and no rank hangs."""
    run = mlchaos.world(ranks=2, timeout=30, grace=20).run(wrongly_sized)
    run.assert_failed_fast(within=20)
    with pytest.raises(RankFailed):
        run.assert_finished()


# -- convergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
@chaos.partial_gradient(rank=1, fraction=0.5, at=chaos.EVERY)
@chaos.settings(timeout=120)
def test_partial_gradients_are_judged_by_convergence(mlchaos, shuffled):
    """A model with sorted data cannot learn what its rank alone knows; with shuffled data it can."""
    run = mlchaos.world(ranks=2, timeout=60).run(shards, shuffled)
    run.assert_in_sync()
    (finals, curve), (golden, _) = run.ranks[0].value, run.golden.ranks[0].value
    if shuffled:
        assert_converged(curve, below=0.05, window=3)
        assert_not_worse(finals, golden, margin=0.05, higher_is_better=False)
    else:
        with pytest.raises(NotConverged):
            assert_converged(curve, below=0.05, window=3)
        with pytest.raises(Worse):
            assert_not_worse(finals, golden, margin=0.05, higher_is_better=False)

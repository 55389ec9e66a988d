"""Test each fault of ranks on real DDP and FSDP2, with two and three ranks (needs torch).

A fault must be seen by the right judgement, with the right words, and a sound job must pass.
"""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("torch.distributed")
pytest.importorskip("cloudpickle")

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import OutOfSync
from tests.rank_matrix import ROWS, train

QUICK = {("lost_contribution", "fsdp", 2), ("corrupt_result", "ddp", 2), ("desync-skip", "ddp", 2)}


def params(quick=()):
    """Return each row for each kind of job and number of ranks."""
    return [
        pytest.param(
            row,
            kind,
            ranks,
            id=f"{row.id}-{kind}-{ranks}",
            marks=[
                row.mark(kind),
                *([] if (row.id, kind, ranks) in quick else [pytest.mark.slow]),
            ],
        )
        for row in ROWS
        for kind in ("ddp", "fsdp")
        for ranks in (2, 3)
    ]


@chaos.settings(timeout=200)
@pytest.mark.parametrize(("row", "kind", "ranks"), params(QUICK))
def test_an_unsound_job_is_found(mlchaos, tmp_path, row, kind, ranks):
    """The judgement raises, and names the rank, the step and the collective."""
    job = functools.partial(train, **row.weakness)
    world = mlchaos.world(**{"ranks": ranks, "timeout": 60, **row.world})
    run = world.run(job, tmp_path, kind)
    judge = {
        "assert_recovered": lambda: run.assert_recovered(),
        "assert_failed_fast": lambda: run.assert_failed_fast(),
        "assert_finished": lambda: run.assert_finished(),
        "assert_no_desync": lambda: run.assert_no_desync(),
    }[row.judge]
    with pytest.raises(row.verdict) as caught:
        judge()
    assert row.missing(str(caught.value), kind) == [], str(caught.value)
    if row.fault in ("straggler", "slow_gradient_sync"):
        run.assert_failed_fast()  # the delayed rank cannot end earlier
    if row.in_sync:
        run.assert_in_sync()
    elif row.fault == "corrupt_result" and kind == "ddp":
        with pytest.raises(OutOfSync, match=r"rank 1 and rank 0 .*(.|\n)*after step 1"):
            run.assert_in_sync()


@chaos.settings(timeout=200)
@pytest.mark.parametrize(("row", "kind", "ranks"), params())
def test_its_sound_twin_passes(mlchaos, tmp_path, row, kind, ranks):
    """The same fault strikes, and the job ends as without it."""
    job = functools.partial(train, **row.sound)
    world = mlchaos.world(**{"ranks": ranks, "timeout": 90, **row.world, "restarts": 1})
    run = world.run(job, tmp_path, kind)
    run.assert_recovered()
    run.assert_in_sync()
    assert run.faults

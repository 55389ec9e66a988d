"""Ordinary distributed jobs run unmodified in a world, and end when a rank dies (needs torch)."""

from __future__ import annotations

import inspect
import signal

import pytest

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import RankFailed

from . import distributed_jobs as jobs

pytest.importorskip("cloudpickle")

LIBRARIES = {
    jobs.lightning: "pytorch_lightning",
    jobs.accelerate: "accelerate",
    jobs.trainer: "transformers",
}
SHORT = (jobs.ddp, jobs.ddp_with_uneven_batches, jobs.optimizer_in_shards, jobs.fsdp2, jobs.objects)
"""The jobs of the default suite. The others take turns, as all slow tests do."""


def _parameters(kinds):
    return [
        pytest.param(job, id=job.__name__, marks=() if job in SHORT else pytest.mark.slow)
        for job in kinds
    ]


def _arguments(job, tmp_path):
    if job in LIBRARIES:
        pytest.importorskip(LIBRARIES[job])
    return [tmp_path] if inspect.signature(job).parameters else []


@chaos.settings(allow_quiet=True, timeout=120)
@pytest.mark.parametrize("job", _parameters(jobs.ALIKE))
def test_a_job_runs_in_a_world(mlchaos, tmp_path, job):
    """Its ranks end in the same state, which is that of the golden run."""
    run = mlchaos.world(ranks=2, timeout=60).run(job, *_arguments(job, tmp_path))
    run.assert_finished()
    run.assert_in_sync(values=True)
    run.assert_recovered()


@chaos.settings(allow_quiet=True, timeout=120)
@pytest.mark.parametrize("job", jobs.APART)
def test_a_job_whose_ranks_differ_runs_in_a_world(mlchaos, tmp_path, job):
    """Each rank ends as in its golden run."""
    run = mlchaos.world(ranks=2, timeout=60).run(job, *_arguments(job, tmp_path))
    run.assert_finished()
    run.assert_recovered()


@chaos.rank_failure(site="collective", rank=1, at=1)
@chaos.settings(timeout=120)
@pytest.mark.parametrize(
    "job", _parameters([job for job in jobs.ALIKE + jobs.APART if job is not jobs.parameter_server])
)
def test_a_job_whose_rank_dies_in_a_collective_ends(mlchaos, tmp_path, job):
    """In bounded time, with the death of that rank in its record, and its verdict is that of a failed rank."""
    run = mlchaos.world(ranks=2, timeout=60, grace=2).run(job, *_arguments(job, tmp_path))
    assert run.ranks[1].exitcode == -signal.SIGKILL
    assert [strike.details["rank"] for strike in run.faults] == [1]
    with pytest.raises(RankFailed, match=r"rank [01] did not finish"):
        run.assert_finished()

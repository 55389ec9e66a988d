"""Unmodified launchers start the ranks: a fault strikes in them, and the job is judged."""

from __future__ import annotations

import pytest

from pytest_mlchaos import chaos
from pytest_mlchaos.errors import NotRecovered

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("a torch without distributed", allow_module_level=True)

from tests import launcher_jobs as jobs  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize(
    ("launch", "library"),
    [
        pytest.param(jobs.under_torchrun, "torch", id="torchrun"),
        pytest.param(jobs.under_spawn, "torch", id="torch.multiprocessing.spawn"),
        pytest.param(jobs.under_accelerate, "accelerate", id="accelerate launch"),
        pytest.param(jobs.under_notebook_launcher, "accelerate", id="notebook_launcher"),
        pytest.param(jobs.under_lightning_ddp, "pytorch_lightning", id="lightning ddp"),
        pytest.param(jobs.under_lightning_ddp_spawn, "pytorch_lightning", id="lightning ddp_spawn"),
    ],
)
@chaos.settings(timeout=1700)
@chaos.rank_failure(rank=1, at=3)
def test_a_rank_of_a_launcher_dies(mlchaos, tmp_path, launch, library, resumes):
    """The ranks start again. Only a job that takes up the step of its save recovers."""
    pytest.importorskip(library)
    run = mlchaos.run(launch, tmp_path, resumes)
    (strike,) = mlchaos.journal
    assert (strike.visit, strike.details["rank"]) == (3, 1)
    if resumes:
        run.assert_recovered()
    else:
        with pytest.raises(NotRecovered, match="weight"):
            run.assert_recovered()

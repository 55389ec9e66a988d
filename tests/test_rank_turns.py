"""The order in which the ranks of a recorded world write."""

from __future__ import annotations

import os
import time

import pytest

from pytest_mlchaos import chaos

pytest.importorskip("torch")


def save(workdir):
    """Save a file of each rank. Rank 0 looks at the directory before it has saved all of its own."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    if (workdir / "done").exists() and dist.get_rank() == 1:
        (workdir / "own").read_text()
    dist.barrier()
    if dist.get_rank() == 0:
        time.sleep(0.5)  # without turns, rank 1 is faster
        os.listdir(workdir)
        (workdir / "done").write_text("rank 0")
    else:
        (workdir / "own").write_text("rank 1")
    dist.barrier()


@chaos.crash(state="rank0-before-rank1:done#0")
@chaos.settings(timeout=None)
def test_rank_0_may_save_all_before_rank_1_has_begun(mlchaos, tmp_path):
    """The state is possible, although rank 1 would be faster in this run."""
    report = mlchaos.world(ranks=2).explore_crashes(save, tmp_path / "work")
    (outcome,) = report.outcomes
    assert outcome.verdict == "failed"

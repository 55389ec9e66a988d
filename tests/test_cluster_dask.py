"""One session on a real cluster of Dask on this machine."""

from __future__ import annotations

import os
import signal

import pytest

from . import cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def scheduler():
    """A cluster of two processes."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as found:
        yield found


def test_a_killed_worker_changes_nothing(tmp_path, scheduler):
    """The report equals that of one machine, byte for byte."""
    mark = tmp_path / "mark"
    kill = (
        f"import pathlib\n    mark = pathlib.Path({str(mark)!r})\n"
        "    if 'MLCHAOS_PROCESSORS' in os.environ and not mark.exists():\n"
        "        mark.write_text(str(os.getppid()))\n        import time\n        time.sleep(300)"
    )
    folder = cluster.project(tmp_path / "project", write=cluster.UNSAFE, check=kill)
    process = cluster.start(
        folder,
        *("--on=dask", f"--address={scheduler.scheduler_address}", "--workers=2", "--shards=8"),
        f"--report={tmp_path / 'many'}",
    )
    try:
        assert cluster.wait_until(lambda: mark.exists() and mark.read_text(), 120)
        warm = int(mark.read_text())
        with open(f"/proc/{warm}/stat") as stat:
            worker = int(stat.read().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert "verdict: FAILED" in out
    assert cluster.alone(folder, tmp_path / "one") == 1
    assert (tmp_path / "many").read_bytes() == (tmp_path / "one").read_bytes()


def test_an_address_without_a_scheduler_is_one_line(tmp_path):
    """Its exit code is that of an inconclusive session."""
    pytest.importorskip("distributed", reason="needs the extra dask")
    folder = cluster.project(tmp_path / "project")
    ended = cluster.run(folder, "--on=dask", "--workers=1")
    assert ended.code == 1
    assert "error: --on=dask: give the scheduler" in ended.err

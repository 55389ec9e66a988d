"""One session on a real cluster of Ray: two nodes on this machine, which listen on loopback only."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_mlchaos.cluster.engine import ClusterError, Session
from pytest_mlchaos.cluster.ray_actors import RayEngine

from . import cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="uses two addresses of loopback"),
]
WAIT = """import pathlib
    import time
    node = os.environ.get("RAY_RAYLET_PID", "alone")
    pathlib.Path(os.environ["MLCHAOS_MARKS"], node).touch()
    time.sleep(0.01)"""
"""Each run of the subject shows its node, and takes a while."""
# Not 127.0.0.1, which Ray replaces by the address of this machine.
ADDRESSES = ("127.0.0.2", "127.0.0.3")


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with one CPU each, and its second node."""
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    found = Cluster()
    try:
        _, second = [_node(found, node_ip_address=one, **options) for one in ADDRESSES]
        found.wait_for_nodes()
        yield found, second
    finally:
        found.shutdown()


def _node(found, **options):
    """Add a node. On a busy machine, Ray's own 30 seconds may be too few."""
    for _ in range(3):
        try:
            return found.add_node(**options)
        except Exception as error:  # noqa: BLE001  # Ray has no class for it
            last = error
    pytest.fail(f"no node of Ray started: {last}")


def begin(tmp_path, found, *arguments, check="pass"):
    """Start a session on the cluster, and wait until both workers run the subject."""
    folder = cluster.project(tmp_path / "project", write=cluster.UNSAFE, check=check)
    test = folder / "test_train.py"
    test.write_text(
        test.read_text().replace('path = folder / "ch', f'{WAIT}\n    path = folder / "ch')
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    process = cluster.start(
        folder,
        *("--on=ray", f"--address={found.address}", "--workers=2", "--shards=8", *arguments),
        MLCHAOS_MARKS=str(marks),
        RAY_gcs_rpc_server_reconnect_timeout_s="5",
    )
    began = cluster.wait_until(
        lambda: len(list(marks.iterdir())) >= 2 or process.poll() is not None, 200
    )
    if not began or process.poll() is not None:
        process.kill()
        pytest.fail(f"the session did not begin: {process.communicate()}")
    return folder, process, marks


def test_a_killed_node_changes_nothing(tmp_path, two_nodes):
    """The report equals that of one machine, byte for byte. The share of the node ran again."""
    found, second = two_nodes
    report, journals = tmp_path / "many", tmp_path / "journals"
    folder, process, marks = begin(tmp_path, found, f"--report={report}", f"--journals={journals}")
    try:
        found.remove_node(second, allow_graceful=False)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert "verdict: FAILED" in out
    repeated = [path.name for path in journals.glob("shard-*-2-*.jsonl")]
    assert repeated, sorted(journals.iterdir())
    os.environ["MLCHAOS_MARKS"] = str(marks)
    try:
        assert cluster.alone(folder, tmp_path / "one") == 1
    finally:
        del os.environ["MLCHAOS_MARKS"]
    assert report.read_bytes() == (tmp_path / "one").read_bytes()
    assert cluster.wait_until(lambda: not cluster.processes_with(f"MLCHAOS_MARKS={marks}"))


def test_a_cluster_that_goes_away_makes_the_whole_inconclusive(tmp_path, two_nodes):
    """One line says so, and no process is left."""
    found, _ = two_nodes
    _, process, marks = begin(tmp_path, found, check="import time\n    time.sleep(300)")
    try:
        found.shutdown()
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1
    assert err.count("error: --on=ray: ") == 1
    assert "INCONCLUSIVE" in err + out
    assert cluster.wait_until(lambda: not cluster.processes_with(f"MLCHAOS_MARKS={marks}"))


def test_a_cluster_of_a_different_python_is_refused_in_one_line(monkeypatch):
    """Ray's own text has many lines."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    from ray._private.utils import check_version_info

    theirs = {"ray_version": ray.__version__, "python_version": "3.9.1"}
    monkeypatch.setattr(ray, "init", lambda **options: check_version_info(theirs, "this process"))
    with pytest.raises(ClusterError, match="a different version of Python or Ray") as caught:
        RayEngine(Session([], "."), "auto").start(1)
    assert "3.9.1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_without_a_cluster_is_one_line(tmp_path):
    """Ray itself would try for minutes."""
    pytest.importorskip("ray", reason="needs the extra ray")
    folder = cluster.project(tmp_path / "project")
    ended = cluster.run(folder, "--on=ray", "--address=127.0.0.2:1", "--workers=1")
    assert ended.code == 1
    assert "error: --on=ray: no cluster answers at 127.0.0.2:1" in ended.err
    assert "Traceback" not in ended.err

"""Measure how much faster two local workers of Ray explore the crash states of a torch job.

``python benchmarks/cluster_speedup.py [--on=ray] [--workers=2]``. It needs torch and the extra
``ray``, two idle cores, and some minutes. The figure is a ratio within one run: one machine with
``--mlchaos-jobs=1``, then the workers, then one machine again. The time of the workers includes the
start of pytest and the golden runs of each share, and the connection to the cluster, but not the
start of the cluster. On a busy machine, two processes get more of the processors than one, so the
ratio is only valid if nothing else runs.

All states are run (``exhaustive=True``), because that is what workers divide. With ``--skip``, one
machine leaves out states that follow from others. Each share has to run one of each kind itself, so
the workers gain little, or lose.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BUDGET = 1.6
"""The smallest speed-up with two workers on two cores."""
TEST = '''
import os

import torch


def train(folder):
    """Steps of a few milliseconds, and a checkpoint after each second one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(96, 96) for _ in range(4)])
    optimizer = torch.optim.Adam(model.parameters())
    path, first = folder / "checkpoint.pt", 0
    if path.exists():
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"] + 1
    for step in range(first, STEPS):
        batch = torch.randn(128, 96, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        if step % 2:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step}, folder / "new.pt")
            os.replace(folder / "new.pt", path)


def test_train(mlchaos, tmp_path):
    mlchaos.explore_crashes(train, tmp_path, exhaustive=EXHAUSTIVE).assert_recovers()
'''
ENVIRONMENT = {
    **os.environ,
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return seconds


def _start(cluster: Any, node: dict[str, object]) -> None:
    """Start a node of Ray. On a busy machine, Ray's own 30 seconds may be too few."""
    for tries_left in (2, 1, 0):
        try:
            cluster.add_node(**node)
        except Exception:
            if not tries_left:
                raise
        else:
            return


def main() -> None:
    """Print the times, the ratio and the number of states."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--on", default="ray")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60, help="the length of the job")
    parser.add_argument("--skip", action="store_true", help="let states follow from others")
    parser.add_argument("--quick", action="store_true", help="run one machine once, not twice")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\naddopts = -p mlchaos -p no:cacheprovider\n")
        (folder / "test_train.py").write_text(
            TEST.replace("STEPS", str(given.steps)).replace("EXHAUSTIVE", str(not given.skip))
        )
        reports = [folder / "one.txt", folder / "many.txt"]
        journal = folder / "one.jsonl"
        alone = [sys.executable, "-m", "pytest", "-q", "--mlchaos-jobs=1"]
        alone.append(f"--mlchaos-journal={journal}")
        many = [sys.executable, "-m", "pytest_mlchaos", "run", f"--on={given.on}"]
        many += [f"--workers={given.workers}", f"--report={reports[1]}"]
        cluster = None
        if given.on == "ray":
            from ray.cluster_utils import Cluster

            node = {"num_cpus": given.workers, "include_dashboard": False}
            node |= {"node_ip_address": "127.0.0.2", "object_store_memory": 80 << 20}
            cluster = Cluster()
            _start(cluster, node)
            many.append(f"--address={cluster.address}")
        try:
            before = _seconds(alone, folder)
            seconds = _seconds(many, folder)
            after = before if given.quick else _seconds(alone, folder)
        finally:
            if cluster is not None:
                cluster.shutdown()
        merge = [sys.executable, "-m", "pytest_mlchaos", "merge", str(journal), "-o", os.devnull]
        _seconds([*merge, f"--report={reports[0]}"], folder)
        same = reports[0].read_bytes() == reports[1].read_bytes()
        states = re.search(r"(\d+) crash states", reports[0].read_text())
    ratio = (before + after) / 2 / seconds
    print(
        f"one machine: {before:.1f} s and {after:.1f} s · {given.workers} workers: {seconds:.1f} s"
    )
    print(
        f"states: {states[1] if states else '?'} · the reports are {'equal' if same else 'DIFFERENT'}"
    )
    print(f"speed-up: {ratio:.2f} (at least {BUDGET} with two workers on two idle cores)")


if __name__ == "__main__":
    main()

"""Compare ckpt-chaos with this tool on the Trainer of transformers under two ranks.

``python benchmarks/peers_ranks.py [--theirs] [--json FILE]`` needs ckpt-chaos, transformers and
accelerate (``nox -s peers`` installs them). ckpt-chaos kills one rank at each file event of one
save, with three worlds for each (its own job, ``ckpt_chaos.targets.hf_trainer``). We record one
world of the same job, and resume from each state that a dead rank can leave in its two saves.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import crashes
from sessions import run_test_file

MODULE = "test_bench_peers_ranks"
TESTS = """
import os, sys
import peers_ranks
from pytest_mlchaos import chaos

def train(workdir):
    sys.argv = ["train"]
    from ckpt_chaos.targets import hf_trainer
    from transformers.trainer_utils import get_last_checkpoint
    hf_trainer.MAX_STEPS = peers_ranks.STEPS
    trainer = hf_trainer.make_trainer(str(workdir), hf_trainer.Hooks())
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(workdir)))

@chaos.settings(timeout=None)
def test_trainer(mlchaos, tmp_path):
    world = mlchaos.world(ranks=2, timeout=600)
    report = world.explore_crashes(
        train, tmp_path / "work", timeout=600, max_states=peers_ranks.TRIED
    )
    assert report.outcomes  # judged below
    peers_ranks.found.append(report)
"""
STEPS = 12
"""The job saves after steps 5 and 10, and has work to do after that."""
SAME = {"HARD_FAIL": "failed", "SILENT_DIVERGENCE": "diverged", "LOST_WORK": "lost work"}
DEAD = re.compile(r"rank (\d+) died there|while rank (\d+) was behind")
ROW = re.compile(
    r"^(?:r(\d+) \S+:(\S+) \[(\w+)\]|no crash)(?:.* RAISED (\w+))?.*"
    r"(PASS|HARD_FAIL|SILENT_DIVERGENCE|LOST_WORK)\W*$",
    re.MULTILINE,
)
TRIED = 32
"""Try this many states, of each kind and file first."""
found: list[Any] = []
"""The report of the test."""


def ours(folder: Path) -> dict[str, Any]:
    """Explore the crash states from one golden world."""
    (folder / f"{MODULE}.py").write_text(TESTS)
    arguments = ("--mlchaos-timeout", "none", "--basetemp", str(folder / "pytest"))
    _, (wall, used) = crashes.timed(lambda: run_test_file(folder, MODULE, *arguments))
    (report,) = found
    outcomes = report.outcomes
    return {
        "tool": "pytest-mlchaos",
        "wall s": wall,
        "processor s": used,
        "points": len(outcomes),
        "points in all": len(report.states),
        "worlds": sum(outcome.follows is None for outcome in outcomes) + 2,
        "verdicts": dict(collections.Counter(outcome.verdict for outcome in outcomes)),
        "errors": sorted({type(o.error).__name__ for o in outcomes if o.error is not None}),
        "silent": sorted({o.state.what for o in outcomes if o.verdict == "diverged"}),
    }


def matching(finding: dict[str, Any], outcomes: Sequence[Any]) -> str:
    """Return our state that shows a finding of theirs, or an empty text.

    The verdict and the error are the same. For a cut file, the same rank has cut it. Else the same
    rank has died, and the file is missing. Of several states, it is the one with the most files.
    They also count calls that make an existing directory again, which leave nothing to see.
    """
    name, rank = finding["file"], str(finding["rank"])
    best, most = "", -1
    for outcome in outcomes:
        state = outcome.state
        if (outcome.verdict, type(outcome.error).__name__) != (
            finding["verdict"],
            finding["error"],
        ):
            continue
        folder = state.path.partition("/")[0]
        if finding["mode"] == "torn":
            is_same = state.path == f"{folder}/{name}" and " cut at " in state.what
            is_same = is_same and state.id.startswith((f"rank{rank}", f"all-at-rank{rank}"))
        else:
            dead = DEAD.search(state.what)
            is_same = dead is not None and rank in dead.groups()
            is_same = is_same and ("." not in name or f"{folder}/{name}" not in state.tree)
        count = sum(path.startswith(f"{folder}/") for path in state.tree)
        if is_same and count > most:
            best, most = state.id, count
    return best


def theirs(folder: Path) -> dict[str, Any]:
    """Run its built-in comparison, one run at a time."""
    command = [sys.executable, "-m", "ckpt_chaos", "bench", "hf_trainer", "--ranks", "2"]
    done, (wall, used) = crashes.timed(
        lambda: subprocess.run(
            [*command, "--jobs", "1"], capture_output=True, text=True, check=False, cwd=folder
        )
    )
    rows = ROW.findall(done.stdout)
    runs = re.search(r"-> (\d+) runs", done.stdout)
    if runs is None:
        raise RuntimeError(done.stdout + done.stderr)
    return {
        "tool": "ckpt-chaos",
        "wall s": wall,
        "processor s": used,
        "points": int(runs[1]),
        "worlds": 2 * int(runs[1]) + 1,
        "verdicts": dict(collections.Counter(SAME.get(row[-1], "recovered") for row in rows)),
        "findings": [
            {
                "rank": int(rank),
                "file": file,
                "mode": mode,
                "error": error or "NoneType",
                "verdict": SAME[verdict],
            }
            for rank, file, mode, error, verdict in rows
            if rank and verdict in SAME
        ],
    }


def main() -> None:
    """Run both tools, and print what each has found."""
    parser = argparse.ArgumentParser(description="Compare with ckpt-chaos under two ranks.")
    parser.add_argument("--theirs", action="store_true", help="run ckpt-chaos, too (minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    names = ("pytest-mlchaos", "ckpt-chaos", "transformers", "torch")
    versions = {name: importlib.metadata.version(name) for name in names}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for measure in (ours, theirs) if arguments.theirs else (ours,):
            rows.append(measure(Path(name)))
            print(json.dumps(rows[-1], indent=2), flush=True)
    if len(rows) == 2:
        (report,) = found
        for finding in rows[1]["findings"]:
            finding["ours"] = matching(finding, report.outcomes)
            about = f"rank {finding['rank']} {finding['mode']} {finding['file']}"
            print(f"{about:<40} {finding['verdict']:<10} {finding['ours'] or 'not among ours'}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    # The test finds what was measured in the module of this name.
    sys.modules["peers_ranks"] = sys.modules["__main__"]
    main()

"""Compare other tools with this one on the same training script.

``python benchmarks/peers.py [--points N] [--json FILE]`` needs ckpt-chaos and pytest-torch (``nox
-s peers`` installs them). ckpt-chaos starts two processes at each file event of a variant of
``loop.py``: one is killed there, and one continues. ``mlchaos.explore_crashes`` explores the same
variant. pytest-torch resumes a model in one process, with the test's own functions for saving and
loading. The findings of all tools have common names.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crashes
import loop
import torch

VARIANTS = {
    "atomic": "renamed into place: sound",
    "in_place": "written over the last one: a torn file is the only one",
    "numbered": "each under its own name, the newest is loaded: a torn one hides the others",
    "no_rng": "renamed into place, but dropout and data go on from other random numbers",
}
STEPS, EVERY = 100, 10
PACKAGES = ("pytest-mlchaos", "ckpt-chaos", "pytest-torch", "torch")
SAME = {
    "HARD_FAIL": "failed",
    "SILENT_DIVERGENCE": "diverged",
    "LOST_WORK": "lost work",
    "PASS": "recovered",
    "CONTROL_FAIL": "control",
}
Row = dict[str, Any]


def by_ckpt_chaos(how: str, points: int, folder: Path) -> Row:
    """Run its command line on the script, at most at ``points`` crash points, and scale the time to
    all.
    """
    work, report = folder / f"ckpt-chaos-{how}", folder / f"{how}.md"
    script = [
        sys.executable,
        str(Path(loop.__file__)),
        "--out",
        "{out}",
        "--how",
        how,
        "--steps",
        str(STEPS),
        "--every",
        str(EVERY),
    ]
    options = ["--step-regex", r"resumed from step (\d+)", "--result-file", "{out}/final.pt"]
    options += ["--max-points", str(points), "--summary", str(report)]
    command = [
        sys.executable,
        "-m",
        "ckpt_chaos",
        "run",
        "--work",
        str(work),
        *options,
        "--",
        *script,
    ]
    done, (wall, used) = crashes.timed(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False)
    )
    said = re.search(r"(\d+) file events -> (\d+) crash points", done.stdout)
    if said is None:
        raise RuntimeError(done.stdout + done.stderr)
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(work.glob("pt_*/result.json"))
    ]
    judged = [_judged(result) for result in results if not result["label"].startswith("no crash")]
    events = (work / "reference" / "events.log.rank0").read_text(encoding="utf-8").splitlines()
    every_point = len(events) + sum(line.split("\t")[3] == "1" for line in events)
    tried = int(said[2])
    runs = 2 * tried + 2  # plus a reference and a control
    row = _row("ckpt-chaos", how, judged, tried, wall, used)
    return {
        **row,
        "points in all": every_point,
        "processor s for all": used / runs * (2 * every_point + 2),
        "exit": done.returncode,
    }


def _judged(result: Row) -> str:
    from ckpt_chaos.invariants import ResumeOutcome, classify

    return SAME[classify(ResumeOutcome(**result["outcome"]))]


def by_us(how: str, isolation: str) -> Callable[[Callable[..., Any]], Row]:
    """Explore every crash state, with default settings except the isolation."""

    def explored(explore: Callable[..., Any]) -> Row:
        report, (wall, used) = crashes.timed(
            lambda: explore(STEPS, EVERY, how, isolation=isolation)
        )
        row = _row(
            f"pytest-mlchaos, {isolation}",
            how,
            [outcome.verdict for outcome in report.outcomes],
            len(report.states),
            wall,
            used,
        )
        first = {
            outcome.verdict: str(outcome.divergence or outcome.state.what)
            for outcome in reversed(report.failures)
        }
        return {
            **row,
            "points in all": len(report.states),
            "processor s for all": used,
            "first": first,
        }

    return explored


def by_pytest_torch(how: str) -> Row:
    """Run its ``assert_resume_equivalent`` on the same model: one resume in one process."""
    from pytest_torch.training_loop import TrainingSetup, assert_resume_equivalent

    def made() -> Any:
        width = loop.WIDTH
        model = torch.nn.Sequential(
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.1),
            torch.nn.Linear(width, 1),
        )
        return TrainingSetup(model, torch.optim.AdamW(model.parameters(), lr=1e-3))

    def save(setup: Any, path: Path) -> None:
        held = {
            "model": setup.model.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        torch.save(held, path)

    def load(setup: Any, path: Path) -> None:
        held = torch.load(path)
        setup.model.load_state_dict(held["model"])
        setup.optimizer.load_state_dict(held["optimizer"])
        if how != "no_rng":
            torch.set_rng_state(held["rng"])

    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(16, loop.WIDTH, generator=generator) for _ in range(STEPS)]

    def step(setup: Any, batch: Any) -> Any:
        loss = (setup.model(batch) - batch.sum(1, keepdim=True)).square().mean()
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return loss

    def run() -> tuple[str, str]:
        try:
            assert_resume_equivalent(made, data, step, steps=STEPS, save=save, load=load)
        except AssertionError as error:
            return "diverged", str(error)
        return "recovered", ""

    (verdict, text), (wall, used) = crashes.timed(run)
    row = _row("pytest-torch (the model alone)", how, [verdict], 1, wall, used)
    return {
        **row,
        "points in all": 1,
        "processor s for all": used,
        "first": {verdict: text[:300]} if text else {},
    }


def _row(tool: str, how: str, verdicts: list[str], points: int, wall: float, used: float) -> Row:
    return {
        "tool": tool,
        "variant": how,
        "points": points,
        "verdicts": dict(Counter(verdicts)),
        "wall s": wall,
        "processor s": used,
    }


def _printed(row: Row) -> None:
    per_point = row["processor s for all"] / row["points in all"]
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(row["verdicts"].items()))
    tried = f"{row['points']} of {row['points in all']}"
    print(
        f"{row['variant']:<10} {row['tool']:<32} {tried:>10} {row['wall s']:>9.1f} "
        f"{row['processor s']:>9.1f} {per_point:>10.3f} "
        f"{row['processor s for all']:>9.1f}  {verdicts}",
        flush=True,
    )
    for verdict, words in row.get("first", {}).items():
        print(f"{'':<12}first {verdict}: {words.splitlines()[0]}", flush=True)


def _compared(rows: list[Row]) -> None:
    """Return the share of its findings that we find too, and the ratio of the times."""
    for how in VARIANTS:
        mine = {row["tool"]: row for row in rows if row["variant"] == how}
        theirs, ours = mine.get("ckpt-chaos"), mine.get("pytest-mlchaos, in-process")
        if theirs is None or ours is None:
            continue
        missed = theirs["verdicts"].keys() - ours["verdicts"].keys() - {"recovered"}
        by_point, in_all = _times(theirs, ours)
        told = (
            f"we miss {', '.join(sorted(missed))}"
            if missed
            else "each kind of finding of its own is among ours"
        )
        points = f"{ours['points']} points to {theirs['points in all']}"
        print(
            f"{how}: {by_point:.0f} times faster by point, {in_all:.1f} times in all ({points}); "
            f"{told}"
        )


def _times(theirs: Row, ours: Row) -> tuple[float, float]:
    """Return the ratio of the times, per point and for all points, scaled from those that were
    tried.
    """
    in_all = theirs["processor s for all"] / ours["processor s for all"]
    return in_all * ours["points in all"] / theirs["points in all"], in_all


def main() -> None:
    """Run all tools on all variants, and write the table, the comparison and the file."""
    parser = argparse.ArgumentParser(description="Compare with other tools on the same script.")
    parser.add_argument(
        "--points",
        type=int,
        default=40,
        help="crash points that ckpt-chaos may try, by variant (its default is 40)",
    )
    parser.add_argument(
        "--only", choices=VARIANTS, action="append", help="this variant alone (may be repeated)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    print(", ".join(f"{package} {version}" for package, version in versions.items()))
    print(
        f"{'variant':<10} {'tool':<32} {'points':>10} {'wall s':>9} {'CPU s':>9} "
        f"{'CPU s/point':>11} {'for all':>8}  verdicts"
    )
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for how in arguments.only or VARIANTS:
            for isolation in ("in-process", "process"):
                rows += crashes.in_a_test(
                    folder,
                    lambda explore, how=how, isolation=isolation: [by_us(how, isolation)(explore)],
                )
                _printed(rows[-1])
            with contextlib.redirect_stdout(io.StringIO()):
                rows.append(by_pytest_torch(how))
            _printed(rows[-1])
            rows.append(by_ckpt_chaos(how, arguments.points, folder))
            _printed(rows[-1])
    print()
    _compared(rows)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()

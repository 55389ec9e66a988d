"""Measure what a shard costs besides its states: an exploration of 400 states that owns none."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from sessions import run_test_file
from timing import Figure, Spread, compare, interleaved, milliseconds

from pytest_mlchaos.crashes import api, progress

BUDGET = 2000.0
MODULE = "test_bench_shards"
SHARD = "1/1000000007"
"""The number of shards is so large that this one probably owns none of the 400 states."""
TESTS = """
import json

def train(workdir, steps=133):
    file = workdir / "state.json"
    state = json.loads(file.read_text()) if file.exists() else {"step": 0, "weight": 1}
    while state["step"] < steps:
        state = {"step": state["step"] + 1, "weight": state["weight"] * 31 % 10007}
        file.with_suffix(".tmp").write_text(json.dumps(state))
        file.with_suffix(".tmp").replace(file)
    return state

def test_states(mlchaos, tmp_path):
    mlchaos.explore_crashes(train, tmp_path, isolation="in-process").assert_recovers()
"""


class _Duration:
    """A pytest plugin that keeps the test's own time."""

    seconds = 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the body's time."""
        if report.when == "call":
            self.seconds = report.duration


def measure(quick: bool) -> list[Figure]:
    """Measure a shard, and its two golden runs inside the same exploration."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{MODULE}.py").write_text(TESTS)
        golden: list[float] = []
        original = api.establish_baseline
        api.establish_baseline = functools.partial(_timed, original, golden)  # type: ignore[assignment]
        try:
            sides = {
                "shard": functools.partial(_seconds, folder, golden),
                "golden runs": lambda: golden[-1],  # of the exploration right before
            }
            samples = interleaved(3 if quick else 10, sides, no_gc=False)
        finally:
            api.establish_baseline = original
    note = f"golden runs {Spread.of(samples['golden runs']).median:.2f} s, 400 states"
    return [
        compare(
            "a shard without states, beyond its golden runs",
            samples,
            "shard",
            "golden runs",
            milliseconds,
            "ms",
            budget=BUDGET,
            note=note,
        )
    ]


def _timed(original: object, golden: list[float], choice: object) -> object:
    start = progress.perf_counter()  # the plugin's own name: inside a test, the clock is virtual
    try:
        return original(choice)  # type: ignore[operator]
    finally:
        golden.append(progress.perf_counter() - start)


def _seconds(folder: Path, golden: list[float]) -> float:
    duration = _Duration()
    journal = f"--mlchaos-journal={folder / 'shard.jsonl'}"
    run_test_file(folder, MODULE, f"--mlchaos-shard={SHARD}", journal, plugins=[duration])
    return duration.seconds

"""Measure how many schedules per second an exploration tries, against a bare Hypothesis test."""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
from pathlib import Path

import pytest
from sessions import run_test_file
from timing import Figure, Spread, compare, interleaved, times

BUDGET = 2.0
MODULE = "test_bench_exploration"
TESTS = '''
from hypothesis import given, settings, strategies as st
from pytest_mlchaos import Fault, chaos

runs = 0

@chaos.register
class Nudge(Fault):
    """Records a strike, and changes nothing."""
    site = "bench.site"
    def apply(self, visit):
        visit.record_injection()

def noop(site, payload):
    return payload

def body(visit):
    global runs
    runs += 1
    for number in range(200):
        visit("bench.site", number)

@chaos.settings(max_trials=200, seed=0)
@chaos.nudge
def test_chaos(mlchaos):
    body(mlchaos.visit)

@settings(max_examples=200, database=None, deadline=None)
@given(st.lists(st.integers(0, 199), min_size=1, max_size=3))
def test_bare(visits):
    body(noop)
'''


class _Durations:
    """A pytest plugin that keeps the test's own time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the body's time."""
        if report.when == "call":
            self.seconds.append(report.duration)


def _seconds_per_run(folder: Path, test: str) -> float:
    """Run one of the tests in this process, and return the time per execution of its body."""
    durations = _Durations()
    before = getattr(sys.modules.get(MODULE), "runs", 0)
    run_test_file(folder, MODULE, test=test, plugins=[durations])
    return durations.seconds[0] / (sys.modules[MODULE].runs - before)


def measure(quick: bool) -> list[Figure]:
    """Measure both tests in one process, first without torch, then with it (it has generators to
    seed).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{MODULE}.py").write_text(TESTS)
        found = [_figure("exploration", folder, quick)]
        if importlib.util.find_spec("torch") is not None:
            importlib.import_module("torch")
            found.append(_figure("exploration, torch loaded", folder, quick))
    return found


def _figure(what: str, folder: Path, quick: bool) -> Figure:
    sides = {
        test: functools.partial(_seconds_per_run, folder, test)
        for test in ("test_chaos", "test_bare")
    }
    samples = interleaved(5 if quick else 20, sides, no_gc=False)
    rate = {test: 1 / Spread.of(values).median for test, values in samples.items()}
    note = (
        f"{rate['test_chaos']:.0f} schedules/s, bare Hypothesis {rate['test_bare']:.0f} examples/s"
    )
    return compare(
        what, samples, "test_chaos", "test_bare", times, "times", budget=BUDGET, note=note
    )

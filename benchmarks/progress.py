"""Measure what the progress line adds to an exploration and to a search.

Whole processes of pytest run on a pseudo-terminal, with and without the line. The job does almost
nothing, so that the line is as large a share of the time as it can be. It needs POSIX.
"""

from __future__ import annotations

import functools
import os
import pty
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from timing import Figure, Samples, compare, interleaved, percent, real_seconds

from pytest_mlchaos.core.progress import Step, followed_by, report_step
from pytest_mlchaos.plugin.progress_line import SECONDS_BETWEEN_LINES, ProgressLine

TESTS = """
import json
from pytest_mlchaos import chaos

def job(workdir):
    state = workdir / "state.json"
    steps = json.loads(state.read_text()) if state.exists() else 0
    while steps < 20:
        steps += 1
        part = workdir / "part"
        part.write_text(json.dumps(steps))
        part.replace(state)
    return steps

def test_exploration(mlchaos, tmp_path):
    report = mlchaos.explore_crashes(job, tmp_path, isolation="in-process", exhaustive=True)
    report.assert_recovers()

@chaos.call_delay(target="json:dumps", delay=0.001)
@chaos.settings(max_trials=150, seed=0)
def test_search():
    for number in range(300): json.dumps(number)
"""
STEPS = 1000
LINE = "mlchaos-progress"
"""The plugin that writes the line. pytest can block it by name."""
BUDGET = 1.0
"""Percent. What is less cannot be measured in whole processes."""


def _read(descriptor: int, written: list[bytes]) -> None:
    try:
        while data := os.read(descriptor, 1 << 16):
            written.append(data)
    except OSError:  # the other end is closed
        pass


def _run(folder: Path, test: str, *, line: bool) -> bytes:
    """Run a test on a pseudo-terminal, and return what it wrote."""
    ours, theirs = pty.openpty()
    written: list[bytes] = []
    reader = threading.Thread(target=_read, args=(ours, written))
    reader.start()
    command = [sys.executable, "-m", "pytest", "-p", "mlchaos", "-p", "no:cacheprovider"]
    command += [*(() if line else ("-p", f"no:{LINE}")), f"test_progress.py::{test}"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TERM": "xterm"}
    environment.pop("CI", None)
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            check=True,
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return b"".join(written)


def _steps(quick: bool, what: str, every: float) -> Figure:
    """Measure one step of the progress. It is written if ``every`` seconds have passed."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=_read, args=(ours, []), daemon=True)
    reader.start()
    line = ProgressLine(theirs, lambda: 10, lambda: 100, every)

    def seconds(listener: Callable[[Step], None] | None) -> float:
        with followed_by(listener):
            start = real_seconds()
            for number in range(STEPS):
                report_step("crash states", number, STEPS, 2)
            return (real_seconds() - start) / STEPS

    sides = {"shown": line.listener("test_any_moment"), "not shown": None}
    samples = interleaved(
        50 if quick else 200,
        {name: functools.partial(seconds, listener) for name, listener in sides.items()},
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    return compare(what, samples, "shown", "not shown", _microseconds, "µs")


def _microseconds(one: float, other: float) -> float:
    return (one - other) * 1e6


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(quick: bool) -> list[Figure]:
    """Measure the seconds and the CPU seconds of whole processes, in turns."""
    figures = [
        _steps(quick, "a step of the progress", SECONDS_BETWEEN_LINES),
        _steps(quick, "a step that is written, at most five times a second", 0),
    ]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_progress.py").write_text(TESTS)
        for test in ("exploration", "search"):
            run = functools.partial(_run, folder, f"test_{test}")
            lines = run(line=True).count(b"\x1b[K") - 1
            if not lines or b"\x1b[K" in run(line=False):
                raise RuntimeError(f"{test}: the line is not shown, or cannot be switched off")
            cpu: Samples = {"with": [], "without": []}

            def timed(side: str, run: functools.partial[bytes] = run, cpu: Samples = cpu) -> float:
                start, used = real_seconds(), _cpu()
                run(line=side == "with")
                cpu[side].append(_cpu() - used)
                return real_seconds() - start

            wall = interleaved(
                10 if quick else 30,
                {side: functools.partial(timed, side) for side in ("with", "without")},
                no_gc=False,
            )
            rounds = len(wall["with"])
            cpu = {side: values[-rounds:] for side, values in cpu.items()}
            what, note = f"{test}: the progress line adds", f"the line was written {lines} times"
            for kind, samples in (("time", wall), ("CPU time", cpu)):
                figures.append(
                    compare(
                        f"{what} {kind}",
                        samples,
                        "with",
                        "without",
                        percent,
                        "%",
                        budget=BUDGET,
                        note=note,
                    )
                )
    return figures

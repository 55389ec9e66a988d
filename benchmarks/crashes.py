"""Measure the exploration of crash states.

It measures the overhead beyond the subject's own time, longer loops, large checkpoints, and kills
for comparison. Times are wall-clock seconds and CPU seconds of all processes involved. On a busy
machine, read the CPU seconds. The subject's own time is that of plain calls, from checkpoints of
the same steps, in the same rounds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sessions import run_test_file
from timing import Figure, Spread, real_seconds

HERE = Path(__file__).parent
MODULE = "test_bench_crashes"
TESTS = """
import crashes, loop

def test_explored(mlchaos, tmp_path):
    def explore(*args, **keywords):
        report = mlchaos.explore_crashes(loop.train, str(tmp_path / crashes.fresh_name()), *args, **keywords)
        assert report.outcomes
        return report

    crashes.wanted(explore)
"""
BUDGETS = {"in-process": 25.0, "process": 60.0}
OWN_RUNS_BUDGET = 25.0
KILOBYTES = 40
"""The size of the checkpoints of the job with 8 saves, which has some 130 crash states."""
KILLED = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
import loop
left = [int(sys.argv[2])]
def step(*_):
    left[0] -= 1
    if left[0] == 0:
        os._exit(137)
register_optimizer_step_post_hook(step)
loop.train(sys.argv[1])
"""
Found = TypeVar("Found")
Timed = tuple[float, float]
"""Seconds of the wall clock, and of the CPU."""

wanted: Callable[[Callable[..., Any]], None]
"""The measurement that runs in the test, with its function to explore."""
_used: dict[int, float] = {}
"""Seconds by process."""
_names = iter(range(1_000_000))


def fresh_name() -> str:
    """Return a new name for a work directory."""
    return f"work-{next(_names)}"


# -- clocks ----------------------------------------------------------------------------------------


def processor_seconds() -> float:
    """Return the CPU seconds of this process and all its descendants.

    On Linux, they include processes that still run, or did at the last call.
    """
    for pid in _below(os.getpid()):
        _used[pid] = max(_used.get(pid, 0.0), _used_by(pid))
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + sum(_used.values())


def _below(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _below(child)


def _used_by(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def timed(call: Callable[[], Any]) -> tuple[Any, Timed]:
    """Return the result of a call, and its time."""
    wall, used = real_seconds(), processor_seconds()
    value = call()
    return value, (real_seconds() - wall, processor_seconds() - used)


def _plus(one: Timed, other: Timed) -> Timed:
    return one[0] + other[0], one[1] + other[1]


# -- the subject by itself -------------------------------------------------------------------------


class Plain:
    """Call the subject as a user would, from checkpoints of given steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        import loop

        self._train, self._folder, self._steps = loop.train, folder, steps

    def resumed(self, at: int) -> Timed:
        """Return the seconds of a run that finds a checkpoint of that step (0: none)."""
        start = self._folder / f"{self._steps}-{at}"
        if not start.exists():
            start.mkdir()
            with contextlib.redirect_stdout(io.StringIO()):
                self._train(str(start), at)
        work = self._folder / fresh_name()
        shutil.copytree(start, work)
        with contextlib.redirect_stdout(io.StringIO()):
            _, seconds = timed(lambda: self._train(str(work), self._steps))
        shutil.rmtree(work)
        return seconds


def _own(plain: Plain, report: Any) -> Timed:
    """Return the seconds of the subject alone in all these runs, plus the golden run."""
    total = plain.resumed(0)
    for at, count in Counter(outcome.resumed_at or 0 for outcome in report.outcomes).items():
        for _ in range(count):
            total = _plus(total, plain.resumed(at))
    return total


# -- measurements ----------------------------------------------------------------------------------


def measure(quick: bool) -> list[Figure]:
    """Measure all of it."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    torch.set_num_threads(1)
    sys.modules.setdefault("crashes", sys.modules[__name__])  # the test imports this file
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = in_a_test(
            folder,
            lambda explore: [
                *_beyond(explore, folder, quick),
                *_skipping(explore, quick),
                *_growth(explore, quick),
            ],
        )
        found += _killing(folder, found, quick)
        found += [_snapshots(folder, 1, 5 if quick else 15)]
        if not quick:
            found += [_snapshots(folder, 500, 2)]
    return found


def in_a_test(folder: Path, measured: Callable[[Callable[..., Any]], list[Found]]) -> list[Found]:
    """Measure inside a test, with the fixture."""
    global wanted  # the test is a separate module
    found: list[Found] = []
    wanted = lambda explore: found.extend(measured(explore))  # noqa: E731
    (folder / f"{MODULE}.py").write_text(TESTS)
    sys.modules.pop(MODULE, None)
    run_test_file(folder, MODULE, "--mlchaos-timeout", "none", "--basetemp", str(folder / "pytest"))
    return found


def _beyond(explore: Callable[..., Any], folder: Path, quick: bool) -> list[Figure]:
    """Measure exploration and plain runs in turns. Return what a state costs beyond the plain run."""
    plain = Plain(folder, 100)
    found = []
    for isolation, budget in BUDGETS.items():
        explore(20, isolation=isolation)  # warm up
        wall, used, share = [], [], []
        for _ in range(2 if quick else 5):
            report, all_of_it = timed(
                lambda isolation=isolation: explore(100, isolation=isolation, exhaustive=True)
            )
            own, states = _own(plain, report), len(report.states)
            wall.append((all_of_it[0] - own[0]) / states * 1e3)
            used.append((all_of_it[1] - own[1]) / states * 1e3)
            share.append(own[1] / states * 1e3)
        where = "in process" if isolation == "in-process" else "in fresh processes"
        note = f"100 steps, {states} states, golden run and all; the subject's own: {Spread.of(share).median:.0f} ms of the processor"
        found.append(
            _figure(f"a crash state beyond its own run, {where}", "ms", wall, budget, note)
        )
        found.append(_figure("  the same, of the processor", "ms", used, budget))
    return found


def _skipping(explore: Callable[..., Any], quick: bool) -> list[Figure]:
    """Measure an exploration in runs of its own subject, which saves 8 times, against exhaustive
    ones.
    """
    job = (80, 10, "atomic", KILOBYTES)

    def own() -> float:
        import loop

        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            return timed(lambda: loop.train(folder, *job))[1][1]

    found = []
    for exhaustive in (False, True):
        runs, note = [], ""
        for _ in range(2 if quick else 5):
            before = own()
            report, (_, used) = timed(
                lambda exhaustive=exhaustive: explore(
                    *job, isolation="in-process", exhaustive=exhaustive
                )
            )
            runs.append(2 * used / (before + own()))
            note = told(report)
        what = "everything" if exhaustive else "the default"
        budget = None if exhaustive else OWN_RUNS_BUDGET
        found.append(_figure(f"exploration of 8 saves, {what}", "own runs", runs, budget, note))
    return found


def told(report: Any) -> str:
    """Return how many states of an exploration were run, skipped and verified."""
    own = [outcome for outcome in report.outcomes if outcome.follows is None]
    return (
        f"{len(report.states)} states: {len(own)} run, of which {sum(o.verified for o in own)} "
        f"verify others and {sum(o.ended_early for o in own)} ended early; "
        f"{len(report.outcomes) - len(own)} skipped; of the processor"
    )


def _growth(explore: Callable[..., Any], quick: bool) -> list[Figure]:
    """Measure longer loops per state, by default and to the end of each run."""
    found = []
    for exhaustive in (False, True):
        for steps in (20, 100) if quick or exhaustive else (20, 100, 400):
            report, (wall, used) = timed(
                lambda steps=steps, exhaustive=exhaustive: explore(
                    steps, isolation="in-process", exhaustive=exhaustive
                )
            )
            states = len(report.states)
            note = f"{states} states, {used:.1f} s of the processor, {used / states * 1e3:.0f} ms by state"
            what = f"exploration of {steps} steps" + (", everything" if exhaustive else "")
            found.append(_figure(what, "s", [wall], None, note))
    return found


def _killing(folder: Path, found: list[Figure], quick: bool) -> list[Figure]:
    """Measure a killed and a continued process at a few crash points, scaled to all states."""
    points = (1, 51) if quick else (1, 26, 51, 76, 99)
    wall, used = [], []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    for point in points:
        work = folder / fresh_name()
        _, (seconds, processor) = timed(
            lambda work=work, point=point: _killed_and_rerun(work, point, environment)
        )
        wall.append(seconds)
        used.append(processor)
    ours = next(figure for figure in found if figure.what == "exploration of 100 steps")
    states, seconds = int(ours.note.split()[0]), float(ours.note.split()[2])
    times = Spread.of(used).median * states / seconds
    note = f"measured at {len(points)} points; at each of {states} states: {Spread.of(used).median * states:.0f} s of the processor"
    return [
        _figure("kill and rerun, 100 steps, one crash point", "s", wall, None, note),
        _figure(
            "  as many points, against the exploration",
            "times",
            [round(times, 1)],
            None,
            "of the processor",
        ),
    ]


def _killed_and_rerun(work: Path, point: int, environment: dict[str, str]) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(work), str(point)],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == 137, killed.stderr
    subprocess.run(
        [sys.executable, str(HERE / "loop.py"), "--out", str(work)],
        env=environment,
        capture_output=True,
        check=True,
    )


def _snapshots(folder: Path, megabytes: int, rounds: int) -> Figure:
    """Measure a golden run with snapshots against a plain one: 2 checkpoints of that size in 6
    steps.
    """
    import loop

    from pytest_mlchaos.crashes.recording.content_store import ContentStore
    from pytest_mlchaos.crashes.run import RunOptions, Subject
    from pytest_mlchaos.crashes.runners import InProcessRunner
    from pytest_mlchaos.runs.torch_trace import trace_steps

    wall, used, more, kept = [], [], [], 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work, store = Path(name, "work"), Path(name, "store")
            arguments = (str(work), 6, 3, "atomic", megabytes * 1000)
            with contextlib.redirect_stdout(io.StringIO()):
                _, plain = timed(lambda arguments=arguments: loop.train(*arguments))
            shutil.rmtree(work)
            work.mkdir()
            contents = ContentStore(store)
            host = InProcessRunner(
                Subject(loop.train, arguments), RunOptions(root=work, traced=trace_steps), contents
            )
            golden, watched = timed(lambda host=host: host.golden(None))
            assert golden.ran.error is None, golden.ran.error
            kept = store.stat().st_size
            contents.close()
        wall.append(watched[0] / plain[0])
        used.append(watched[1] / plain[1])
        more.append((watched[1] - plain[1]) / 2)
    by_checkpoint = f"{Spread.of(more).median * 1e3:.0f} ms more by checkpoint"
    note = f"of the processor {Spread.of(used).median:.1f} times, {by_checkpoint}; kept: {kept / 1e6:.0f} MB"
    return _figure(
        f"golden run with snapshots, 2 x {megabytes} MB in 6 steps", "times", wall, None, note
    )


def _figure(
    what: str, unit: str, samples: list[float], budget: float | None, note: str = ""
) -> Figure:
    return Figure(
        what=what,
        unit=unit,
        measured=Spread.of(samples),
        quiet=min(samples),
        budget=budget,
        note=note,
    )

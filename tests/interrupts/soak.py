"""Ctrl-C at random moments: ``python tests/interrupts/soak.py [--interrupts 500] [--seed 0] [--only
NAME ...]``.

Each scenario has a warm process of its own, which runs pytest again and again. A thread sends
SIGINT at a moment that is drawn uniformly
from the length of an undisturbed test; in some runs a second and a third one follow. After each
run, nothing may be patched, no process may
be left but the warm ones that wait for the next test, and pytest must have ended as interrupted.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

HERE = pathlib.Path(__file__).parent
MARK = "MLCHAOS_INTERRUPTED"
SCENARIOS = re.findall(r"^def test_(\w+)", (HERE / "scenarios.py").read_text(), re.MULTILINE)
HEAVY = {"explore_fresh": 0.5, "explore_jobs": 0.5, "world": 0.5}
"""Their share of the interrupts, compared with that of the others: a run takes seconds."""
_sleep, _now = time.sleep, time.perf_counter
_OUT = os.dup(1)
WHOLE = 0.1
"""The share of moments that are drawn from the whole session; the others come while its test runs.
"""
OUTSIDE = "pytest's own code was interrupted"
RENEW = 75
"""The exit code of a worker that goes on in a new process."""
PHASES = ("armed", "arming", "disarming", "processes", "between trials", "outside")


@dataclasses.dataclass
class Landed:
    """The effect of one interrupt."""

    scenario: str
    phase: str
    signals: int
    code: str
    wrong: list[str]


def phase_of(frame):
    """Return the phase that the main thread is in."""
    from pytest_mlchaos.engine import controller

    names = set()
    while frame is not None:
        code = frame.f_code
        names.add((os.path.basename(code.co_filename), code.co_name))
        frame = frame.f_back
    ours = {name for file, name in names if file == "interrupts.py"}
    if ours & {"__exit__", "leave", "release"} or ("patching.py", "undo") in names:
        return "disarming"
    if ours & {"__enter__", "hold"} or ("trial.py", "_armed") in names:
        return "arming"
    if controller._active:
        return (
            "processes"
            if {file for file, _ in names}
            & {"subprocess_runner.py", "attempt.py", "fork_server.py"}
            else "armed"
        )
    return "between trials" if ("test_runner.py", "__call__") in names else "outside"


class Interrupter:
    """A thread that sends SIGINT to this process: at the given seconds from the start of the run."""

    def __init__(self, moments):
        self._moments = moments
        self._over = False
        self._main = threading.main_thread().ident
        self.sent = 0
        self.phase = ""
        self.length = 0.0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def start(self):
        self._start = _now()
        self._thread.start()

    def stop(self):
        """After this, no signal is sent."""
        with self._lock:
            self._over = True
        if self._thread.ident is not None:
            self._thread.join()

    def _send(self):
        for moment in self._moments:
            while (left := self._start + moment - _now()) > 0:
                _sleep(min(left, 0.05))
                if self._over:
                    return
            with self._lock:
                if self._over:
                    return
                if not self.sent:
                    self.phase = phase_of(sys._current_frames()[self._main])
                self.sent += 1
                os.kill(os.getpid(), signal.SIGINT)


class Clock:
    """A plugin: how long the test takes; it starts the interrupter with the test."""

    def __init__(self, interrupter):
        self.begun = self.ended = 0.0
        self._interrupter = interrupter

    def pytest_runtestloop(self):
        self.begun = _now()
        if self._interrupter is not None:
            self._interrupter.start()

    def pytest_sessionfinish(self):
        self.ended = _now()


def session(scenario, folder, moments, *, whole=False):
    """Run pytest on one scenario: its exit code in words, its output, and what interrupted it.
    ``whole``: from pytest's first moment.
    """
    import pytest

    out = io.StringIO()
    interrupter = Interrupter(moments)
    clock = Clock(interrupter if moments and not whole else None)
    code: object = "?"
    args = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--tb=short",
        "-c",
        str(folder / "pytest.ini"),
        f"--rootdir={folder}",
    ]
    args += [f"--basetemp={folder / 'temp'}", f"{folder / 'scenarios.py'}::test_{scenario}"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            if moments and whole:
                interrupter.start()
            try:
                code = int(pytest.main(args, plugins=[clock]))
            finally:
                interrupter.stop()
    except KeyboardInterrupt:
        code = f"{code}, KeyboardInterrupt out of pytest.main"
    except Exception as error:
        # pytest's own last steps are not prepared for an interrupt; nor is CPython 3.11's
        # ast.parse, whose count
        # of its depth is wrong from then on, for the rest of the process.
        if not interrupter.sent or _is_ours(error):
            raise
        code = f"{OUTSIDE}: {type(error).__name__}: {error}, KeyboardInterrupt out of pytest.main"
    for _ in range(3):  # one that was sent at the very end
        with contextlib.suppress(KeyboardInterrupt):
            _sleep(0.001)
    interrupter.length = clock.ended - clock.begun
    return code, out.getvalue(), interrupter


def _is_ours(error):
    """Return True if the package's code is what failed, here or in what was being handled."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "pytest_mlchaos" in trace.tb_frame.f_code.co_filename and trace.tb_next is None:
                return True
            trace = trace.tb_next
        error = None if isinstance(error.__context__, KeyboardInterrupt) else error.__context__
    return False


def work(scenario, count, seed, folder):
    """The warm process of one scenario: prints a line of JSON for each interrupt that landed."""
    sys.path.insert(0, str(HERE))
    from state import Processes, changed, state, threads_left

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    drawn = random.Random(f"{scenario}/{seed}/{count}")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    shutil.copy(HERE / "scenarios.py", folder)
    processes = Processes(os.environ[MARK])
    for _ in range(2):  # all is imported, warm processes run
        code, text, _ = session(scenario, folder, ())
        if code != 0:
            sys.exit(f"{scenario} fails undisturbed: {code}\n{text}")
    before, start = state(), _now()
    _, _, undisturbed = session(scenario, folder, ())
    total = _now() - start
    if noise := changed(before, state()):
        sys.exit(f"{scenario} changes something undisturbed: {noise}")
    landed = 0
    for _ in range(20 * count):
        if landed == count:
            break
        whole = drawn.random() < WHOLE
        moments = [drawn.uniform(0, total if whole else undisturbed.length)]
        for _ in range(drawn.choice((0, 0, 1, 2))):
            moments.append(moments[-1] + 10 ** drawn.uniform(-5, -1.5))
        before = state()
        code, text, interrupter = session(scenario, folder, moments, whole=whole)
        if not interrupter.sent:
            continue
        if (
            interrupter.sent
            and code in (0,)
            and "passed" in text
            and interrupter.phase == "outside"
        ):
            continue  # it came when pytest had ended, or before it began
        landed += 1
        now = state()
        wrong = [f"left: {key}: {now.get(key)!r}"[:300] for key in changed(before, now)]
        wrong += [f"thread left: {name}" for name in threads_left()]
        wrong += [
            f"directory left aside: {path}"
            for path in (folder / "temp").rglob("mlchaos-golden-*/aside")
        ]
        if (more := processes.more_than(_waiting())) > 0:
            wrong.append(f"{more} processes left of {processes.told()}")
            _stop()
        if code != 2 and "KeyboardInterrupt out of" not in str(code):
            wrong.append(f"exit code {code}:\n{text[-3000:]}")
        if "INTERNALERROR" in text:
            wrong.append(text[-3000:])
        tell(Landed(scenario, interrupter.phase, interrupter.sent, str(code), wrong))
        if str(code).startswith(OUTSIDE):  # what else it left undone is not known
            _stop()
            sys.exit(RENEW)
    _stop()
    if (more := processes.more_than(1)) > 0:
        tell(
            Landed(
                scenario,
                "outside",
                0,
                "end",
                [f"{more} processes left at the end: {processes.told()}"],
            )
        )


def tell(landed):
    """Print one for the process that gathers them: also if pytest still captures what is printed."""
    os.write(_OUT, (json.dumps(dataclasses.asdict(landed)) + "\n").encode())


def _servers():
    from pytest_mlchaos.processes.subprocess_runner import fresh_processes

    servers = [fresh_processes()._server]
    world = sys.modules.get("pytest_mlchaos.ranks.api")
    if world is not None:
        servers += [
            value()
            for value in vars(world).values()
            if hasattr(value, "cache_info") and value.cache_info().currsize
        ]
    return [server for server in servers if hasattr(server, "fork")]


def _waiting():
    """Count the processes that may be there: this one, the warm ones, and idle keepers, each with
    the next process.
    """
    from pytest_mlchaos.processes.subprocess_runner import fresh_processes

    return (
        1
        + sum(server._process is not None for server in _servers())
        + 2 * len(fresh_processes()._idle)
    )


def _stop():
    from pytest_mlchaos.processes.subprocess_runner import fresh_processes

    fresh_processes().stop()
    for server in _servers():
        server.stop()


def main():
    """All scenarios, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--interrupts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        scenario, count, folder = given.worker
        work(scenario, int(count), given.seed, pathlib.Path(folder))
        return 0
    weights = {name: HEAVY.get(name, 1.0) for name in given.only}
    found, failed = [], []
    left, weight = given.interrupts, sum(weights.values())
    for name in given.only:
        count = round(left * weights[name] / weight)
        left, weight = left - count, weight - weights[name]
        lines, returncode = [], RENEW
        while returncode == RENEW and len(lines) < count:
            more, returncode = _worked(name, count - len(lines), given.seed)
            lines += more
        found += lines
        if returncode not in (0, RENEW) or sum(line.signals > 0 for line in lines) != count:
            failed.append(
                f"{name}: {len(lines)} of {count} interrupts landed, and its process ended with "
                f"exit code {returncode}"
            )
        print(f"{name}: {_figures(lines)}", flush=True)
        for line in lines:
            for text in line.wrong:
                print(f"  {line.phase}: {text}", flush=True)
    print(f"all: {_figures(found)}")
    print(*failed, sep="\n")
    return 1 if failed or any(line.wrong for line in found) else 0


def _worked(name, count, seed):
    """Run one scenario in a process of its own: what landed there, and its exit code."""
    with tempfile.TemporaryDirectory(prefix="mlchaos-interrupts-") as folder:
        command = [
            sys.executable,
            __file__,
            "--seed",
            str(seed),
            "--worker",
            name,
            str(count),
            folder,
        ]
        environment = {**os.environ, MARK: secrets.token_hex(8)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    return [
        Landed(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")
    ], done.returncode


def _figures(lines):
    phases = collections.Counter(line.phase for line in lines if line.signals)
    told = ", ".join(f"{phases[phase]} {phase}" for phase in PHASES if phases[phase])
    more = sum(line.signals > 1 for line in lines)
    wrong = sum(bool(line.wrong) for line in lines)
    return f"{sum(phases.values())} interrupts ({told}; {more} of them two or three in a row): {wrong} left something or ended wrongly"


if __name__ == "__main__":
    sys.exit(main())

"""Judge pairs of programs: each gets an ordinary test, and its twin must get the opposite verdict.

All tests of an environment run in one pytest session.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from environments import ROOT, Interpreter, NotBuilt, build, group
from program import BadProgram
from twins import Twin

__all__ = ["Verdict", "arguments", "judge", "main", "problem"]

ENVIRONMENTS = ROOT / ".nox" / "corpus-environments"
NOT_THE_PROGRAM = (
    "BadArgument",
    "BrokenTest",
    "FaultError",
    "MlchaosError",
    "NeverStruck",
    "NonDeterministicSubject",
    "Vacuous",
)
"""Errors that say nothing about a program."""

HOOKS = """
import json
import sys
import time
import pytest

spent = dict()

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    start = time.process_time()
    try:
        return (yield)
    finally:
        spent[item.nodeid] = time.process_time() - start

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # as if each program was a project of its own
    own = item.module.__name__, item.module.__name__.removeprefix("test_")
    names = [name for name in {modules!r} if name in sys.modules and name not in own]
    hidden = [(name, sys.modules.pop(name)) for name in names]
    try:
        return (yield)
    finally:
        sys.modules.update(hidden)

def pytest_runtest_logreport(report):
    if report.when == "call" or report.failed:
        seconds = spent.get(report.nodeid, 0.0)
        with open({results!r}, "a") as file:
            json.dump([report.nodeid, report.outcome, seconds, report.longreprtext], file)
            file.write("\\n")
"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a program's test."""

    outcome: str
    """``passed``, ``failed``, or ``none`` if the test did not report."""
    seconds: float = 0.0
    """The seconds of CPU time of this process, because machines are shared."""
    text: str = ""

    @property
    def error(self) -> str:
        """Return the class of the error."""
        found = re.findall(r"^(?:E +)?pytest_mlchaos\.errors\.(\w+)", self.text, re.MULTILINE)
        return found[0] if found else ""

    @property
    def faults(self) -> tuple[str, ...]:
        """Return the names of the faults in the reported schedule."""
        found = re.search(r"reproduce: ((?:@chaos\..*\n?(?:E +)?)+)", self.text)
        return tuple(re.findall(r"@chaos\.(\w+)", found[1])) if found else ()


def problem(twin: Twin, verdict: Verdict) -> str:
    """Return in words what is not as expected, or an empty text."""
    if verdict.outcome == "none":
        return "its test did not report"
    if twin.sound:
        return "" if verdict.outcome == "passed" else "it is sound, but its test failed"
    if verdict.outcome != "failed":
        return "it is unsound, but its test passed"
    if not verdict.error or verdict.error in NOT_THE_PROGRAM:
        return f"it failed by {verdict.error or 'an error of its own'}, not by its assertion"
    return twin.problem_of(verdict.error, verdict.faults)


def judge(twins: Sequence[Twin], interpreter: Interpreter, timeout: float) -> dict[str, Verdict]:
    """Run the tests of these twins in one session."""
    with tempfile.TemporaryDirectory(prefix="corpus-twins-") as name:
        folder = Path(name)
        results = folder / "results.jsonl"
        for helper in twins[0].folder.parent.glob("*.py"):
            shutil.copy(helper, folder)
        for twin in twins:
            _write_test(twin, folder)
        modules = [f"{prefix}{twin.module}" for twin in twins for prefix in ("", "test_")]
        (folder / "conftest.py").write_text(HOOKS.format(results=str(results), modules=modules))
        (folder / "pytest.ini").write_text("[pytest]\nfaulthandler_timeout = 120\n")
        output = _run(interpreter, folder, timeout)
        if not results.exists():
            print(output[-4000:], file=sys.stderr)
            return {}
        found = map(json.loads, results.read_text().splitlines())
        verdicts = {
            nodeid.partition("::")[0]: Verdict(outcome, seconds, text)
            for nodeid, outcome, seconds, text in found
        }
        if len(verdicts) < len(twins):
            print(output[-4000:], file=sys.stderr)
        return {
            twin.name: verdicts[f"test_{twin.module}.py"]
            for twin in twins
            if f"test_{twin.module}.py" in verdicts
        }


def _write_test(twin: Twin, folder: Path) -> None:
    shutil.copy(twin.folder / "subject.py", folder / f"{twin.module}.py")
    (folder / f"test_{twin.module}.py").write_text(twin.test())


def _run(interpreter: Interpreter, folder: Path, timeout: float) -> str:
    command = [interpreter.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--basetemp", folder / "tmp", "--tb", "short", "--continue-on-collection-errors"]
    environ = {"OMP_NUM_THREADS": "1", **os.environ}
    if not interpreter.has_plugin:
        command += ["-p", "pytest_mlchaos.plugin"]
        environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (environ.get("PYTHONPATH"), str(ROOT)))
        )
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            timeout=timeout,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired as error:
        return f"{error.output or ''}\nended after {timeout:g} s"
    return done.stdout


def located(
    twins: Sequence[Twin], python: Path | None, environments: Path
) -> Iterator[tuple[list[Twin], Interpreter]]:
    """Yield the twins of each environment, and its Python."""
    if python is not None:
        here = Interpreter.at(python.absolute())
        for twin in twins:
            if missing := [each.text for each in twin.requires if not here.has(each)]:
                print(f"{twin.name}: left out, {python} has no {', '.join(missing)}")
        yield [twin for twin in twins if here.suits(twin)], here
        return
    for environment in group(twins):
        print(f"environment {environment.name}: {' '.join(environment.requires)}", flush=True)
        yield list(environment.programs), build(environment, environments)


def line(twin: Twin, verdict: Verdict) -> str:
    """Return a row of the table."""
    kind = "sound" if twin.sound else "unsound"
    faults = ", ".join(verdict.faults) or "-"
    end = "WRONG" if problem(twin, verdict) else "OK"
    return (
        f"{twin.name:<32} {kind:<8} {twin.area:<17} "
        f"{verdict.outcome:<7} {verdict.error or '-':<24} {faults:<24} {verdict.seconds:>6.1f}  {end}"
    )


def summary(results: Sequence[tuple[Twin, Verdict]], areas: Sequence[str], seconds: float) -> str:
    """Return recall and false alarms, for each area and for all."""
    lines = []
    for area in (*areas, "all"):
        within = [pair for pair in results if area in (pair[0].area, "all")]
        wrong = Counter(twin.sound for twin, verdict in within if problem(twin, verdict))
        of = Counter(twin.sound for twin, _ in within)
        lines.append(
            f"{area:<18} {of[False] - wrong[False]:>3} of {of[False]:>3} unsound found, "
            f"{wrong[True]:>3} of {of[True]:>3} sound wrong"
        )
    libraries = {each.name for twin, _ in results for each in twin.requires}
    lines.append(f"{len(results)} programs over {len(libraries)} libraries, {seconds:.0f} s")
    return "\n".join(lines)


def arguments(description: str | None, folder: Path) -> argparse.ArgumentParser:
    """Return the command line of a judge."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="names of programs, * allowed")
    parser.add_argument("--folder", type=Path, default=folder, help="where the programs are")
    parser.add_argument(
        "--python", type=Path, help="an interpreter to use instead of building environments"
    )
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where environments are kept"
    )
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one session")
    parser.add_argument("--report", action="store_true", help="print each failure in full")
    return parser


def main(
    options: argparse.Namespace, chosen: Callable[[], Sequence[Twin]], areas: Sequence[str]
) -> int:
    """Run, print, compare. Return the exit code."""
    started = time.perf_counter()
    results = []
    try:
        twins = chosen()
        for members, interpreter in located(twins, options.python, options.environments):
            verdicts = judge(members, interpreter, options.timeout)
            results += [(twin, verdicts.get(twin.name, Verdict("none"))) for twin in members]
    except (BadProgram, NotBuilt) as error:
        print(error, file=sys.stderr)
        return 2
    for twin, verdict in results:
        print(line(twin, verdict))
    for twin, verdict in results:
        said = problem(twin, verdict)
        if said or options.report:
            print(f"\n{twin.name}: {said or 'as expected'}\n{verdict.text}")
    print(summary(results, areas, time.perf_counter() - started))
    return int(not results or any(problem(*pair) for pair in results))

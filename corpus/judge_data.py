"""``python corpus/judge_data.py [NAME ...]``: ask each pipeline in ``corpus/data`` if it survives bad data or bad storage.

Each pipeline gets an ordinary test with one decorator and one assertion. All tests of an environment run in one pytest session.
An unsound pipeline must fail by its assertion, and the reported schedule must have a fault that its ``expected.toml`` names.
A sound one must pass. The exit code is 1 if one is judged wrong.
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
from collections.abc import Iterator, Sequence
from pathlib import Path

from environments import ROOT, Interpreter, NotBuilt, build, group
from pipeline import AREAS, Pipeline, chosen
from program import BadProgram

FOLDER = ROOT / "corpus" / "data"
ENVIRONMENTS = ROOT / ".nox" / "corpus-environments"
NO_FAULT = "no fault"
"""``find`` of a pipeline that fails when its input changes, in the trial without faults."""
NOT_THE_PROGRAM = (
    "BadArgument",
    "BrokenTest",
    "FaultError",
    "MlchaosError",
    "NeverStruck",
    "NonDeterministicSubject",
    "Vacuous",
)
"""Errors that say nothing about a pipeline."""

TEST = """
import types
import pytest
from pytest_mlchaos import chaos
import {module} as subject

@pytest.fixture
def workdir(tmp_path):
    made = subject.prepare(tmp_path)
    if isinstance(made, types.GeneratorType):
        next(made)
    yield tmp_path
    if isinstance(made, types.GeneratorType):
        next(made, None)

@chaos.{decorator}({keywords})
def test_pipeline(mlchaos, workdir):
{first}    run = mlchaos.pipeline(subject.{entry}, workdir)
{judgements}
"""
HOOKS = """
import json

def pytest_runtest_logreport(report):
    if report.when == "call" or report.failed:
        with open({results!r}, "a") as file:
            json.dump([report.nodeid, report.outcome, report.duration, report.longreprtext], file)
            file.write("\\n")
"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a pipeline's test."""

    outcome: str
    """``passed``, ``failed``, or ``none`` if the test did not report."""
    seconds: float = 0.0
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


def problem(pipeline: Pipeline, verdict: Verdict) -> str:
    """Return in words what is not as expected, or an empty text."""
    if verdict.outcome == "none":
        return "its test did not report"
    if pipeline.sound:
        return "" if verdict.outcome == "passed" else "it is sound, but its test failed"
    if verdict.outcome != "failed":
        return "it is unsound, but its test passed"
    if not verdict.error or verdict.error in NOT_THE_PROGRAM:
        return f"it failed by {verdict.error or 'an error of its own'}, not by its assertion"
    if not set(verdict.faults or [NO_FAULT]) & set(pipeline.find):
        return f"the schedule has {', '.join(verdict.faults) or 'no fault'}, none of {', '.join(pipeline.find)}"
    return ""


def judge(
    pipelines: Sequence[Pipeline], interpreter: Interpreter, timeout: float
) -> dict[str, Verdict]:
    """Run the tests of these pipelines in one session."""
    with tempfile.TemporaryDirectory(prefix="corpus-data-") as name:
        folder = Path(name)
        results = folder / "results.jsonl"
        for helper in pipelines[0].folder.parent.glob("*.py"):
            shutil.copy(helper, folder)
        for pipeline in pipelines:
            _write_test(pipeline, folder)
        (folder / "conftest.py").write_text(HOOKS.format(results=str(results)))
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
        if len(verdicts) < len(pipelines):
            print(output[-4000:], file=sys.stderr)
        return {
            pipeline.name: verdicts[f"test_{pipeline.module}.py"]
            for pipeline in pipelines
            if f"test_{pipeline.module}.py" in verdicts
        }


def _write_test(pipeline: Pipeline, folder: Path) -> None:
    shutil.copy(pipeline.folder / "subject.py", folder / f"{pipeline.module}.py")
    keywords = ", ".join(
        f"{name}={value.replace('subject:', f'{pipeline.module}:')!r}"
        if isinstance(value, str)
        else f"{name}={value!r}"
        for name, value in pipeline.keywords
    )
    judgements = [f"run.{pipeline.assertion}"] if not pipeline.changed else []
    if pipeline.changed:
        changed = f"changed=lambda: subject.{pipeline.changed}(workdir)"
        judgements.append(f"run.again({changed}).{pipeline.assertion}")
    elif pipeline.again:
        judgements.append(f"run.again().{pipeline.assertion}")
    text = TEST.format(
        module=pipeline.module,
        decorator=pipeline.decorator,
        keywords=keywords,
        entry=pipeline.entry,
        first="    subject.URL = mlchaos.proxy(subject.URL)\n" if pipeline.proxy else "",
        judgements="\n".join(f"    {line}" for line in judgements),
    )
    (folder / f"test_{pipeline.module}.py").write_text(text)


def _run(interpreter: Interpreter, folder: Path, timeout: float) -> str:
    command = [interpreter.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--basetemp", folder / "tmp", "--tb", "short"]
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
    pipelines: Sequence[Pipeline], python: Path | None, environments: Path
) -> Iterator[tuple[list[Pipeline], Interpreter]]:
    """Yield the pipelines of each environment, and its Python."""
    if python is not None:
        here = Interpreter.at(python.absolute())
        for pipeline in pipelines:
            if missing := [each.text for each in pipeline.requires if not here.has(each)]:
                print(f"{pipeline.name}: left out, {python} has no {', '.join(missing)}")
        yield [pipeline for pipeline in pipelines if here.suits(pipeline)], here
        return
    for environment in group(pipelines):
        print(f"environment {environment.name}: {' '.join(environment.requires)}", flush=True)
        yield list(environment.programs), build(environment, environments)


def line(pipeline: Pipeline, verdict: Verdict) -> str:
    """Return a row of the table."""
    kind = "sound" if pipeline.sound else "unsound"
    faults = ", ".join(verdict.faults) or "-"
    end = "WRONG" if problem(pipeline, verdict) else "OK"
    return (
        f"{pipeline.name:<32} {kind:<8} {pipeline.area:<17} {pipeline.decorator:<12} "
        f"{verdict.outcome:<7} {verdict.error or '-':<24} {faults:<24} {verdict.seconds:>6.1f}  {end}"
    )


def summary(results: Sequence[tuple[Pipeline, Verdict]], seconds: float) -> str:
    """Return recall and false alarms, for each area and for all."""
    lines = []
    for area in (*AREAS, "all"):
        within = [pair for pair in results if area in (pair[0].area, "all")]
        wrong = Counter(
            pipeline.sound for pipeline, verdict in within if problem(pipeline, verdict)
        )
        of = Counter(pipeline.sound for pipeline, _ in within)
        lines.append(
            f"{area:<18} {of[False] - wrong[False]:>3} of {of[False]:>3} unsound found, "
            f"{wrong[True]:>3} of {of[True]:>3} sound wrong"
        )
    libraries = {each.name for pipeline, _ in results for each in pipeline.requires}
    lines.append(f"{len(results)} pipelines over {len(libraries)} libraries, {seconds:.0f} s")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="names of pipelines, * allowed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pipelines are")
    parser.add_argument(
        "--python", type=Path, help="an interpreter to use instead of building environments"
    )
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where environments are kept"
    )
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one session")
    parser.add_argument("--report", action="store_true", help="print each failure in full")
    return parser.parse_args()


def main() -> int:
    """Run, print, compare."""
    options = arguments()
    started = time.perf_counter()
    results = []
    try:
        pipelines = chosen(options.folder, options.names)
        for members, interpreter in located(pipelines, options.python, options.environments):
            verdicts = judge(members, interpreter, options.timeout)
            results += [
                (pipeline, verdicts.get(pipeline.name, Verdict("none"))) for pipeline in members
            ]
    except (BadProgram, NotBuilt) as error:
        print(error, file=sys.stderr)
        return 2
    for pipeline, verdict in results:
        print(line(pipeline, verdict))
    for pipeline, verdict in results:
        said = problem(pipeline, verdict)
        if said or options.report:
            print(f"\n{pipeline.name}: {said or 'as expected'}\n{verdict.text}")
    print(summary(results, time.perf_counter() - started))
    return int(not results or any(problem(*pair) for pair in results))


if __name__ == "__main__":
    raise SystemExit(main())

"""``python corpus/judge.py [FOLDER ...] [NAME ...]``: explore each program's crash states, and compare with its ``expected.toml``.

Without a folder: the programs of this repository, and those of ``../shared/corpus/train`` where that is there.
Each program runs in a pytest session of its own, in an environment that has what it requires. The exit code is 1 if one is judged wrong.

``--against-exhaustive`` explores each program twice: with the defaults, and with each state run to its end. It is judged wrong, too, if
the two differ in the verdict of a state, or in the causes that the reports name.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from environments import ROOT, Environment, Interpreter, NotBuilt, build, group
from program import BadProgram, Program, chosen
from verdict import Facts, differences, problems, unpaired

FOLDERS = (ROOT / "corpus" / "programs", ROOT.parent / "shared" / "corpus" / "train")
ENVIRONMENTS = ROOT / ".nox" / "corpus-environments"

SESSIONS: set[subprocess.Popen[bytes]] = set()
"""Those that run."""

Place: TypeAlias = tuple[Program, str, Interpreter | str]
"""A program, the name of its environment, and the Python there; or why there is none."""

TEST = """
import os
os.environ.update({env!r})
import json, sys
sys.path.insert(0, {folder!r})
import subject

def test_program(mlchaos, tmp_path):
    started = os.times().elapsed  # time.perf_counter() is the trial's clock here
    report = mlchaos.explore_crashes(subject.{entry}, tmp_path, *{args!r}{keywords})
    facts = dict(seconds=os.times().elapsed - started, states=int(getattr(report.states, "__len__", lambda: report.states)()),
                 steps=report.steps, max_lost_steps=report.max_lost_steps, report=str(report), outcomes=[], groups=[])
    examples = {{state.id for state in report.examples}}
    for outcome in report.outcomes:
        found = outcome.divergence
        if outcome.state.id in examples:
            facts["groups"].append((outcome.verdict, found.component if found else type(outcome.error).__name__))
        facts["outcomes"].append(dict(
            follows=outcome.follows, verified=outcome.verified, ended_early=outcome.ended_early,
            state=outcome.state.id, verdict=outcome.verdict, error=None if outcome.error is None else repr(outcome.error)[:2000],
            step=found and found.step, component=found and found.component, detail=found and str(found.detail)[:2000]))
    try:
        report.assert_recovers(max_lost_steps={max_lost_steps!r})
    except AssertionError as error:
        facts["not_recovered"] = str(error)
    with open({facts!r}, "w") as file:
        json.dump(facts, file)
"""


@dataclasses.dataclass(frozen=True)
class Judged:
    """One program's line of the table."""

    program: Program
    environment: str
    facts: Facts
    seconds: float
    """Of the whole pytest session."""
    exhaustive: Facts | None = None
    """The report with each state run to its end, if it was asked for."""

    @property
    def problems(self) -> list[str]:
        """Return the differences from what is expected, and from the exhaustive report."""
        found = problems(self.program, self.facts)
        return found + (differences(self.facts, self.exhaustive) if self.exhaustive else [])


@dataclasses.dataclass(frozen=True)
class Options:
    """How programs are explored."""

    timeout: float
    against_exhaustive: bool = False


def explore(
    program: Program, environment: str, interpreter: Interpreter, options: Options
) -> Judged:
    """One pytest session with default settings, and one that runs each state to its end."""
    started = time.perf_counter()
    facts = _facts(program, interpreter, options.timeout)
    seconds = time.perf_counter() - started
    exhaustive = None
    if options.against_exhaustive:
        exhaustive = _facts(program, interpreter, options.timeout, exhaustive=True)
    return Judged(program, environment, facts, seconds, exhaustive)


def _facts(
    program: Program, interpreter: Interpreter, timeout: float, *, exhaustive: bool = False
) -> Facts:
    """Return what a session reported, or why it did not report."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        return _facts_in(Path(folder), program, interpreter, timeout, exhaustive)


def _facts_in(
    folder: Path, program: Program, interpreter: Interpreter, timeout: float, exhaustive: bool
) -> Facts:
    said = folder / "facts.json"
    text = TEST.format(
        env=dict(program.env),
        folder=str(program.folder),
        entry=program.entry,
        args=program.args,
        keywords=", cross_device=True" * program.cross_device + ", exhaustive=True" * exhaustive,
        max_lost_steps=program.max_lost_steps,
        facts=str(said),
    )
    (folder / "test_program.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [
        interpreter.python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        folder / "tmp",
        "test_program.py",
    ]
    environ = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
    }  # tiny tensors: on a busy machine, threads that wait for each other take the time
    if not interpreter.has_plugin:
        command += ["-p", "pytest_mlchaos.plugin"]
        environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (environ.get("PYTHONPATH"), str(ROOT)))
        )
    output = _output(command, folder, environ, timeout)
    if not said.exists():
        return Facts(error=f"no report\n{output[-4000:]}")
    found = json.loads(said.read_text())
    found["groups"] = tuple(map(tuple, found["groups"]))
    return Facts(**found | {"outcomes": tuple(found["outcomes"])})


def _output(
    command: Sequence[str | Path], folder: Path, environ: dict[str, str], timeout: float
) -> str:
    """Return what a session printed. The session ends with all processes that it started."""
    with (folder / "output").open("w+b") as output:
        session = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        SESSIONS.add(session)
        try:
            session.wait(timeout)
            late = ""
        except subprocess.TimeoutExpired:
            late = f"\nended after {timeout:g} s"
        finally:
            _end(session)
            SESSIONS.discard(session)
        output.seek(0)
        return output.read().decode(errors="replace") + late


def _end(session: subprocess.Popen[bytes]) -> None:
    """It, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session.pid, signal.SIGKILL)
    session.wait()


def located(
    programs: Sequence[Program],
    everything: Sequence[Program],
    pythons: Sequence[Path],
    folder: Path,
    *,
    current: bool,
) -> Iterator[Place]:
    """Each program with the environment to run it in, or why there is none; environments are those of ``everything``."""
    if pythons:
        interpreters = [Interpreter.at(python) for python in pythons]
        for program in programs:
            found = next(
                (interpreter for interpreter in interpreters if interpreter.suits(program)), None
            )
            if found is None:
                print(
                    f"{program.name}: left out, no --python has {', '.join(each.text for each in program.requires)}"
                )
            else:
                yield program, found.python.parent.parent.name, found
        return
    for environment in group(everything):
        members = [program for program in environment.programs if program in programs]
        if members and (environment.current or not current):
            where = _built(environment, folder)
            yield from ((program, environment.name, where) for program in members)


def _built(environment: Environment, folder: Path) -> Interpreter | str:
    """The environment's Python, or what pip said."""
    print(
        f"environment {environment.name} ({len(environment.programs)} programs): {' '.join(environment.requires)}",
        flush=True,
    )
    try:
        return build(environment, folder)
    except NotBuilt as error:
        return f"environment {environment.name} cannot be built\n{error}"


def line(judged: Judged) -> str:
    """A row of the table."""
    facts = judged.facts
    lost = "-" if facts.max_lost_steps is None else facts.max_lost_steps
    verdicts = "no report" if facts.error else str(facts)
    end = "WRONG" if judged.problems else "OK"
    kind = "sound" if judged.program.sound else "unsound"
    start = f"{judged.program.name:<30} {kind:<8} {verdicts:<52} {facts.cause or '-':<18} {facts.states:>6} "
    if judged.exhaustive is None:
        middle = f"{facts.steps:>6} {lost:>5} {facts.seconds:>8.2f} {judged.seconds:>8.1f}"
    else:
        middle = (
            f"{facts.run:>5} {facts.skipped:>7} {facts.verified:>8} {facts.ended_early:>5}"
            f" {facts.seconds:>8.2f} {judged.exhaustive.seconds:>8.2f}"
        )
    return f"{start}{middle}  {judged.environment:<18} {end}"


def head(*, against_exhaustive: bool) -> str:
    """The first line of the table."""
    middle = f"{'steps':>6} {'lost':>5} {'s':>8} {'session s':>9}"
    if against_exhaustive:
        middle = f"{'run':>5} {'skipped':>7} {'verified':>8} {'early':>5} {'s':>8} {'s if all':>8} "
    return f"{'program':<30} {'it is':<8} {'verdicts':<52} {'first cause':<18} {'states':>6} {middle} {'environment':<18}"


def summary(results: Sequence[Judged]) -> str:
    """The details of what is wrong, and the totals."""
    parts = [
        f"\n{judged.program.name}: WRONG\n  " + "\n  ".join(judged.problems)
        for judged in results
        if judged.problems
    ]
    sound = [judged for judged in results if judged.program.sound]
    with_cause = [judged for judged in results if judged.program.cause]
    named = sum(judged.facts.cause in judged.program.cause for judged in with_cause)
    wrong = sum(bool(judged.problems) for judged in results)
    parts.append(
        f"\n{len(results)} programs, {len(results) - wrong} judged as expected, {wrong} wrong; "
        f"{sum(bool(judged.problems) for judged in sound)} of {len(sound)} sound ones flagged; "
        f"the cause is named for {named} of {len(with_cause)}"
    )
    parts += _against_exhaustive(results)
    return "\n".join(parts)


def _against_exhaustive(results: Sequence[Judged]) -> list[str]:
    """The totals of explorations that were compared with exhaustive ones."""
    pairs = [(judged.facts, judged.exhaustive) for judged in results if judged.exhaustive]
    if not pairs:
        return []
    different = sum(bool(differences(*pair)) for pair in pairs)
    alone = sum(unpaired(*pair) for pair in pairs)
    mine, theirs = [facts for facts, _ in pairs], [facts for _, facts in pairs]
    return [
        f"{different} differ if all is run; of {sum(facts.states for facts in mine)} states {sum(facts.run for facts in mine)} were run "
        f"({sum(facts.verified for facts in mine)} to check the others, {sum(facts.ended_early for facts in mine)} not to their end) "
        f"and {sum(facts.skipped for facts in mine)} skipped, {alone} occurred in one exploration alone; "
        f"{sum(facts.seconds for facts in mine):.1f} s, {sum(facts.seconds for facts in theirs):.1f} s if all is run"
    ]


def as_json(results: Sequence[Judged]) -> str:
    """All that is known, for tools."""
    return json.dumps(
        [
            dataclasses.asdict(judged.facts)
            | {
                "program": judged.program.name,
                "sound": judged.program.sound,
                "environment": judged.environment,
                "session_seconds": judged.seconds,
                "problems": judged.problems,
            }
            | ({"exhaustive": dataclasses.asdict(judged.exhaustive)} if judged.exhaustive else {})
            for judged in results
        ],
        indent=1,
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="*",
        help="folders (of programs, or a program's own), and names of programs, * allowed",
    )
    parser.add_argument(
        "--current",
        action="store_true",
        help="only programs whose pins are the newest in the corpus",
    )
    parser.add_argument(
        "--python",
        type=Path,
        action="append",
        default=[],
        help="an interpreter to use instead of building; repeatable",
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        help="where environments are built, and kept",
    )
    parser.add_argument("--jobs", type=int, default=1, help="programs at a time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one program")
    parser.add_argument(
        "--against-exhaustive",
        action="store_true",
        help="compare with explorations that run each state to its end",
    )
    parser.add_argument("--report", action="store_true", help="print each report in full")
    parser.add_argument("--json", type=Path, help="write all results there")
    return parser.parse_intermixed_args()


def main() -> int:
    """Run, print, compare."""
    options = arguments()
    folders = [Path(each) for each in options.what if Path(each).is_dir()]
    names = [each for each in options.what if not Path(each).is_dir()]
    try:
        everything = chosen(folders or [folder for folder in FOLDERS if folder.is_dir()])
        programs = chosen([program.folder for program in everything], names)
    except BadProgram as error:
        print(error, file=sys.stderr)
        return 2
    places = list(
        located(
            programs,
            everything,
            [python.absolute() for python in options.python],
            options.environments,
            current=options.current,
        )
    )
    print(head(against_exhaustive=options.against_exhaustive), flush=True)
    results = []
    how = Options(options.timeout, options.against_exhaustive)
    for judged in _all_judged(places, options.jobs, how):
        print(line(judged), flush=True)
        if options.report and judged.facts.report:
            print(judged.facts.report, flush=True)
        results.append(judged)
    print(summary(results))
    if options.json:
        options.json.write_text(as_json(results))
    return int(not results or any(judged.problems for judged in results))


def _all_judged(places: Sequence[Place], jobs: int, options: Options) -> Iterator[Judged]:
    """Yield the results in order. If the caller stops early, the running sessions end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(lambda place: _judged(place, options), places)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for session in list(SESSIONS):
            _end(session)


def _judged(place: Place, options: Options) -> Judged:
    """Explore, where there is an environment."""
    program, environment, interpreter = place
    if isinstance(interpreter, str):
        return Judged(program, environment, Facts(error=interpreter), 0.0)
    return explore(program, environment, interpreter, options)


if __name__ == "__main__":
    raise SystemExit(main())

"""Read journals (``python -m pytest_mlchaos report journal.jsonl``), approve tests, and run a
session on many workers.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from .cluster.api import run_session
from .cluster.options import RunOptions, add_options, read_options
from .errors import BadArgument, MlchaosError
from .reports.collector import write_journal
from .reports.coverage_table import coverage_rows
from .reports.fault_coverage import coverage_of
from .reports.guards import guards_of
from .reports.journal_reader import SessionLog, read_journals
from .reports.outputs import OUTPUTS, check_writable
from .reports.points import missed_points
from .reports.rows import summary_rows

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m pytest_mlchaos",
        description="Read journals, which pytest writes with --mlchaos-journal=FILE.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report", help="print a summary of journals, and write reports of them"
    )
    report.add_argument("journals", nargs="+", type=Path, metavar="JOURNAL")
    for output in OUTPUTS:
        flags = ["--html", "-o", "--output"] if output.name == "report" else [f"--{output.name}"]
        report.add_argument(*flags, dest=output.name, **output.arguments)
    merge = commands.add_parser(
        "merge", help="put several journals together, and give the verdict on all shards"
    )
    merge.add_argument("journals", nargs="+", type=Path, metavar="JOURNAL")
    merge.add_argument(
        "-o", "--output", metavar="FILE", help="the new journal. Without it, print the lines"
    )
    merge.add_argument(
        "--report", metavar="FILE", help="write the report without times, as JSON or as text"
    )
    checked = commands.add_parser(
        "verify", help="find what was changed in a folder of --mlchaos-evidence"
    )
    checked.add_argument("folder", type=Path, metavar="DIR")
    checked.add_argument(
        "--head",
        default="",
        metavar="HEX",
        help="the head that the session printed, or its first digits",
    )
    clauses = commands.add_parser(
        "clauses", help="print an example of the clauses for which tests are evidence"
    )
    clauses.add_argument("-o", "--output", metavar="FILE.toml", help="write it to a new file")
    approval = commands.add_parser(
        "approve", help="allow tests to inject their faults, if the policy asks for an approval"
    )
    approval.add_argument("tests", nargs="+", metavar="TEST", help="a node id or a path")
    approval.add_argument("--by", required=True, metavar="NAME", help="the person who approves")
    approval.add_argument("--until", required=True, metavar="DATE", help="the last day: 2027-01-31")
    run = commands.add_parser(
        "run",
        help="run one session of pytest on many workers",
        usage="%(prog)s [--on=ENGINE] [--workers=N] [...] [pytest's arguments]",
        allow_abbrev=False,
    )
    add_options(run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if given.command in OTHERS:
            given.pytest_arguments = rest
            return OTHERS[given.command](given)
        if given.command == "merge" and (code := _merge_shards(given)) is not None:
            return code
        session = read_journals(given.journals)
        if given.command == "report":
            _report(session, given)
        elif given.output is None:
            for line in session.lines():
                _print(line.text())
        else:
            check_writable("--output", given.output, "a file")
            write_journal(session, Path(given.output))
            _print(f"{given.output}: {len(session.tests)} tests of {len(given.journals)} journals")
    except (MlchaosError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    for problem in session.problems:
        sys.stderr.write(f"warning: {problem}\n")
    return 0


def _merge_shards(given: argparse.Namespace) -> int | None:
    """Merge journals of shards, and return the exit code, or None if no journal is of a shard."""
    from .merging.merge import merge_shards
    from .merging.report import facts_of, text_of, write_report

    for option, target in (("--output", given.output), ("--report", given.report)):
        if target is not None:
            check_writable(option, target, "a file")
    merged = merge_shards(given.journals)
    if given.report is not None:
        session = read_journals(given.journals) if merged is None else merged.session
        write_report(Path(given.report), session, merged)
    if merged is None:
        return None
    if given.output is not None:
        write_journal(merged.session, Path(given.output))
    for line in text_of(facts_of(merged.session, merged), states=False):
        _print(line)
    return merged.exit_code


def _report(session: SessionLog, given: argparse.Namespace) -> None:
    wanted = {
        output: vars(given)[output.name]
        for output in OUTPUTS
        if vars(given)[output.name] is not None
    }
    html = next((output for output in OUTPUTS if output.name == "report"), None)
    if not wanted and html is not None:
        wanted = {html: str(given.journals[0].with_suffix(".html"))}
    for output, target in wanted.items():
        output.check(f"--{'html' if output.name == 'report' else output.name}", target)
    for row in summary_rows(session):
        _print(row)
    for shard in session.shards:
        _print(f"shard {shard.shard}: no verdict by itself")
    for row in _coverage_rows(session):
        _print(row)
    for output, target in wanted.items():
        output.load().write(session, target)
        for line in output.lines(session, target):
            _print(line)
        _print(f"{output.name}: {target or 'done'}")


def _run(given: argparse.Namespace) -> int:
    return run_session(read_options(given, given.pytest_arguments), _join)


def _join(journals: Sequence[Path], options: RunOptions) -> int:
    """Merge the journals of a session's shards, and return the exit code."""
    output, report = (
        None if path is None else str(path) for path in (options.journal, options.report)
    )
    given = argparse.Namespace(journals=journals, output=output, report=report)
    code = _merge_shards(given)
    if code is None:
        raise BadArgument(
            "the workers have left no journal of a shard, and without one no verdict is possible"
        )
    return code


def _verify(given: argparse.Namespace) -> int:
    from .reports.evidence.verify import verify

    found = verify(given.folder, given.head)
    for problem in found.problems:
        _print(f"{given.folder}: {problem}")
    if not found.problems:
        _print(
            f"{given.folder}: {found.files} files with {found.lines} lines are as they were sealed. "
            f"Head: {found.head}"
        )
    return 1 if found.problems else 0


def _clauses(given: argparse.Namespace) -> int:
    from .reports.evidence.clauses import template

    if given.output is None:
        sys.stdout.write(template())
        return 0
    path = Path(given.output)
    if path.exists():
        raise BadArgument(f"{path} exists, and may have your clauses. Give a new name")
    check_writable("--output", given.output, "a file")
    path.write_text(template(), encoding="utf-8")
    _print(f"{path}: edit it, and name it in pyproject.toml: {PROJECT_LINES}")
    return 0


def _approve(given: argparse.Namespace) -> int:
    from .plugin.approve import approve

    return approve(given.tests, given.by, given.until)


OTHERS = {"approve": _approve, "run": _run, "verify": _verify, "clauses": _clauses}
"""The commands that do not read journals."""
PROJECT_LINES = '[tool.mlchaos.evidence] clauses = ["..."]'


def _coverage_rows(session: SessionLog) -> list[str]:
    """Return the fault coverage, if it was measured, and the points that no trial reached."""
    coverage, width = coverage_of(session), shutil.get_terminal_size().columns
    rows = coverage_rows(coverage, guards_of(session), width=width) if coverage.points else []
    return [*(row.text for row in rows), *map(str, missed_points(session))]


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())

"""Write the fault coverage of the session, and fail the session if it is too low.

It also reports the points (``mlchaos.reachable``, ``mlchaos.sometimes``) that no trial reached.
Each pytest session loads this file, so it imports little.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..core.entries import Line, Point
    from ..reports.fault_coverage import FaultCoverage
    from ..reports.journal_reader import SessionLog
    from ..reports.points import MissedPoint

__all__ = [
    "CoverageReport",
    "add_options",
    "configure",
    "find_modules",
    "measures_coverage",
    "points_declared",
    "texts_of_points",
]

NAME = "mlchaos-coverage"
MOST_POINTS = 20
_OPTIONS = (
    ("cov", "measure which faults were tried where, and what was never tried", "bool"),
    (
        "cov_fail_under",
        "fail the session if the fault coverage is below this percentage",
        "string",
    ),
    (
        "require_points",
        "fail the session if no trial reached a point (mlchaos.reachable, mlchaos.sometimes)",
        "bool",
    ),
)
_modules: pytest.StashKey[list[str]] = pytest.StashKey()


def add_options(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    """Add the options, each on the command line and in the ini file."""
    for name, text, kind in _OPTIONS:
        option = f"--mlchaos-{name.replace('_', '-')}"
        how: dict[str, Any] = (
            {"action": "store_true", "default": None} if kind == "bool" else {"metavar": "PERCENT"}
        )
        group.addoption(option, dest=f"mlchaos_{name}", help=text, **how)
        parser.addini(f"mlchaos_{name}", f"{text} (as {option})", kind)  # type: ignore[arg-type]


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"mlchaos_{name}")
    return config.getini(f"mlchaos_{name}") if given is None else given


def measures_coverage(config: pytest.Config) -> bool:
    """Return True if the session measures its fault coverage."""
    return _is_wanted(config) and not config.getoption("mlchaos_off")


def _is_wanted(config: pytest.Config) -> bool:
    return bool(_option(config, "cov") or _option(config, "cov_fail_under") not in (None, ""))


def configure(config: pytest.Config) -> None:
    """Check the options, and register the report. Workers of xdist make none."""
    limit = _percent(_option(config, "cov_fail_under"))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(CoverageReport(config, limit), NAME)


def _percent(given: object) -> float | None:
    """Return a percentage that was given as text, or None for none."""
    if given in (None, ""):
        return None
    try:
        number = float(str(given).removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise pytest.UsageError(
            "mlchaos: --mlchaos-cov-fail-under must be a percentage from 0 to 100, got "
            f"{str(given)!r}. For example: --mlchaos-cov-fail-under=80"
        )
    return number


# -- points ----------------------------------------------------------------------------------------


def find_modules(config: pytest.Config) -> None:
    """Keep the files of the modules that are imported now, after the collection of the tests.

    Each worker of xdist has imported the same ones by now.
    """
    if _modules not in config.stash:
        files = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
        config.stash[_modules] = sorted(
            {file for file in files if isinstance(file, str) and "site-packages" not in file}
        )


def points_declared(item: pytest.Item) -> list[Point]:
    """Return the points that the files of the project declare. Call it while the test runs."""
    from ..core.declared_points import declared_points
    from ..engine.user_code import current_project, is_users

    if item.config.getoption("mlchaos_off"):
        return []
    found: list[Point] = []
    # A session inside a test has a different project.
    folders = tuple(f"{folder}{os.sep}" for folder in current_project().folders)
    for file in item.config.stash.get(_modules, []):
        if not is_users(file) or (folders and not file.startswith(folders)):
            continue
        if file not in _declared:
            _declared[file] = declared_points(_read(file), file)
        found += _declared[file]
    return found


_declared: dict[str, list[Point]] = {}
"""The points by file. A session inside a test has files of its own."""


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def texts_of_points(lines: Iterable[Line]) -> list[str]:
    """Return the lines about points as text, for a session that wants no other lines."""
    return [line.text() for line in lines if line.entry.kind == "point"]


# -- the end of the session ------------------------------------------------------------------------


class CoverageReport:
    """Write the fault coverage and the missed points at the end of the session.

    Args:
        config: The configuration of pytest.
        fail_under: The percentage below which the session fails, or None.
    """

    def __init__(self, config: pytest.Config, fail_under: float | None) -> None:
        self._config = config
        self._fail_under = fail_under
        self._points: list[str] = []
        self._missed: list[MissedPoint] = []
        self._coverage: FaultCoverage | None = None
        self._problems: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        """Keep the points of a report. xdist sends them from its workers."""
        self._points += getattr(report, "mlchaos_points", None) or ()

    @pytest.hookimpl(trylast=True)  # after xdist has received the last reports of its workers
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Read what was collected. Fail the session if it is not enough."""
        if self._points and not self._config.getoption("mlchaos_off"):
            self._read_points()
        log = self._log()
        if log is not None:
            from ..reports.fault_coverage import coverage_of

            self._coverage = coverage_of(log)
            limit, found = self._fail_under, self._coverage
            if limit is not None and found.points and found.percent < limit:
                self._problems.append(
                    f"FAIL mlchaos: the fault coverage is {found.shown_percent} %, and "
                    f"--mlchaos-cov-fail-under asks for {limit:g} %"
                )
        if self._config.getoption("mlchaos_shard") is not None:
            self._problems = []  # the other shards may cover the rest: merging judges that
        if self._problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _log(self) -> SessionLog | None:
        """Return what was collected, if the fault coverage is wanted."""
        if not measures_coverage(self._config):
            return None
        collector = self._config.pluginmanager.get_plugin("mlchaos-collector")
        found: SessionLog | None = None if collector is None else collector.session()
        return found

    def _read_points(self) -> None:
        from ..core.entries import parse_line
        from ..reports.journal_reader import session_of
        from ..reports.points import missed_points

        lines = (parse_line(text) for text in self._points)
        self._missed = missed_points(session_of(line for line in lines if line is not None))
        if self._missed and _option(self._config, "require_points"):
            self._problems.append("FAIL mlchaos: some points were missed (mlchaos_require_points)")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the table, the missed points, and why the session fails."""
        verbosity = terminalreporter.verbosity
        if self._coverage is not None and verbosity >= -1:
            self._write_coverage(terminalreporter, self._coverage)
        elif verbosity >= -1 and self._coverage is None and _is_wanted(self._config):
            terminalreporter.write_line("fault coverage: not measured, because of --mlchaos-off")
        self._write_missed(terminalreporter)
        for problem in self._problems:
            terminalreporter.write_line(problem, red=True, bold=True)

    def _write_missed(self, terminalreporter: Any) -> None:
        most = MOST_POINTS if terminalreporter.verbosity <= 0 else len(self._missed)
        for point in self._missed[:most]:
            terminalreporter.write_line(f"mlchaos: {point}", yellow=True)
        if len(self._missed) > most:
            left = len(self._missed) - most
            terminalreporter.write_line(f"mlchaos: ... and {left} more points (-v shows all)")
        if self._missed and (left_out := len(terminalreporter.stats.get("deselected", ()))):
            terminalreporter.write_line(
                f"mlchaos: {left_out} tests were not selected, and may reach these points"
            )

    def _write_coverage(self, terminalreporter: Any, coverage: FaultCoverage) -> None:
        from ..reports.coverage_table import coverage_rows
        from ..reports.guards import guards_of

        log = self._log()
        if not coverage.points or log is None:
            terminalreporter.write_line(
                "fault coverage: nothing was measured, because no chaos test ran"
            )
            return
        verbosity = terminalreporter.verbosity
        # The writer knows the width with COLUMNS and without a terminal.
        rows = coverage_rows(
            coverage,
            guards_of(log),
            width=terminalreporter._tw.fullwidth,
            everything=verbosity > 0,
        )
        if verbosity < 0:
            rows = rows[-1:]
        else:
            terminalreporter.write_sep("-", "mlchaos fault coverage")
        for row in rows:
            terminalreporter.write_line(row.text, **({row.colour: True} if row.colour else {}))

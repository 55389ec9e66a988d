"""Write the fault coverage of the session, and fail the session if it is too low.

It also reports the points (``mlchaos.reachable``, ``mlchaos.sometimes``) that no trial reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from ..core.validation import format_value
from ..errors import BadArgument
from ..reports.coverage_table import coverage_rows
from ..reports.fault_coverage import FaultCoverage, coverage_of
from ..reports.guards import guards_of
from ..reports.journal_reader import SessionLog
from ..reports.points import MissedPoint, missed_points

__all__ = ["CoverageReport", "parse_percent"]

MOST_POINTS = 20


def parse_percent(value: object) -> float | None:
    """Return a percentage that was given as text, or None for none.

    Raises:
        BadArgument: It is not a number from 0 to 100.
    """
    if value in (None, ""):
        return None
    try:
        number = float(str(value).removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 100:
        raise BadArgument(
            f"--mlchaos-cov-fail-under must be a number from 0 to 100, got {format_value(value)}"
        )
    return number


class CoverageReport:
    """Write the fault coverage at the end of the session.

    Args:
        session: A function that returns what was collected.
        wanted: True to write the fault coverage.
        fail_under: The percentage below which the session fails, or None.
        require_points: True to fail the session if a point was missed.
        off: True if faults were switched off.
    """

    def __init__(
        self,
        session: Callable[[], SessionLog],
        *,
        wanted: bool,
        fail_under: float | None,
        require_points: bool,
        off: bool,
    ) -> None:
        self._session = session
        self._wanted = wanted and not off
        self._fail_under = fail_under
        self._require_points = require_points
        self._off = off
        self._off_notice = wanted and off
        self._missed: list[MissedPoint] = []
        self._coverage = FaultCoverage()
        self._problems: list[str] = []

    @pytest.hookimpl(trylast=True)  # after xdist has received the reports of its workers
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Read what was collected. Fail the session if it is not enough."""
        log = self._session()
        if not log.tests or self._off:
            return
        self._missed = missed_points(log)
        self._coverage = coverage_of(log) if self._wanted else self._coverage
        if self._require_points and self._missed:
            self._problems.append("FAIL mlchaos_require_points: some points were missed")
        limit = self._fail_under
        if limit is not None and self._coverage.points and self._coverage.percent < limit:
            self._problems.append(
                f"FAIL --mlchaos-cov-fail-under={limit:g}: the fault coverage is only "
                f"{self._coverage.shown_percent} %"
            )
        if self._problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the table, the missed points, and why the session fails."""
        verbosity = terminalreporter.verbosity
        if self._off_notice and verbosity >= 0:
            terminalreporter.write_line("fault coverage: not measured, because of --mlchaos-off")
        if self._wanted and verbosity >= -1:
            self._write_coverage(terminalreporter, brief=verbosity < 0)
        if verbosity >= 0:
            for point in self._missed[:MOST_POINTS]:
                terminalreporter.write_line(f"mlchaos: {point}", yellow=True)
        left = len(self._missed) - (MOST_POINTS if verbosity >= 0 else 0)
        if left > 0:
            terminalreporter.write_line(f"mlchaos: {left} {_more(verbosity)}points were missed")
        for problem in self._problems:
            terminalreporter.write_line(problem, red=True, bold=True)

    def _write_coverage(self, terminalreporter: Any, *, brief: bool) -> None:
        log = self._session()
        if not self._coverage.points:
            terminalreporter.write_line("fault coverage: no chaos test ran, so nothing was measured")
            return
        width = terminalreporter._tw.fullwidth  # the only source that knows --color and COLUMNS
        rows = coverage_rows(
            self._coverage,
            guards_of(log),
            width=width,
            everything=terminalreporter.verbosity > 0,
        )
        if brief:
            rows = rows[-1:]
        else:
            terminalreporter.write_sep("-", "mlchaos fault coverage")
        for row in rows:
            terminalreporter.write_line(row.text, **({row.colour: True} if row.colour else {}))


def _more(verbosity: int) -> str:
    return "more " if verbosity >= 0 else ""

"""Write at the end of the session which monitor has seen which fault, and the breaking points.

Each pytest session loads this file, so it imports little.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from ..core.entries import Line

__all__ = ["DetectionReport", "add_options", "texts_of_detections"]


BASELINES = ".mlchaos/baselines.json"
KINDS = ("detection", "breaking_point")


def add_options(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    """Add the options of the baselines."""
    group.addoption(
        "--mlchaos-update-baselines",
        dest="mlchaos_update_baselines",
        action="store_true",
        help="write the breaking points of this session as the new baselines",
    )
    parser.addini(
        "mlchaos_baselines",
        "the file of the baselines of breaking points, relative to the root directory",
        default=BASELINES,
    )


def texts_of_detections(lines: Iterable[Line]) -> list[str]:
    """Return the lines about watched alerts and breaking points as text.

    The session may want no other lines.
    """
    return [line.text() for line in lines if line.entry.kind in KINDS]


class DetectionReport:
    """Collect what alerts have seen, and what subjects survive. xdist sends it from its workers."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        """Keep the lines of a test."""
        self._lines += getattr(report, "mlchaos_detections", None) or ()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write a table of each. ``-q`` leaves them out."""
        if not self._lines or terminalreporter.verbosity < 0:
            return
        from ..core.entries import parse_line
        from ..reports.breaking_points import describe_breaking_points
        from ..reports.detections import describe_sights, sights_of
        from ..reports.journal_reader import session_of

        lines = (parse_line(text) for text in self._lines)
        session = session_of(line for line in lines if line is not None)
        tables = {
            "which monitor has seen which fault": describe_sights(sights_of(session)),
            "breaking points": describe_breaking_points(session),
        }
        for title, table in tables.items():
            rows = list(table)
            if rows:
                terminalreporter.write_line(f"mlchaos: {title}")
            for text, colour in rows:
                terminalreporter.write_line(text, **({colour: True} if colour else {}))

"""Write at the end of the session which monitor has seen which fault.

Each pytest session loads this file, so it imports little.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.entries import Line

__all__ = ["DetectionReport", "texts_of_detections"]


def texts_of_detections(lines: Iterable[Line]) -> list[str]:
    """Return the lines about watched alerts as text, for a session that wants no other lines."""
    return [line.text() for line in lines if line.entry.kind == "detection"]


class DetectionReport:
    """Collect what the watched alerts have seen. xdist sends it from its workers."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        """Keep the lines of a test."""
        self._lines += getattr(report, "mlchaos_detections", None) or ()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the table of faults and monitors. ``-q`` leaves it out."""
        if not self._lines or terminalreporter.verbosity < 0:
            return
        from ..core.entries import parse_line
        from ..reports.detections import describe_sights, sights_of
        from ..reports.journal_reader import session_of

        lines = (parse_line(text) for text in self._lines)
        rows = list(
            describe_sights(sights_of(session_of(line for line in lines if line is not None)))
        )
        if rows:
            terminalreporter.write_line("mlchaos: which monitor has seen which fault")
        for text, colour in rows:
            terminalreporter.write_line(text, **({colour: True} if colour else {}))

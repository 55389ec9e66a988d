"""Write ``--mlchaos-journal=FILE``: the strikes of all tests as JSON lines."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["JournalFile"]


class JournalFile:
    """Collect the journals from the reports, and write them sorted by test.

    The file has the same bytes for any order of the tests and any number of workers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        self._lines: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: object) -> None:
        """Keep the journal of a report."""
        lines = getattr(report, "mlchaos_journal", None)
        if lines:
            self._lines.setdefault(str(getattr(report, "nodeid", "")), []).extend(lines)

    def pytest_sessionfinish(self) -> None:
        """Write the file, also after Ctrl-C."""
        text = "".join(
            f"{line}\n" for nodeid in sorted(self._lines) for line in self._lines[nodeid]
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(text, encoding="utf-8")

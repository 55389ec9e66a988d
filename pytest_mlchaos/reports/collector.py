"""Collect the entries of all tests, and write the journal and every other output from them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..core.entries import Line, Progress, Test, Timing, parse_line
from ..errors import MlchaosError
from .journal_reader import SessionLog, session_of, timings_path
from .outputs import Output

__all__ = ["Collector", "write_journal"]

NOT_RUN = "not run: the session ended before it"


class Collector:
    """Collect the entries from the reports of tests.

    While the session runs, the journal grows line by line, so that a killed session leaves one. At
    the end it is written again, sorted by test: it has the same bytes for any order of the tests
    and any number of workers.

    Args:
        journal: The path of the journal, or None if none is wanted.
        outputs: The other outputs, with their targets.
    """

    def __init__(self, journal: str | None, outputs: Mapping[Output, str]) -> None:
        self._journal = None if journal is None else Path(journal).absolute()
        self._outputs = outputs
        self._lines: dict[str, list[Line]] = {}
        self._grown: dict[str, int] = {}
        self._files: list[TextIO] = []
        self.problems: list[str] = []
        self._told: list[str] = []
        self._selected: dict[str, None] = {}
        self._uncollected: list[str] = []
        self._tail: Callable[[int], Line] | None = None
        if self._journal is not None:
            paths = (self._journal, timings_path(self._journal))
            self._files = [_opened(path) for path in paths]

    def of_shard(self, head: Line, tail: Callable[[int], Line]) -> None:
        """Let the journal be that of a shard.

        Args:
            head: The first line of the growing journal.
            tail: Return the last line of the written one, from the number of the others.
        """
        self._tail = tail
        self._append(head)

    def grow(self, line: Line) -> None:
        """Append a line to the growing journal. Its test is still running, in this process."""
        self._grown[line.test] = self._grown.get(line.test, 0) + 1
        self._append(line)

    def note(self, line: Line) -> None:
        """Append a line to the growing journal alone: how far a running test is."""
        self._append(line)

    def add(self, lines: Iterable[Line]) -> None:
        """Add the lines of a test that has ended."""
        for line in lines:
            self._lines.setdefault(line.test, []).append(line)
            grown = self._grown.get(line.test, 0)
            if grown:
                self._grown[line.test] = grown - 1
            else:
                self._append(line)

    def _append(self, line: Line) -> None:
        if self._files:
            # A full disk must not fail a test. The end of the session reports it.
            with contextlib.suppress(OSError, ValueError):
                self._files[_is_timed(line)].write(f"{line.text()}\n")

    def select(self, nodeids: Iterable[str]) -> None:
        """Note the chaos tests that the session is to run."""
        self._selected |= dict.fromkeys(nodeids)

    def session(self) -> SessionLog:
        """Return what was collected so far."""
        lines = (line for lines in self._lines.values() for line in lines)
        return session_of(lines, self._uncollected)

    # -- pytest's hooks ----------------------------------------------------------------------------

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file whose tests are missing."""
        if report.failed:
            self._uncollected.append(f"{report.nodeid}: the tests could not be collected")

    def pytest_runtest_logreport(self, report: object) -> None:
        """Add the lines of a report. xdist sends them from its workers."""
        self.select(getattr(report, "mlchaos_selected", None) or ())
        lines = getattr(report, "mlchaos_lines", None) or ()
        self.add(line for text in lines if (line := parse_line(text)) is not None)

    def pytest_sessionfinish(self) -> None:
        """Write everything, also after Ctrl-C."""
        for nodeid in self._selected.keys() - self._lines.keys():
            # As after Ctrl-C and with -x. A reader must not take the others for all tests.
            end = Test(outcome="skipped", file=nodeid.partition("::")[0], message=NOT_RUN)
            self.add([Line(nodeid, 0, end)])
        session = self.session()
        for file in self._files:
            with contextlib.suppress(OSError):
                file.close()
        if self._journal is not None:
            self._try(
                "--mlchaos-journal", lambda: write_journal(session, self._journal, self._tail)
            )
        for output, target in self._outputs.items():
            self._try(output.option, lambda o=output, t=target: o.load().write(session, t))
            self._try(
                output.option, lambda o=output, t=target: self._told.extend(o.lines(session, t))
            )

    def _try(self, option: str, write: Any) -> None:
        try:
            write()
        except (OSError, MlchaosError) as error:
            self.problems.append(f"{option}: the output was not written: {error}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the lines of the outputs, and say what could not be written."""
        for line in self._told:
            terminalreporter.write_line(line)
        for problem in self.problems:
            terminalreporter.write_line(f"mlchaos: {problem}", red=True)


def _opened(path: Path) -> TextIO:
    # Line by line, so that a killed session loses at most half a line.
    return path.open("w", encoding="utf-8", buffering=1)


def write_journal(
    session: SessionLog, path: Path | None, tail: Callable[[int], Line] | None = None
) -> None:
    """Write the lines of a session, and its timings next to them.

    Args:
        session: The session.
        path: The path of the journal.
        tail: Return the last line of the journal, from the number of the others.
    """
    assert path is not None
    if path.exists() and not path.is_file():
        path.write_text("".join(_texts(session, tail, timed=False)))  # never replace a device
        return
    for target, timed in ((path, False), (timings_path(path), True)):
        temporary = target.with_name(f"{target.name}.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(_texts(session, tail, timed=timed))
        os.replace(temporary, target)


def _texts(
    session: SessionLog, tail: Callable[[int], Line] | None, *, timed: bool
) -> Iterator[str]:
    count = 0
    for line in session.lines():
        if _is_timed(line) == timed and not isinstance(line.entry, Progress):
            yield f"{line.text()}\n"
            count += 1
    if tail is not None and not timed:
        yield f"{tail(count).text()}\n"


def _is_timed(line: Line) -> bool:
    return isinstance(line.entry, (Timing, Progress))

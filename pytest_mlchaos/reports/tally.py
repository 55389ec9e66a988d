"""Summarize a session: how many schedules were tried, so that you can trust a green run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Tally"]

SHOWN_TESTS = 5


class Tally:
    """Add up the figures of chaos tests from their reports. xdist sends these from its workers."""

    def __init__(self) -> None:
        self.tests = self.trials = self.strikes = self.real_clocks = 0
        self.untried: dict[str, list[str]] = {}
        self.rows: dict[str, list[Sequence[str]]] = {}
        self.interrupted: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        """Count one test."""
        found: Mapping[str, Any] | None = getattr(report, "mlchaos", None)
        if found:
            self.tests += 1
            self.rows.setdefault(getattr(report, "nodeid", ""), []).extend(found["rows"])
            self.trials += found["trials"]
            self.strikes += found["strikes"]
            self.real_clocks += found["real_clock"]
            if found["untried"]:
                self.untried[getattr(report, "nodeid", "")] = found["untried"]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write a row for each chaos test, the totals, and what was not tried.

        ``-q`` leaves the totals, and ``-qq`` nothing. What an interrupted test has found is always
        written, as pytest writes failures.
        """
        verbosity = terminalreporter.verbosity
        for text in self.interrupted:
            terminalreporter.write_line(text)
        if self.rows and verbosity >= 0:
            # import it here: each pytest session loads this module, and most have no chaos test
            from .rows import format_rows

            for line in format_rows(self.rows):
                terminalreporter.write_line(line)
        if self.tests and verbosity >= -1:
            real = (
                f" ({self.real_clocks} on the real clock, because threads or processes run beside "
                f"the test)"
                if self.real_clocks
                else ""
            )
            counts = zip(
                (self.tests, self.trials, self.strikes),
                ("chaos test", "trial", "fault"),
                strict=True,
            )
            told = ", ".join(
                f"{number} {thing}{'' if number == 1 else 's'}" for number, thing in counts
            )
            terminalreporter.write_line(f"mlchaos: {told} struck{real}")
        if verbosity < 0:
            return
        if self.untried:
            from .text import describe_not_tried

        for nodeid, positions in itertools.islice(self.untried.items(), SHOWN_TESTS):
            terminalreporter.write_line(
                f"mlchaos: not tried in {nodeid} (max_trials, budget): "
                f"{describe_not_tried(positions)}"
            )
        if len(self.untried) > SHOWN_TESTS:
            terminalreporter.write_line(
                f"mlchaos: not all positions were tried in {len(self.untried) - SHOWN_TESTS} more "
                f"tests"
            )

"""Summarize a session: how many schedules were tried, so that you can trust a green run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

__all__ = ["Tally"]

SHOWN_TESTS = 5


class Tally:
    """Add up the figures of chaos tests from their reports. xdist sends these from its workers."""

    def __init__(self) -> None:
        self.tests = self.trials = self.strikes = self.real_clocks = 0
        self.untried: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: object) -> None:
        """Count one test."""
        found: Mapping[str, Any] | None = getattr(report, "mlchaos", None)
        if found:
            self.tests += 1
            self.trials += found["trials"]
            self.strikes += found["strikes"]
            self.real_clocks += found["real_clock"]
            if found["untried"]:
                self.untried[getattr(report, "nodeid", "")] = found["untried"]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write one line if there was a chaos test, and one for each test with untried positions."""
        if self.tests:
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
        if self.untried:
            # import it here: each pytest session loads this module, and most have no chaos test
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

"""Approve tests: ``python -m pytest_mlchaos approve tests/test_x.py::test_y --by NAME --until DATE``.

The tests are collected, not run.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ..core.approvals import Approval, parse_until, write_approvals
from ..errors import BadArgument
from .policy import NAME
from .policy_session import DECISION, PolicySession

__all__ = ["approve"]


def approve(tests: Sequence[str], by: str, until: str) -> int:
    """Write approvals of tests to the file that their policy names. Return the exit code.

    Args:
        tests: Node ids or paths, as for pytest.
        by: The name of the person who approves them.
        until: The last day, as ``2027-01-31``.

    Raises:
        BadArgument: An argument is wrong, no test was found, or no policy asks for approvals.
    """
    last = parse_until("--until", until)
    if last < datetime.date.today():
        raise BadArgument(f"--until must not be in the past, got {last}")
    if not by.strip():
        raise BadArgument("--by must be the name of the person who approves, got an empty name")
    approver = Approver(by.strip(), last)
    quiet = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider"]
    loaded = [] if _loads_by_itself() else ["-p", "pytest_mlchaos.plugin"]
    code = pytest.main([*loaded, *quiet, "--", *tests], plugins=[approver])
    if approver.error is not None:
        raise approver.error
    return int(code)


def _loads_by_itself() -> bool:
    return not os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")


class Approver:
    """Write the approvals when pytest has collected the tests."""

    def __init__(self, by: str, until: datetime.date) -> None:
        self._by, self._until = by, until
        self._broken = False
        self.error: BadArgument | None = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Show why a file cannot be collected."""
        if report.failed:
            self._broken = True
            sys.stderr.write(f"{report.nodeid}: {report.longreprtext}\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Approve the chaos tests."""
        try:
            self._approve(session)
        except BadArgument as error:
            self.error = error

    def _approve(self, session: pytest.Session) -> None:
        if self._broken:
            raise BadArgument("some tests could not be collected, so nothing is approved")
        if not session.items:
            return  # pytest has said why
        policy = session.config.pluginmanager.get_plugin(NAME)
        chaos = [item for item in session.items if DECISION in item.stash]
        if not isinstance(policy, PolicySession) or not chaos:
            why = "none of these is a chaos test" if policy else "no policy holds for these tests"
            raise BadArgument(f"nothing to approve: {why}")
        by_file: dict[Path, list[Approval]] = {}
        for item in chaos:
            decision = item.stash[DECISION]
            if decision.problem:
                raise BadArgument(f"{decision.case.test}: {decision.problem}")
            approval = Approval(
                test=item.nodeid,
                digest=decision.digest,
                by=self._by,
                until=self._until,
                faults=tuple(
                    one.name if one.fault is None else repr(one.fault)
                    for one in decision.injections
                    if one.origin != "composite"
                ),
            )
            for file in decision.policy.approvals:
                by_file.setdefault(file, []).append(approval)
            needed = "" if decision.needs_approval else " (the policy does not ask for it)"
            sys.stdout.write(f"approved: {decision.case.test}{needed}\n")
            for fault in approval.faults:
                sys.stdout.write(f"  {fault}\n")
        for file, approvals in by_file.items():
            write_approvals(file, approvals)
            sys.stdout.write(f"{file}: {len(approvals)} written, until {self._until}\n")

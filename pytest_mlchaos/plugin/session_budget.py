"""Give the chaos tests of a session a limited time: ``--mlchaos-budget=40m``.

They run in the order of (not run since the code changed) × (failed before) ÷ (seconds). Those that
are left when the time is used up are reported as left, not run, and come first next time.

Only the time of chaos tests counts. Other tests keep their places, and always run. Each worker of
pytest-xdist has the whole time, because the workers run side by side.

What is known of the last runs is in pytest's cache: users know how to keep, clear and show that
(``cache_dir``, ``--cache-clear``, ``--cache-show``), and CI keeps it already. pytest reads a damaged
file as an empty one.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from time import perf_counter  # by name, so that a virtual clock does not reach it
from typing import TYPE_CHECKING, Any

import pytest

from ..core.settings import Settings, parse_settings
from ..core.validation import count_text, format_seconds
from ..errors import Inconclusive, NeverStruck, Vacuous

if TYPE_CHECKING:
    from .changed_code import Code, ProcessCounter

__all__ = [
    "SEARCH_ENDED",
    "SessionBudget",
    "begin",
    "name_of_budget",
    "within_session",
]

NAME = "mlchaos-budget"
OPTION = "--mlchaos-budget"
SEARCH_ENDED: pytest.StashKey[bool] = pytest.StashKey()
"""True for a test whose search for schedules this budget has ended."""
KEY = "mlchaos/last_runs"
"""The key in pytest's cache."""
VERSION = 1
INPUT = "mlchaos_last_runs"
"""The key of ``workerinput``. All workers of xdist must collect the tests in the same order."""
FACTOR = 10.0
"""How much more urgent a test is if its code has changed, or if it failed."""
MIN_SECONDS = 0.01
MAX_NAMES = 20
MAX_KNOWN = 20_000
TOO_LITTLE = (Inconclusive, NeverStruck, Vacuous)
"""Errors that a search or an exploration may raise because it was ended early."""

Known = Mapping[str, Mapping[str, Any]]


def begin(config: pytest.Config) -> None:
    """Register the budget of the session, if the command line gives one.

    pytest's cache exists by now, and the plugins that select tests are registered.
    """
    given = config.getoption("mlchaos_budget")
    seconds = None if given is None else parse_settings({"budget": given}, Settings()).budget
    if seconds is None or config.getoption("mlchaos_off") or config.option.collectonly:
        return
    config.pluginmanager.register(SessionBudget(config, seconds), NAME)


def within_session(config: pytest.Config, settings: Settings) -> Settings:
    """Return the settings of the running test, with the time that is left for it."""
    session = config.pluginmanager.get_plugin(NAME)
    if session is None or session.left >= (settings.budget or float("inf")):
        return settings
    return dataclasses.replace(settings, budget=max(session.left, 1e-9))


def name_of_budget(config: pytest.Config, settings: Settings) -> str:
    """Return the limit of a test's explorations in words, or nothing for its own setting."""
    found = within_session(config, settings)
    if found is settings:
        return ""
    return f"{OPTION} ({found.budget:g} seconds were left for this test)"


class SessionBudget:
    """Order the chaos tests, end them after the budget, and keep what is known of them.

    Attributes:
        left: The seconds that were left when the running test started.

    Args:
        config: The configuration of pytest.
        seconds: The budget.
    """

    def __init__(self, config: pytest.Config, seconds: float) -> None:
        self._config = config
        self._seconds = self.left = seconds
        self._spent = 0.0
        self._start = time.time()
        cache = getattr(config, "cache", None)
        sent = getattr(config, "workerinput", {}).get(INPUT)
        self._known: Known = sent or _checked(cache.get(KEY, None) if cache else None)
        self._failed = cache.get("cache/lastfailed", {}) if cache else {}
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._problem = ""
        self._processes = _counter() if "coverage" in sys.modules else None
        self._processes_before = 0
        self._is_left = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker of xdist what is known."""
        node.workerinput[INPUT] = dict(self._known)

    # -- the order -----------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        """Order the chaos tests among their places.

        This comes after all other plugins have selected tests. A plugin that divides them among
        machines by their places must see the same order on each.
        """
        yield
        if self._config.getoption("stepwise", False):
            return  # it goes on after the test that failed last time, in the order of the files
        from .changed_code import Code

        places = [place for place, item in enumerate(items) if _is_chaos_test(item)]
        found = [items[place] for place in places]
        urgency = functools.partial(self._urgency, Code(self._config.rootpath), self._usual(found))
        for place, item in zip(places, sorted(found, key=urgency), strict=True):
            items[place] = item

    def _usual(self, items: Sequence[pytest.Item]) -> float:
        """Return the median of the seconds that are known, for tests that never ran."""
        known = [_seconds(self._known.get(item.nodeid, {})) for item in items]
        return statistics.median([one for one in known if one] or [1.0])

    def _urgency(self, code: Code, usual: float, item: pytest.Item) -> tuple[bool, float]:
        known = self._known.get(item.nodeid, {})
        urgency = FACTOR if code.has_changed(item.nodeid, known) else 1.0
        urgency *= FACTOR if known.get("failed") or item.nodeid in self._failed else 1.0
        urgency /= max(_seconds(known) or usual, MIN_SECONDS)
        return not known.get("left"), -urgency

    # -- each test -----------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Count the time of the chaos tests."""
        self.left, start = self._seconds - self._spent, perf_counter()
        self._processes_before = self._processes.count if self._processes else 0
        self._is_left = False
        try:
            return (yield)
        finally:
            if _is_chaos_test(item):
                self._spent += perf_counter() - start

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave a chaos test if the time is used up. pytest has skipped those with such marks."""
        if self.left <= 0 and _is_chaos_test(item):
            self._is_left = True
            pytest.skip(
                f"left, not run: the chaos tests before it used up {OPTION} "
                f"({format_seconds(self._seconds)})"
            )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say in the report if the test was left, or ended early. xdist sends it home."""
        report = yield
        if not _is_chaos_test(item):
            return report
        how = "run"
        if call.when == "setup" and self._is_left and call.excinfo is not None:
            how = "left"
            report.longrepr = (*_place(item), f"Skipped: {call.excinfo.value}")
        elif call.when == "call" and self._is_cut_short(item):
            how = "cut"
            if call.excinfo is not None and isinstance(call.excinfo.value, TOO_LITTLE):
                how, report.outcome = "left", "skipped"
                report.__dict__.pop("wasxfail", None)
                reason = (
                    f"left, not run to its end: {OPTION} ended it before it could judge anything"
                )
                report.longrepr = (*_place(item), f"Skipped: {reason}")
        report.mlchaos_budget = how  # type: ignore[attr-defined]
        report.mlchaos_measured = (  # type: ignore[attr-defined]
            self._processes is not None and self._processes.count == self._processes_before
        )
        return report

    def _is_cut_short(self, item: pytest.Item) -> bool:
        """Return True if this budget has ended a search or an exploration of the test."""
        from .trial_runner import EXPLORED

        return item.stash.get(SEARCH_ENDED, False) or any(
            OPTION in report.left_out for report in item.stash.get(EXPLORED, [])
        )

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        """Count the tests that were left by themselves, not among the skipped ones."""
        if getattr(report, "mlchaos_budget", None) == "left":
            return "left", "l", ("LEFT", {"yellow": True})
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the reports of chaos tests. xdist sends those of its workers."""
        if hasattr(report, "mlchaos_budget"):
            self._reports.setdefault(report.nodeid, []).append(report)

    # -- the end of the session ----------------------------------------------------------------------

    def _ended(self, *ways: str) -> list[str]:
        """Return the tests that ended in one of these ways."""
        return [
            nodeid
            for nodeid, reports in self._reports.items()
            if any(report.mlchaos_budget in ways for report in reports)
        ]

    @pytest.hookimpl(trylast=True)  # after pytest has written its last failures
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what is known now. Fail the session if all tests had to run."""
        if hasattr(self._config, "workerinput"):
            return
        if self._ended("left", "cut"):
            if not self._judged():
                self._problem = (
                    f"FAIL mlchaos: {OPTION} is too short for a verdict of any chaos test"
                )
            elif self._requires_all():
                self._problem = "FAIL mlchaos: not all chaos tests ran to their end (require_all)"
        if self._problem and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        cache = getattr(self._config, "cache", None)
        if cache is not None and self._reports:
            cache.set(KEY, {"version": VERSION, "tests": self._updated()})
            # pytest takes a skipped test from its last failures.
            failed = {one: True for one in self._ended("left") if one in self._failed}
            if failed:
                now = cache.get("cache/lastfailed", {})
                cache.set("cache/lastfailed", {**now, **failed})

    def _judged(self) -> bool:
        """Return True if any chaos test ran to a verdict."""
        left = set(self._ended("left"))
        return any(
            nodeid not in left and any(one.failed or one.when == "call" for one in reports)
            for nodeid, reports in self._reports.items()
        )

    def _requires_all(self) -> bool:
        from .marks import settings_of

        return settings_of(self._config).require_all

    def _updated(self) -> Known:
        """Return what is known after this session. Tests whose file is gone are forgotten."""
        from .changed_code import Code, executed_files, test_file

        root = self._config.rootpath
        code, executed = Code(root), executed_files(root, self._start, self._reports)
        known = {
            nodeid: known
            for nodeid, known in self._known.items()
            if nodeid not in self._reports and (root / test_file(nodeid)).is_file()
        }
        for nodeid, reports in self._reports.items():
            before = self._known.get(nodeid, {})
            if entry := _entry(reports, before):
                known[nodeid] = entry
                if entry["left"] or any(one.mlchaos_budget == "cut" for one in reports):
                    continue  # what is left has not been run since its code changed
                files = code.files_of(test_file(nodeid))
                is_measured = all(report.mlchaos_measured for report in reports)
                own = executed.narrow(nodeid, files) if is_measured else None
                if not self._edited(own or files):
                    entry |= {"digest": code.digest(own or files)} | ({"files": own} if own else {})
            elif before:
                known[nodeid] = before
        return dict(list(known.items())[-MAX_KNOWN:])

    def _edited(self, files: Sequence[str]) -> bool:
        """Return True if a file was edited while the session ran, so that what ran is not known."""
        try:
            return any(
                Path(self._config.rootpath, file).stat().st_mtime > self._start for file in files
            )
        except OSError:
            return True

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name the tests that were left, and those that were ended early."""
        if not self._reports:
            return
        write, verbosity = terminalreporter.write_line, terminalreporter.verbosity
        left, cut = self._ended("left"), self._ended("cut")
        all_tests = count_text(len(self._reports), "chaos test")
        budget = f"{OPTION}={format_seconds(self._seconds)}"
        again = "those that were not begun come first next time"
        if getattr(self._config, "cache", None) is None:
            again = "the next run does not know it, because pytest's cache is switched off"
        if not left and not cut and verbosity >= -1:
            write(f"mlchaos: {all_tests} ran to the end within {budget}")
        if left and verbosity >= -1:
            text = (
                f"mlchaos: {budget} is used up: {len(left)} of {all_tests} LEFT, without a verdict"
            )
            write(f"{text} ({again}):", yellow=True, bold=True)
            _write_names(write, left, verbosity)
        if cut and verbosity >= -1:
            text = f"mlchaos: {budget} ended {len(cut)} of {all_tests} early, which judged what was tried"
            write(f"{text}:", yellow=True)
            _write_names(write, cut, verbosity)
        if self._problem:
            write(self._problem, red=True, bold=True)


def _write_names(write: Any, nodeids: Sequence[str], verbosity: int) -> None:
    most = len(nodeids) if verbosity > 0 else MAX_NAMES
    for nodeid in nodeids[:most]:
        write(f"  {nodeid}")
    if len(nodeids) > most:
        write(f"  ... and {len(nodeids) - most} more (-v shows all)")


@functools.cache
def _counter() -> ProcessCounter:
    """Return the counter of this process. Python keeps an audit hook for good."""
    from .changed_code import ProcessCounter

    return ProcessCounter()


def _place(item: pytest.Item) -> tuple[str, int]:
    return str(item.path), (item.location[1] or 0) + 1


def _is_chaos_test(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.get_closest_marker("mlchaos") is not None


def _seconds(known: Mapping[str, Any]) -> float:
    found = known.get("seconds")
    return float(found) if isinstance(found, (int, float)) and found > 0 else 0.0


def _checked(content: Any) -> Known:
    """Return what a file of the cache says. A damaged or older file says nothing."""
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return {}
    tests = content.get("tests")
    if not isinstance(tests, dict):
        return {}
    return {nodeid: known for nodeid, known in tests.items() if isinstance(known, dict)}


def _entry(reports: Sequence[pytest.TestReport], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a test after its reports, or nothing if it was not run to its end."""
    if any(report.mlchaos_budget == "left" for report in reports):
        # One that was begun waits for its turn, because it could use up each session.
        begun = any(report.when == "call" for report in reports)
        spent = {"seconds": sum(report.duration for report in reports)} if begun else {}
        return {**before, **spent, "left": not begun}
    failed = any(report.failed for report in reports)
    if not failed and not any(report.when == "call" for report in reports):
        return {}  # it was skipped, or interrupted
    return {
        "seconds": round(sum(report.duration for report in reports), 3),
        "failed": failed,
        "left": False,
    }

"""Derive the overview of the page from a session: plain data for the templates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ...core.entries import Judgement, Requests, StrikeEntry
from ...core.validation import count_text
from ..fault_coverage import FaultCoverage, coverage_of, is_judged
from ..guards import Guarded, guards_of
from ..journal_reader import SessionLog
from ..points import missed_points
from .figures import fault_name
from .test_view import OUTCOMES, TestView, seconds_text

__all__ = ["Cell", "Matrix", "Page", "page_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """The strikes of a fault at a site: how many, and in how many trials that failed or judged."""

    strikes: int
    trials: int
    judged: int
    failed: int

    @property
    def kind(self) -> str:
        """Return ``failed``, ``judged`` or ``unjudged``."""
        return "failed" if self.failed else "judged" if self.judged == self.trials else "unjudged"


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """The strikes of a session by fault and site.

    Attributes:
        sites: The struck sites, sorted.
        rows: Each fault with a cell, or None, for each site.
        quiet: Declared faults that never struck.
        visited: Sites that were passed and never struck.
    """

    sites: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    quiet: Sequence[str]
    visited: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """The whole page.

    Attributes:
        tests: The tests, failures first.
        counts: The number of tests for each outcome that occurred.
        totals: Pairs of a number and a noun.
        matrix: The strikes by fault and site.
        untried: What searches left out, by test.
        environments: The versions of each distinct environment.
        coverage: The fault coverage. It is empty without ``--mlchaos-cov``.
        guards: The checks that saw each fault, the most frequent first.
        missed: The points that no trial reached, in words.
        problems: What could not be read.
    """

    tests: Sequence[TestView]
    counts: Mapping[str, int]
    totals: Sequence[tuple[str, str]]
    matrix: Matrix
    untried: Sequence[tuple[TestView, Sequence[str]]]
    environments: Sequence[Sequence[tuple[str, str]]]
    coverage: FaultCoverage
    guards: Mapping[str, Sequence[Guarded]]
    missed: Sequence[str]
    problems: Sequence[str]

    @property
    def headline(self) -> str:
        """Return the result of the session in one sentence."""
        total = len(self.tests)
        bad = self.counts.get("failed", 0) + self.counts.get("inconclusive", 0)
        open_ = self.counts.get("running", 0) + self.counts.get("interrupted", 0)
        if not total:
            return "No chaos test has run"
        if bad:
            return f"{bad} of {count_text(total, 'chaos test')} {'fails' if bad == 1 else 'fail'}"
        if open_:
            return f"{open_} of {count_text(total, 'chaos test')} did not end"
        passed = self.counts.get("passed", 0)
        if passed == total:
            return "The chaos test passes" if total == 1 else f"All {total} chaos tests pass"
        return f"{passed} of {count_text(total, 'chaos test')} pass, the others were skipped"


def page_of(session: SessionLog) -> Page:
    """Return the page of a session."""
    tests = sorted(
        map(TestView, session.tests.values()),
        key=lambda test: (OUTCOMES.index(test.outcome), test.log.nodeid),
    )
    counts = {
        outcome: number
        for outcome in OUTCOMES
        if (number := sum(test.outcome == outcome for test in tests))
    }
    environments = {
        tuple(sorted(test.log.end.environment.items()))
        for test in tests
        if test.log.end is not None and test.log.end.environment
    }
    untried = [
        (test, test.log.end.untried)
        for test in tests
        if test.log.end is not None and test.log.end.untried
    ]
    return Page(
        tests,
        counts,
        _totals(tests),
        _matrix(tests),
        untried,
        sorted(environments),
        coverage_of(session),
        _by_fault(guards_of(session)),
        list(map(str, missed_points(session))),
        [_relative(problem) for problem in session.problems],
    )


def _by_fault(guards: Iterable[Guarded]) -> dict[str, list[Guarded]]:
    found: dict[str, list[Guarded]] = {}
    for guard in guards:
        found.setdefault(guard.fault, []).append(guard)
    return found


def _relative(problem: str) -> str:
    """Return a problem without the folder of its journal."""
    path, colon, rest = problem.partition(": line ")
    return f"{path.rpartition('/')[2]}{colon}{rest}"


def _totals(tests: Iterable[TestView]) -> list[tuple[str, str]]:
    tests = list(tests)
    states = sum(len(some) for test in tests for some in test.states.values())
    bad = sum(
        one.verdict != "recovered"
        for test in tests
        for some in test.states.values()
        for one in some
    )
    seconds = [test.seconds for test in tests if test.seconds is not None]
    recovered = [one for test in tests for one in test.log.recovery_times if one is not None]
    rows = [
        (len(tests), "chaos test", ""),
        (sum(len(test.log.trials) for test in tests), "trial", ""),
        (sum(test.strikes for test in tests), "strike", ""),
        (states, "crash state", f", {bad:,} bad" if bad else ""),
        (
            sum(len(one.latencies) for test in tests for one in test.log.all(Requests)),
            "request",
            "",
        ),
    ]
    found = [
        (f"{number:,}", f"{noun if number == 1 else noun + 's'}{more}")
        for number, noun, more in rows
        if number
    ]
    if recovered:
        mean = seconds_text(sum(recovered) / len(recovered))
        found.append((mean, f"to recovery, the mean of {len(recovered):,}"))
    return [*found, (seconds_text(sum(seconds)), "in tests")] if seconds else found


def _matrix(tests: Iterable[TestView]) -> Matrix:
    strikes: dict[tuple[str, str], int] = {}
    trials: dict[tuple[str, str], set[tuple[str, int]]] = {}
    judged: set[tuple[str, int]] = set()
    failed: set[tuple[str, int]] = set()
    declared: set[str] = set()
    visited: set[str] = set()
    for test in tests:
        failed |= {(test.log.nodeid, number) for number in test.failing}
        for trial in test.log.trials.values():
            visited.update(site.partition(" ")[0] for site in trial.visits)
        if test.log.end is not None:
            declared.update(map(fault_name, test.log.end.faults))
        for line in test.log.lines:
            if isinstance(line.entry, Judgement):
                judged.add((line.test, line.trial))
            elif isinstance(line.entry, StrikeEntry):
                key = (fault_name(line.entry.fault), line.entry.site)
                strikes[key] = strikes.get(key, 0) + 1
                trials.setdefault(key, set()).add((line.test, line.trial))
                if is_judged(line.entry, test.log.trials.get(line.trial), test.log, line.trial):
                    judged.add((line.test, line.trial))
    sites = sorted({site for _, site in strikes})
    faults = sorted({fault for fault, _ in strikes})
    rows = [
        (
            fault,
            [
                Cell(
                    strikes[fault, site],
                    len(some := trials[fault, site]),
                    len(some & judged),
                    len(some & failed),
                )
                if (fault, site) in strikes
                else None
                for site in sites
            ],
        )
        for fault in faults
    ]
    return Matrix(
        sites, rows, sorted(declared.difference(faults)), sorted(visited.difference(sites))
    )

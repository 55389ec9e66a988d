"""Read from the journal which check saw which fault."""

from __future__ import annotations

import dataclasses

from ..core.coverage_entries import Guard
from ..core.entries import Judgement, StrikeEntry
from .journal_reader import SessionLog, TestLog

__all__ = ["Guarded", "guards_of"]

UNSEEN = "no check"
"""Stands for the trials in which nothing failed: the code coped, or nothing looked."""


@dataclasses.dataclass(frozen=True, slots=True)
class Guarded:
    """A check that saw a fault.

    Attributes:
        fault: The name of the fault.
        check: The check: an oracle, an exception with the line that raised it, or ``no check``.
        seen: The number of trials in which it failed.
        trials: The number of trials in which the fault struck.
    """

    fault: str
    check: str
    seen: int
    trials: int


def guards_of(session: SessionLog) -> list[Guarded]:
    """Return the checks that saw a fault, by fault. The most frequent check comes first."""
    seen: dict[tuple[str, str], int] = {}
    trials: dict[str, int] = {}
    for test in session.tests.values():
        for number in test.trials:
            faults = {entry.fault.partition("(")[0] for entry in test.all(StrikeEntry, number)}
            checks = _checks(test, number) if faults else set()
            for fault in faults:
                trials[fault] = trials.get(fault, 0) + 1
                for check in checks or {UNSEEN}:
                    seen[fault, check] = seen.get((fault, check), 0) + 1
    found = [Guarded(fault, check, count, trials[fault]) for (fault, check), count in seen.items()]
    return sorted(found, key=lambda one: (one.fault, one.check == UNSEEN, -one.seen, one.check))


def _checks(test: TestLog, number: int) -> set[str]:
    """Return the checks that failed in a trial."""
    failed = [one for one in test.all(Judgement, number) if one.verdict != "passed"]
    found = {one.oracle for one in failed}
    guards = test.all(Guard, number)
    judged = {one.error for one in failed}
    found |= {_text(guard) for guard in guards if guard.error not in judged}
    errors = judged | {guard.error for guard in guards}
    trial = test.trials[number]
    if trial.outcome == "failed" and trial.error not in errors:
        found.add(f"{trial.error} at {trial.place}" if trial.place else trial.error)
    return found


def _text(guard: Guard) -> str:
    if guard.injected:
        return f"{guard.error} (the fault's own)"
    return f"{guard.error} at {guard.place}" if guard.place else guard.error

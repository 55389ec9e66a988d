"""Reduce a session to the parameters, metrics and tags that experiment trackers take."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from ...core.entries import Judgement, State, StrikeEntry, Timing
from ..journal_reader import SessionLog, TestLog
from .findings import findings, spot_of_test

__all__ = ["Figures", "of_session", "of_test"]


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """Hold what a tracker stores about a session or a test.

    Attributes:
        name: The name of the run.
        is_failed: True if something failed, or did not end.
        params: What was asked: the faults, and the versions.
        metrics: What was counted and measured.
        tags: The outcome, and what repeats a failure.
    """

    name: str
    is_failed: bool
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def of_session(session: SessionLog) -> Figures:
    """Return the figures of a whole session."""
    tests = list(session.tests.values())
    outcomes = Counter(test.outcome for test in tests)
    failed = [test.nodeid for test in tests if test.outcome not in ("passed", "skipped")]
    rules = Counter(finding.rule.id for finding in findings(session))
    return Figures(
        name="pytest-mlchaos",
        is_failed=bool(failed),
        params=_params(tests),
        metrics={
            "tests": len(tests),
            **{f"tests.{outcome}": outcomes[outcome] for outcome in ("passed", "failed")},
            **_metrics(tests),
            **{f"failures.{rule}": number for rule, number in rules.items()},
        },
        tags={"mlchaos.verdict": "failed" if failed else "passed", "mlchaos.kind": "session"},
    )


def of_test(test: TestLog) -> Figures:
    """Return the figures of one test."""
    end = test.end
    tags = {
        "mlchaos.verdict": test.outcome,
        "mlchaos.kind": "test",
        "mlchaos.test": test.nodeid,
        "mlchaos.place": str(spot_of_test(test)) if end is None or not end.place else end.place,
        "mlchaos.error": "" if end is None else end.error,
        "mlchaos.reproduce": "" if end is None else end.reproduce,
    }
    return Figures(
        name=test.nodeid.rpartition("/")[2],
        is_failed=test.outcome not in ("passed", "skipped"),
        params=_params([test]),
        metrics=_metrics([test]),
        tags={name: text for name, text in tags.items() if text},
    )


def _params(tests: Iterable[TestLog]) -> dict[str, str]:
    faults: dict[str, None] = {}
    versions: dict[str, str] = {}
    for test in tests:
        if test.end is not None:
            faults.update(dict.fromkeys(test.end.faults))
            versions |= test.end.environment
    found = {f"version.{name}": version for name, version in sorted(versions.items())}
    return {"faults": "; ".join(sorted(faults)), **found} if faults else found


def _metrics(tests: Iterable[TestLog]) -> dict[str, float]:
    tests = list(tests)
    verdicts = Counter(state.verdict for test in tests for state in test.all(State))
    judged = Counter(one.verdict for test in tests for one in test.all(Judgement))
    explored = [one for test in tests for one in test.explorations]
    seconds = [test.seconds("test") for test in tests]
    restarts = [one.restart for test in tests for one in test.all(Timing)]
    recoveries = [one for test in tests for one in test.recovery_times]
    recovered = [one for one in recoveries if one is not None]
    measured: dict[str, float | None] = {
        "trials": sum(len(test.trials) for test in tests),
        "strikes": sum(len(test.all(StrikeEntry)) for test in tests),
        "crash_states": sum(one.states for one in explored) if explored else None,
        "crash_states.tried": sum(one.tried for one in explored) if explored else None,
        **{f"crash_states.{verdict}": number for verdict, number in verdicts.items()},
        **{f"judgements.{verdict}": number for verdict, number in judged.items()},
        "lost_steps.max": max(
            (one.max_lost_steps for one in explored if one.measured), default=None
        ),
        "restart_seconds": max((one for one in restarts if one is not None), default=None),
        "recovery_seconds": max(recovered, default=None),
        "mttr_seconds": sum(recovered) / len(recovered) if recovered else None,
        "not_recovered": len(recoveries) - len(recovered) if recoveries else None,
        "seconds": sum(one or 0.0 for one in seconds) if any(seconds) else None,
    }
    return {name: float(value) for name, value in measured.items() if value is not None}

"""Describe a test by properties, which ``--junitxml`` writes on its ``<testcase>``."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.entries import State, StrikeEntry, Timing
from ..journal_reader import TestLog
from .findings import Finding, findings_of

__all__ = ["properties"]


def properties(test: TestLog) -> list[tuple[str, str]]:
    """Return the properties of a test by name. A fact that is not known has none."""
    return [(name, str(value)) for name, value in _facts(test) if value not in (None, "")]


def _facts(test: TestLog) -> Iterator[tuple[str, object]]:
    end, explored = test.end, test.explorations
    strikes = len(test.all(StrikeEntry))
    trials = len(test.trials) if end is None else end.trials
    yield "mlchaos", f"{trials} trials, {strikes} faults struck"
    yield "mlchaos.verdict", _verdict(test)
    yield "mlchaos.trials", trials
    yield "mlchaos.strikes", strikes
    if explored:
        bad = sum(state.verdict != "recovered" for state in test.all(State))
        yield "mlchaos.states", sum(one.states for one in explored)
        yield "mlchaos.states.tried", sum(one.tried for one in explored)
        yield "mlchaos.states.bad", bad
    measured = [one.max_lost_steps for one in explored if one.measured]
    yield "mlchaos.lost_steps", max(measured) if measured else None
    restarts = [one.restart for one in test.all(Timing) if one.restart is not None]
    yield "mlchaos.restart_seconds", f"{max(restarts):.3f}" if restarts else None
    recovered = [one for one in test.recovery_times if one is not None]
    yield "mlchaos.recovery_seconds", f"{max(recovered):.3f}" if recovered else None
    mean = test.mean_recovery
    yield "mlchaos.mttr_seconds", None if mean is None else f"{mean:.3f}"
    yield "mlchaos.not_recovered", len(test.recovery_times) - len(recovered) or None
    if end is not None:
        yield "mlchaos.faults", "; ".join(end.faults)
        yield "mlchaos.untried", "; ".join(end.untried)
    found = findings_of(test)
    yield "mlchaos.causes", len(found) or None
    yield from _of_first(found[0]) if found else ()


def _of_first(finding: Finding) -> Iterator[tuple[str, object]]:
    """Yield the facts about the cause that the terminal reports first."""
    yield "mlchaos.rule", finding.rule.id
    yield "mlchaos.place", finding.spot
    yield "mlchaos.reproduce", finding.reproduce
    yield "mlchaos.replay", finding.replay
    yield "mlchaos.help", finding.rule.help


def _verdict(test: TestLog) -> str:
    is_unknown = test.end is not None and test.end.error == "Inconclusive"
    return "inconclusive" if is_unknown else test.outcome

"""Write the one report of a session, without times: that of all shards equals that of one machine.

Left out is what may differ between them: which states were run and which follow from others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.entries import Exploration, State, Trial
from ..core.validation import count_text
from ..reports.journal_reader import SessionLog, TestLog
from .merge import Merged

__all__ = ["facts_of", "text_of", "write_report"]


def write_report(path: Path, session: SessionLog, merged: Merged | None) -> None:
    """Write the report: as JSON if the path ends so, else as text."""
    facts = facts_of(session, merged)
    if path.suffix == ".json":
        text = f"{json.dumps(facts, indent=1, sort_keys=True)}\n"
    else:
        text = "".join(f"{line}\n" for line in text_of(facts, states=True))
    path.write_text(text, encoding="utf-8")


def facts_of(session: SessionLog, merged: Merged | None = None) -> dict[str, Any]:
    """Return the report as plain data.

    Args:
        session: The session of one machine, or of all shards.
        merged: What is known of the shards. None for one machine.
    """
    tests = {nodeid: _test(log) for nodeid, log in session.tests.items()}
    missing = [] if merged is None else [*merged.missing]
    failed = [] if merged is None else [*merged.failed]
    outcomes = Counter(test["outcome"] for test in tests.values())
    problems = [] if merged is None else [*merged.problems]
    bad = outcomes["failed"] or failed or problems
    unclear = missing or outcomes["inconclusive"] or outcomes["interrupted"] or outcomes["running"]
    return {
        "verdict": "failed" if bad else "inconclusive" if unclear else "passed",
        "missing": missing,
        "failed_without_faults": failed,
        "problems": problems,
        "tests": tests,
    }


def _test(log: TestLog) -> dict[str, Any]:
    end = log.end
    outcome = log.outcome
    error = "" if end is None else end.error
    if outcome == "failed" and error == "Inconclusive":
        outcome = "inconclusive"
    found: dict[str, Any] = {"outcome": outcome, "error": error}
    explorations = [
        _exploration(log, line.trial, line.entry)
        for line in log.lines
        if isinstance(line.entry, Exploration)
    ]
    if explorations:
        found["explorations"] = explorations
    elif end is not None:
        found["message"] = end.message
        found["replay"] = end.replay
        found["causes"] = _causes(log)
    return found


def _exploration(log: TestLog, trial: int, one: Exploration) -> dict[str, Any]:
    states = [state for state in log.all(State, trial) if state.exploration == one.number]
    return {
        "states": one.states,
        "tried": one.tried,
        "steps": one.steps,
        "max_lost_steps": one.max_lost_steps if one.measured else None,
        "verdicts": dict(sorted(Counter(state.verdict for state in states).items())),
        "all": [
            {
                "state": state.state,
                "verdict": state.verdict,
                "cause": state.cause,
                "place": state.place,
            }
            for state in states
        ],
    }


def _causes(log: TestLog) -> list[dict[str, str]]:
    """Return each cause of failed trials with the smallest schedule that shows it."""
    smallest: dict[tuple[str, str], str] = {}
    for trial in log.all(Trial):
        if trial.outcome == "failed" and trial.schedule:
            key = (trial.error, trial.place)
            known = smallest.get(key)
            if known is None or _weight(trial.schedule) < _weight(known):
                smallest[key] = trial.schedule
    return [
        {"error": error, "place": place, "schedule": schedule}
        for (error, place), schedule in sorted(smallest.items())
    ]


def _weight(schedule: str) -> tuple[int, int, str]:
    return schedule.count(";"), len(schedule), schedule


# -- in words --------------------------------------------------------------------------------------


def text_of(facts: dict[str, Any], *, states: bool) -> Iterator[str]:
    """Yield the lines of the report. ``states`` adds a line for each crash state."""
    for nodeid, test in facts["tests"].items():
        yield f"{nodeid}: {test['outcome']}{_by(test['error'])}"
        for one in test.get("explorations", ()):
            yield from _exploration_text(one, states=states)
        for cause in test.get("causes", ()):
            at = f" at {cause['place']}" if cause["place"] else ""
            yield f"  {cause['error']}{at}: {cause['schedule']}"
        if test.get("message") and states:
            yield from (f"  {line}" for line in test["message"].splitlines())
    for name in facts["failed_without_faults"]:
        yield f"{name}: failed"
    yield from facts["problems"]
    for reason in facts["missing"]:
        yield f"missing: {reason}"
    yield f"verdict: {facts['verdict'].upper()}"


def _by(error: str) -> str:
    return f" ({error})" if error else ""


def _exploration_text(one: dict[str, Any], *, states: bool) -> Iterator[str]:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in one["verdicts"].items())
    lost = one["max_lost_steps"]
    work = f", at most {count_text(lost, 'step')} lost" if lost is not None else ""
    tried = f" ({one['tried']} tried)" if one["tried"] < one["states"] else ""
    over = f" in {count_text(one['steps'], 'step')}" if one["steps"] else ""
    states_text = count_text(one["states"], "crash state")
    yield f"  {states_text}{tried}{over}: {verdicts or 'none tried'}{work}"
    for cause, first, count in _grouped(one["all"]):
        yield f"    {count}x {cause}, first: {first}"
    if states:
        for state in one["all"]:
            cause = f"  {state['cause']}" if state["cause"] else ""
            yield f"    {state['state']}  {state['verdict']}{cause}"


def _grouped(states: Sequence[dict[str, str]]) -> list[tuple[str, str, int]]:
    groups: dict[str, list[str]] = {}
    for state in states:
        if state["verdict"] != "recovered":
            at = f" at {state['place']}" if state["place"] else ""
            cause = f" {state['cause']}" if state["cause"] else ""
            groups.setdefault(f"{state['verdict']}{cause}{at}", []).append(state["state"])
    return [(cause, names[0], len(names)) for cause, names in groups.items()]

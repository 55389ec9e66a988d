"""Tell what happened in the failing trial, in order: strike, detection, recovery, verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ...core.entries import (
    Detection,
    Judgement,
    RecoveryTime,
    Requests,
    ResultEntry,
    StrikeEntry,
    Trial,
)
from ...core.validation import count_text
from ..journal_reader import TestLog

__all__ = ["failing_trial", "timeline"]

SHOWN_STRIKES = 10
UNKNOWN = "–"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One row of the timeline.

    Attributes:
        seconds: Its time since the start of the trial, on the trial's clock. None if unknown.
        text: What happened.
    """

    seconds: float | None
    text: str


def failing_trial(test: TestLog) -> int:
    """Return the number of the trial that the report is about.

    It is the last one with the schedule that the test reports. A search may also find others.
    """
    replay = test.end.replay if test.end is not None else ""
    failed = {number: one for number, one in test.trials.items() if one.outcome == "failed"}
    reported = [number for number, one in failed.items() if one.schedule == replay]
    return max(reported or failed or test.trials or (0,))


def timeline(test: TestLog) -> Iterator[str]:
    """Yield the rows of a table, or nothing if no fault struck."""
    trial = failing_trial(test)
    events = list(_events(test, trial))
    if not test.all(StrikeEntry, trial):
        return
    clock = "real" if test.end is not None and test.end.real_clock else "virtual"
    if test.provenance is not None and "clock=real" in test.provenance.settings:
        clock = "real"
    yield f"Seconds since the start of the trial, on its {clock} clock."
    yield ""
    yield "| time | event |"
    yield "|---|---|"
    for event in events:
        time = UNKNOWN if event.seconds is None else f"{event.seconds:.3f} s"
        yield f"| {time} | {_cell(event.text)} |"


def _events(test: TestLog, trial: int) -> Iterator[Event]:
    strikes = _strikes(test, trial)
    yield from strikes[:SHOWN_STRIKES]
    if len(strikes) > SHOWN_STRIKES:
        last = strikes[-1]
        more = count_text(len(strikes) - SHOWN_STRIKES, "more strike")
        yield Event(last.seconds, f"strike: {more}, the last one: {last.text.partition(': ')[2]}")
    times = [one.seconds for one in strikes if one.seconds is not None]
    first = min(times) if times and len(times) == len(strikes) else None
    end = max(times) if first is not None else None
    yield from _detections(test, trial, first)
    yield from _attempts(test, trial)
    yield from _recoveries(test, trial, end)
    yield from _verdicts(test, trial)


def _strikes(test: TestLog, trial: int) -> list[Event]:
    events = [
        Event(test.seconds("strike", trial, number), f"strike: {_strike_text(strike)}")
        for number, strike in enumerate(test.all(StrikeEntry, trial))
    ]
    if any(event.seconds is None for event in events):
        return events
    return sorted(events, key=lambda event: event.seconds or 0.0)


def _strike_text(strike: StrikeEntry) -> str:
    details = ", ".join(f"{name}={value}" for name, value in strike.details.items())
    return f"`{strike.fault}` at `{strike.site}` {strike.visit}{f' ({details})' if details else ''}"


def _detections(test: TestLog, trial: int, first: float | None) -> Iterator[Event]:
    for one in test.all(Detection, trial):
        after = f", {one.visits} visits later" if one.visits is not None else ""
        if one.outcome == "detected":
            known = first is not None and one.seconds is not None
            when = first + one.seconds if known else None  # type: ignore[operator]
            yield Event(when, f"detection: {one.monitor} detected {one.fault}{after}")
        elif one.outcome == "missed":
            yield Event(None, f"detection: {one.monitor} did not detect {one.fault}")
    for load in test.all(Requests, trial):
        if load.failed and load.starts:
            number = load.failed[0]
            text = f"effect: request {number} was the first that failed"
            yield Event(None, f"{text}, {load.starts[number]:.3f} s after the start of its load")


def _attempts(test: TestLog, trial: int) -> Iterator[Event]:
    for result in test.all(ResultEntry, trial):
        for number, ended in enumerate(result.attempts, 1):
            steps = result.steps[number - 1] if number <= len(result.steps) else 0
            took = f" ({count_text(steps, 'step')})" if steps else ""
            yield Event(None, f"attempt {number} of {result.method}: {ended}{took}")


def _recoveries(test: TestLog, trial: int, end: float | None) -> Iterator[Event]:
    for one in test.all(RecoveryTime, trial):
        if one.seconds is None:
            yield Event(None, "recovery: it did not recover")
        else:
            when = None if end is None else end + one.seconds
            yield Event(when, f"recovery: {one.seconds:.3f} s after the end of the last fault")


def _verdicts(test: TestLog, trial: int) -> Iterator[Event]:
    for one in test.all(Judgement, trial):
        if one.verdict != "passed":
            yield Event(None, f"verdict: {one.oracle} {one.verdict} ({one.error})")
    for ended in test.all(Trial, trial):
        if ended.outcome == "failed":
            yield Event(None, f"end: {ended.cause or ended.error}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

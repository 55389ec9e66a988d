"""Put a test's explorations of crash states together from its shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from ..core.entries import (
    Entry,
    Exploration,
    Judgement,
    Line,
    State,
    Test,
    Timing,
    Trial,
    without_times,
)
from ..core.help import add_help
from ..core.shard_entries import Part, PartState
from ..crashes.parts import Joined, join_parts
from ..crashes.report import CrashReport
from ..errors import Inconclusive, NotRecovered
from ..reports.journal_reader import TestLog
from .check import ShardLog, check_states
from .coverage import seen_elsewhere

__all__ = ["explored", "merge_explorations"]

ASSERTION = "CrashReport.assert_recovers"
Key = tuple[int, int]
"""The numbers of a trial and of a result in it."""
_JOINED = (Exploration, State, Part, PartState)


def explored(log: TestLog) -> bool:
    """Return True if a shard has tried its part of the states of this test."""
    return bool(log.all(Part))


def merge_explorations(
    nodeid: str, logs: Sequence[tuple[ShardLog, TestLog]], lost: int
) -> list[Line]:
    """Return the lines of a test, as one machine would have written them.

    Args:
        nodeid: The test.
        logs: What each shard says about it.
        lost: The number of shards that are missing.
    """
    whole = {key: _joined(nodeid, key, logs, lost) for key in _keys(logs)}
    failure: NotRecovered | Inconclusive | None = None
    # A shard that failed for a different reason may have fewer entries than one that passed.
    base = max((log for _, log in logs), key=lambda log: len(log.all(Part)))
    rejudged: dict[tuple[Key, int], Judgement] = {}
    seen: dict[Key, int] = {}
    for line in base.lines:
        entry = line.entry
        if isinstance(entry, Judgement) and entry.oracle == ASSERTION and entry.result is not None:
            key = (line.trial, entry.result)
            if key in whole:
                place = seen[key] = seen.get(key, 0) + 1
                error = _judge(whole[key].report, entry)
                failure = failure or error
                rejudged[key, place] = _with_verdict(entry, error)
    failure = failure or _without_assertion(whole.values())
    trials = _trials(logs, failure)
    return [
        *_lines(nodeid, base, whole, rejudged, trials),
        *seen_elsewhere(base, [log for _, log in logs]),
        *_ends(nodeid, logs, whole, failure),
    ]


def _trials(
    logs: Sequence[tuple[ShardLog, TestLog]], failure: NotRecovered | Inconclusive | None
) -> dict[int, Trial]:
    """Return the ends of the trials: that of a shard in which it failed, if there is one."""
    found: dict[int, Trial] = {}
    for _, log in logs:
        for number, trial in log.trials.items():
            if number not in found or (trial.outcome == "failed" != found[number].outcome):
                found[number] = trial
    if failure is None or not found:
        return found
    number = max(found)
    last, error = found[number], type(failure).__qualname__
    if last.error in ("", "NotRecovered", "Inconclusive"):
        at = f" ({last.place})" if last.place else ""
        cause = without_times(f"{error}: {str(failure).partition(chr(10))[0]}{at}")
        found[number] = dataclasses.replace(last, outcome="failed", error=error, cause=cause)
    return found


def _keys(logs: Sequence[tuple[ShardLog, TestLog]]) -> list[Key]:
    return sorted(
        {
            (line.trial, line.entry.number)
            for _, log in logs
            for line in log.lines
            if isinstance(line.entry, Part)
        }
    )


def _joined(nodeid: str, key: Key, logs: Sequence[tuple[ShardLog, TestLog]], lost: int) -> Joined:
    trial, number = key
    parts, owners = [], []
    for shard, log in logs:
        part = next((one for one in log.all(Part, trial) if one.number == number), None)
        entry = next((one for one in log.all(Exploration, trial) if one.number == number), None)
        if part is None or entry is None:
            continue
        states = [one for one in log.all(PartState, trial) if one.exploration == number]
        parts.append((part, entry, states))
        owners.append((shard, part))
    check_states(nodeid, owners)
    return join_parts(parts, test=nodeid, lost=lost + len(logs) - len(parts))


def _judge(report: CrashReport, entry: Judgement) -> NotRecovered | Inconclusive | None:
    """Judge the whole by the assertion that the test has called in each shard."""
    try:
        report.assert_recovers(**entry.arguments)
    except (NotRecovered, Inconclusive) as error:
        return error
    return None


def _with_verdict(entry: Judgement, error: Exception | None) -> Judgement:
    name = "" if error is None else type(error).__qualname__
    verdict = "passed" if error is None else "failed"
    if isinstance(error, Inconclusive):
        verdict = "inconclusive"
    return dataclasses.replace(entry, verdict=verdict, error=name)  # type: ignore[arg-type]


def _without_assertion(whole: Iterable[Joined]) -> Inconclusive | None:
    """Return an error if states are missing, whatever the test asserts."""
    for one in whole:
        if one.missing:
            return Inconclusive(f"{one.report.text()}\n  {'; '.join(one.missing)}")
    return None


def _lines(
    nodeid: str,
    base: TestLog,
    whole: dict[Key, Joined],
    rejudged: dict[tuple[Key, int], Judgement],
    trials: dict[int, Trial],
) -> Iterator[Line]:
    """Yield the lines of the test, without its end."""
    seen: dict[Key, int] = {}
    written: set[Key] = set()
    for line in base.lines:
        entry: Entry = line.entry
        if isinstance(entry, (Test, Timing)):
            continue
        if isinstance(entry, Trial):
            entry = trials[line.trial]
        if isinstance(entry, Judgement) and entry.oracle == ASSERTION and entry.result is not None:
            key = (line.trial, entry.result)
            if key in whole:
                place = seen[key] = seen.get(key, 0) + 1
                entry = rejudged[key, place]
        if isinstance(entry, _JOINED):
            number = entry.number if isinstance(entry, (Exploration, Part)) else entry.exploration
            key = (line.trial, number)
            if key in whole and key not in written:
                written.add(key)
                for one in whole[key].report.entries(number):
                    if not isinstance(one, Timing):
                        yield Line(nodeid, line.trial, one)
            if key in whole:
                continue
        yield dataclasses.replace(line, entry=entry)


def _ends(
    nodeid: str,
    logs: Sequence[tuple[ShardLog, TestLog]],
    whole: dict[Key, Joined],
    failure: NotRecovered | Inconclusive | None,
) -> Iterator[Line]:
    """Yield the end of the test.

    A failure of one shard that is not about its states stays a failure of the whole.
    """
    ends = [(shard, log.end) for shard, log in logs if log.end is not None]
    known = [end for _, end in ends]
    other = [
        (shard, end)
        for shard, end in ends
        if end.outcome == "failed" and end.error not in ("NotRecovered", "Inconclusive")
    ]
    # ``xfail`` expects the failure. With ``strict``, a shard that has found none has failed.
    expected = next((end for end in known if end.outcome == "skipped" and end.error), None)
    if expected is not None and isinstance(failure, NotRecovered):
        yield Line(nodeid, 0, expected)
        return
    failed = [end for end in known if end.outcome == "failed"]
    stopped = [shard for shard, end in ends if end.outcome == "interrupted"]
    base = dataclasses.replace(
        known[0], outcome="passed", error="", message="", place="", reproduce="", replay=""
    )
    if isinstance(failure, NotRecovered):
        yield Line(nodeid, 0, _failed(base, failure, whole))
    elif other:
        shard, end = other[0]
        yield Line(
            nodeid, 0, dataclasses.replace(end, message=f"{end.message}\n(in {shard.shard.words})")
        )
    elif failed and failure is None:
        yield Line(nodeid, 0, failed[0])
    elif stopped or failure is not None:
        why = failure or Inconclusive(f"{stopped[0].shard.words} was interrupted in this test")
        yield Line(nodeid, 0, _failed(base, why, whole))
    elif all(end.outcome == "skipped" for end in known):
        yield Line(nodeid, 0, known[0])
    else:
        yield Line(nodeid, 0, base)


def _failed(base: Test, error: NotRecovered | Inconclusive, whole: dict[Key, Joined]) -> Test:
    add_help(error)
    firsts = (one.report.first_failure for one in whole.values())
    first = next((one for one in firsts if one is not None), None)
    return dataclasses.replace(
        base,
        outcome="failed",
        error=type(error).__qualname__,
        message=without_times("\n".join([str(error), *getattr(error, "__notes__", ())])),
        place="" if first is None else first.place,
        reproduce="" if first is None else f'@chaos.crash(state="{first.state.id}")',
        replay="" if first is None else f"crash(state={first.state.id!r})",
    )

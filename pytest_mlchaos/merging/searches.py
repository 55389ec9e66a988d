"""Put a test's search for failing schedules together from its shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ..core.entries import Line, StrikeEntry, Test, Timing
from ..core.shard_entries import Searched
from ..reports.journal_reader import TestLog
from .check import ShardLog
from .coverage import seen_elsewhere

__all__ = ["merge_searches", "searched"]


def searched(log: TestLog) -> bool:
    """Return True if a shard has tried its part of the schedules of this test."""
    return bool(log.all(Searched)) or any(trial.probing for trial in log.trials.values())


def merge_searches(nodeid: str, logs: Sequence[tuple[ShardLog, TestLog]], lost: int) -> list[Line]:
    """Return the lines of a test: the trials of all shards, and one end.

    Each shard that failed has shrunk its schedule. The end has the smallest of these.

    Args:
        nodeid: The test.
        logs: What each shard says about it.
        lost: The number of shards that are missing.
    """
    all_logs = [log for _, log in logs]
    lines = [*_trials(nodeid, all_logs)]
    numbers = {line.trial for line in lines} - {0}
    late = [TestLog(nodeid, [one for one in log.lines if not one.trial]) for log in all_logs]
    lines += seen_elsewhere(late[0], late)
    strikes = sum(isinstance(line.entry, StrikeEntry) for line in lines)
    ends = [(shard, log.end) for shard, log in logs if log.end is not None]
    end = dataclasses.replace(_end(ends, logs, lost), trials=len(numbers), strikes=strikes)
    return [*lines, Line(nodeid, 0, end)]


def _trials(nodeid: str, logs: Sequence[TestLog]) -> Iterator[Line]:
    """Yield the lines of all trials, numbered anew. All shards make the one without faults."""
    after = 0
    for place, log in enumerate(logs):
        most = 0
        for line in log.lines:
            if isinstance(line.entry, (Test, Timing, Searched)):
                continue
            is_first = line.trial == 1 and log.trials.get(1) and log.trials[1].probing
            if place and (is_first or not line.trial):
                continue
            number = line.trial if not place else line.trial - 1 + after
            most = max(most, number)
            yield dataclasses.replace(line, trial=number)
        after = max(after, most)


def _end(
    ends: Sequence[tuple[ShardLog, Test]], logs: Sequence[tuple[ShardLog, TestLog]], lost: int
) -> Test:
    failed = [end for _, end in ends if end.outcome == "failed"]
    if failed:
        # All shards may have found one cause. The smallest schedule is the same in any order.
        return min(failed, key=lambda end: (not end.replay, *_weight(end.replay), end.message))
    stopped = [end for _, end in ends if end.outcome == "interrupted"]
    if stopped:
        return stopped[0]
    left = [end for _, end in ends if end.outcome == "skipped"]
    if left and len(left) < len(ends):
        message = f"{len(left)} of the shards did not try their schedules: {left[0].message}"
        return dataclasses.replace(left[0], outcome="failed", error="Inconclusive", message=message)
    base = ends[0][1]
    untried = set(base.untried).intersection(*(end.untried for _, end in ends))
    base = dataclasses.replace(base, untried=tuple(one for one in base.untried if one in untried))
    told = [one for _, log in logs for one in log.all(Searched)]
    if lost or len(told) < len(logs):
        return base  # the whole is inconclusive anyway, or the test needs no strike
    error, message = _nothing_shown(told)
    if not error:
        return base
    return dataclasses.replace(base, outcome="failed", error=error, message=message)


def _weight(replay: str) -> tuple[int, int, str]:
    return replay.count(";"), len(replay), replay


def _nothing_shown(told: Sequence[Searched]) -> tuple[str, str]:
    """Return the type of an error and its message, if the shards together have shown nothing."""
    voids = [one.void for one in told if one.void]
    if len(voids) == len(told):
        return "GaveUp", f"nothing survived any schedule, in any shard: {voids[0]}"
    silent = set(told[0].silent).intersection(*(one.silent for one in told))
    if silent:
        faults = ", ".join(name.partition(": ")[2] for name in sorted(silent))
        return "NeverStruck", f"never struck in any schedule of any shard: {faults}"
    judged = {name for one in told for name in one.judged}
    idle = sorted({name for one in told for name in one.idle} - judged)
    if idle:
        error = "Inconclusive" if idle[0].startswith("Watch.") else "BadArgument"
        return error, f"{idle[0]} judged nothing, in any schedule of any shard"
    reasons = [one.unstruck for one in told if one.unstruck]
    if reasons and not any(one.struck for one in told):
        return "Vacuous", reasons[0]
    if all(one.skipped for one in told):
        return "Vacuous", "the test was skipped under every schedule, so nothing was tested"
    return "", ""

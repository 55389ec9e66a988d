"""Merge the journals of shards: check them, judge all runs together, and give one verdict.

1. ``check.py`` reads the journals, and refuses those that are not the shards of one session.
2. ``explorations.py`` judges the crash states of all shards as one machine judges them, and
   ``searches.py`` what needs the schedules of all shards.
3. ``report.py`` writes the one report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core.entries import Line, Test
from ..core.shard_entries import COV_FAIL_UNDER, REQUIRE_POINTS
from ..reports.fault_coverage import coverage_of
from ..reports.journal_reader import SessionLog, TestLog, session_of
from ..reports.points import missed_points
from .check import ShardLog, read_shards
from .explorations import explored, merge_explorations
from .searches import merge_searches, searched

__all__ = ["Merged", "merge_shards"]

_BADNESS = {"skipped": 1, "passed": 2, "interrupted": 3, "failed": 4}


@dataclasses.dataclass(frozen=True)
class Merged:
    """All shards of a session together.

    Attributes:
        session: The session, as one machine would have recorded it.
        missing: The reasons why it allows no verdict, if nothing fails.
        failed: The tests without faults that failed.
        problems: The limits of the whole session that it misses.
    """

    session: SessionLog
    missing: Sequence[str]
    failed: Sequence[str]
    problems: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """Return 0 if everything was tried and passed, else 1."""
        outcomes = (test.outcome for test in self.session.tests.values())
        bad = any(outcome not in ("passed", "skipped") for outcome in outcomes)
        return 1 if bad or self.missing or self.failed or self.problems else 0


def merge_shards(paths: Sequence[Path]) -> Merged | None:
    """Return the merged session, or None if no journal is of a shard.

    Raises:
        BadArgument: The journals are not the shards of one session.
    """
    logs = read_shards(paths)
    if not logs:
        return None
    count = logs[0].shard.count
    lost = sorted({*range(1, count + 1)} - {one for log in logs for one in log.shard.indexes})
    shared = set(logs[0].entry.shared)
    lines: list[Line] = []
    for nodeid in sorted({name for log in logs for name in log.session.tests}):
        found = [(log, log.session.tests[nodeid]) for log in logs if nodeid in log.session.tests]
        lines += (
            _of_one_shard(found)
            if nodeid not in shared
            else _of_all_shards(nodeid, found, len(lost) + len(logs) - len(found))
        )
    failed = sorted({name for log in logs for name in log.entry.failed})
    session = session_of(lines)
    problems = [*_problems(session, logs[0].entry.options)] if not lost else []
    return Merged(session, [*_missing(logs, lost, shared)], failed, problems)


def _problems(session: SessionLog, options: Mapping[str, str]) -> Iterable[str]:
    """Yield the limits of the whole session that it misses. A shard alone cannot judge them."""
    limit = options.get(COV_FAIL_UNDER, "")
    if limit:
        found = coverage_of(session)
        if found.points and found.percent < float(limit.removesuffix("%")):
            yield (
                f"the fault coverage is {found.shown_percent} %, and --mlchaos-cov-fail-under "
                f"asks for {limit.removesuffix('%')} %"
            )
    if options.get(REQUIRE_POINTS):
        yield from map(str, missed_points(session))


def _of_one_shard(found: Sequence[tuple[ShardLog, TestLog]]) -> Iterable[Line]:
    """Return the lines of a test that belongs to one shard. If several ran it, the worst counts."""
    _, log = max(found, key=lambda one: _BADNESS.get(one[1].outcome, 3))
    return log.lines


def _of_all_shards(
    nodeid: str, found: Sequence[tuple[ShardLog, TestLog]], lost: int
) -> Iterable[Line]:
    if any(explored(log) for _, log in found):
        return merge_explorations(nodeid, found, lost)
    if any(searched(log) for _, log in found):
        return merge_searches(nodeid, found, lost)
    return _of_one_shard(found)


def _missing(logs: Sequence[ShardLog], lost: Sequence[int], shared: set[str]) -> Iterable[str]:
    """Yield the reasons why the shards allow no verdict on the whole."""
    if lost:
        numbers = ", ".join(map(str, lost[:10])) + (" ..." if len(lost) > 10 else "")
        verb = "is" if len(lost) == 1 else "are"
        noun = "shard" if len(lost) == 1 else "shards"
        yield f"{noun} {numbers} of {logs[0].shard.count} {verb} lost"
    for log in logs:
        if not log.complete:
            yield f"{log.shard.words} was {log.entry.ended}"
        for name in sorted(shared - log.session.tests.keys()):
            yield f"{log.shard.words} did not run {name}"
        for name, test in log.session.tests.items():
            if not any(isinstance(line.entry, Test) for line in test.lines):
                yield f"{log.shard.words} did not end {name}"
    if not any(log.entry.tests for log in logs):
        yield "no test was collected"

"""Keep what single shards have covered: points, and recovery code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core.coverage_entries import Guard, Recovery, Touch
from ..core.entries import Line, Point
from ..reports.journal_reader import TestLog

__all__ = ["seen_elsewhere"]

_COVERED = (Guard, Point, Recovery, Touch)


def seen_elsewhere(base: TestLog, logs: Sequence[TestLog]) -> Iterator[Line]:
    """Yield the lines on covered code that only other shards have, each once.

    Args:
        base: The shard whose lines are kept.
        logs: All shards.
    """
    known = {line.text() for line in base.lines if isinstance(line.entry, _COVERED)}
    for log in logs:
        for line in log.lines:
            if isinstance(line.entry, _COVERED) and line.text() not in known:
                known.add(line.text())
                yield line

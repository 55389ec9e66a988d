"""Refuse journals that are not the shards of one session."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.shard_entries import Part, ShardEntry
from ..core.shards import Shard
from ..errors import BadArgument
from ..reports.journal_reader import SessionLog, read_journals, timings_path

__all__ = ["ShardLog", "check_states", "read_shards"]


@dataclasses.dataclass(frozen=True)
class ShardLog:
    """The journal of one shard.

    Attributes:
        path: Its path.
        shard: The shard.
        entry: Its last line.
        session: Its tests.
    """

    path: Path
    shard: Shard
    entry: ShardEntry
    session: SessionLog

    @property
    def complete(self) -> bool:
        """Return True if the session ended by itself."""
        return not self.entry.ended


def read_shards(paths: Sequence[Path]) -> list[ShardLog]:
    """Return the shards of one session, by their numbers, or nothing if no journal is of a shard.

    Raises:
        BadArgument: A journal is truncated, two have one number, or they are not of one session.
    """
    timings = set(map(timings_path, paths))  # ``*.jsonl`` gives them, too
    paths = [path for path in paths if path not in timings]
    sessions = {path: read_journals([path]) for path in paths}
    if not any(session.shards for session in sessions.values()):
        return []
    logs = [_whole(path, session) for path, session in sessions.items()]
    if len(paths) > len(sessions):
        raise BadArgument("one journal was given twice")
    first = logs[0]
    numbers: dict[int, ShardLog] = {}
    for log in logs:
        if log.shard.count != first.shard.count:
            raise _differ(first, log, "the number of shards", first.shard.count, log.shard.count)
        for index in log.shard.indexes:
            if index in numbers:
                both = Shard(index, log.shard.count).words
                raise BadArgument(f"{numbers[index].path} and {log.path} are both of {both}")
            numbers[index] = log
    for log in logs[1:]:
        _check_same_session(first, log)
    return sorted(logs, key=lambda log: log.shard.index)


def _whole(path: Path, session: SessionLog) -> ShardLog:
    """Return the log of a shard whose journal is complete."""
    if not session.shards:
        raise BadArgument(f"{path} is not of a shard, and the others are: merge shards alone")
    entry = session.shards[-1]
    shard = Shard.parse(entry.shard)
    rows = sum(1 for row in path.read_bytes().split(b"\n") if row.strip())
    if entry.lines is None or entry.lines != rows - 1 or session.problems:
        found = (
            "it has no end, as a killed session leaves it"
            if entry.lines is None
            else f"it has {rows - 1} of {entry.lines} lines"
            if entry.lines != rows - 1
            else session.problems[0]
        )
        raise BadArgument(
            f"{path}: the journal of {shard.words} is truncated ({found}). Run this shard again. "
            f"Without this journal, the whole is inconclusive"
        )
    return ShardLog(path, shard, entry, session)


def _check_same_session(one: ShardLog, other: ShardLog) -> None:
    mine, theirs = one.entry, other.entry
    if mine.commit and theirs.commit and mine.commit != theirs.commit:
        raise _differ(one, other, "the commit", mine.commit[:12], theirs.commit[:12])
    for what, here, there in (
        ("the version of", mine.environment, theirs.environment),
        ("the option", mine.options, theirs.options),
    ):
        name = _first_difference(here, there)
        if name is not None:
            raise _differ(one, other, f"{what} {name}", here.get(name), there.get(name))
    if (mine.tests, mine.digest) != (theirs.tests, theirs.digest):
        if mine.tests != theirs.tests:
            raise _differ(one, other, "the number of collected tests", mine.tests, theirs.tests)
        raise _differ(one, other, "the collected tests", mine.digest, theirs.digest)
    if mine.shared != theirs.shared:
        name = next(iter({*mine.shared} ^ {*theirs.shared}))
        raise _differ(one, other, f"{name}", *(name in each.shared for each in (mine, theirs)))


def _first_difference(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    names = sorted({*one, *other})
    return next((name for name in names if one.get(name) != other.get(name)), None)


def _differ(one: ShardLog, other: ShardLog, what: str, mine: object, theirs: object) -> BadArgument:
    return BadArgument(
        f"{one.path} and {other.path} are not of one session: {what} differs ({mine} and {theirs})"
    )


def check_states(test: str, parts: Sequence[tuple[ShardLog, Part]]) -> None:
    """Refuse parts of an exploration whose golden runs left different states.

    Raises:
        BadArgument: The message names the first difference.
    """
    first_log, first = parts[0]
    for log, part in parts[1:]:
        if part.states != first.states:
            place = next(
                (
                    place
                    for place, (one, other) in enumerate(
                        zip(first.states, part.states, strict=False)
                    )
                    if one != other
                ),
                min(len(first.states), len(part.states)),
            )
            mine, theirs = _at(first.states, place), _at(part.states, place)
            raise BadArgument(
                f"{test}: the crash states of {first_log.path} and {log.path} differ: state "
                f"{place + 1} is {mine} in the first and {theirs} in the second. The golden runs "
                f"were not equal, so the shards are not parts of one whole"
            )
        for field in ("saved", "completed", "compared", "grown", "is_final"):
            if getattr(part, field) != getattr(first, field):
                raise BadArgument(
                    f"{test}: the golden runs of {first_log.path} and {log.path} differ in the "
                    f"files that they wrote"
                )


def _at(states: Sequence[str], place: int) -> str:
    return states[place] if place < len(states) else "missing"

"""Read journals: the entries of each test, as far as the files can be read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from ..core import coverage_entries, policy_entries  # noqa: F401  # they register kinds of entries
from ..core.entries import (
    Entry,
    Exploration,
    Line,
    NewerSchema,
    Progress,
    RecoveryTime,
    StrikeEntry,
    Test,
    Timing,
    Trial,
    parse_line,
)
from ..core.provenance import Provenance
from ..core.shard_entries import ShardEntry
from ..errors import BadArgument

__all__ = ["SessionLog", "TestLog", "read_journals", "session_of", "timings_path"]

E = TypeVar("E", bound=Entry)
_BADNESS = {"skipped": 1, "passed": 2, "interrupted": 3, "failed": 4}


def timings_path(journal: Path) -> Path:
    """Return the path of the timings that belong to a journal."""
    return journal.with_name(f"{journal.stem}.timings{journal.suffix}")


@dataclasses.dataclass(frozen=True)
class TestLog:
    """The entries of one test, in the order of the journal."""

    __test__: ClassVar[bool] = False  # pytest must not collect it

    nodeid: str
    lines: Sequence[Line]

    def all(self, kind: type[E], trial: int | None = None) -> list[E]:
        """Return the entries of one kind, of all trials or of one."""
        return [*self._index.get((kind, trial), ())]  # type: ignore[list-item]

    @functools.cached_property
    def _index(self) -> Mapping[tuple[type[Entry], int | None], Sequence[Entry]]:
        found: dict[tuple[type[Entry], int | None], list[Entry]] = {}
        for line in self.lines:
            for key in ((type(line.entry), line.trial), (type(line.entry), None)):
                found.setdefault(key, []).append(line.entry)
        return found

    @functools.cached_property
    def end(self) -> Test | None:
        """Return the entry of its end. None if the session was killed before."""
        return next(reversed(self.all(Test)), None)

    @functools.cached_property
    def provenance(self) -> Provenance | None:
        """Return what the test ran with. None in a journal of an older version."""
        return next(reversed(self.all(Provenance)), None)

    @property
    def outcome(self) -> str:
        """Return ``passed``, ``failed``, ``skipped``, ``interrupted`` or ``running``."""
        return "running" if self.end is None else self.end.outcome

    @functools.cached_property
    def trials(self) -> Mapping[int, Trial]:
        """Return the trials by their numbers."""
        return {line.trial: line.entry for line in self.lines if isinstance(line.entry, Trial)}

    @functools.cached_property
    def message(self) -> str:
        """Return the report on a failure in words, with its durations if they are known."""
        timing = self.timing("test")
        plain = self.end.message if self.end is not None else ""
        return (timing.message if timing is not None else "") or plain

    @functools.cached_property
    def explorations(self) -> Sequence[Exploration]:
        """Return the explorations of crash states."""
        return self.all(Exploration)

    @functools.cached_property
    def progress(self) -> Progress | None:
        """Return how far the test is, or was when the session was killed."""
        return next(reversed(self.all(Progress)), None)

    @functools.cached_property
    def recovery_times(self) -> Sequence[float | None]:
        """Return the time of each recovery. None stands for one that did not take place."""
        real = [one.seconds for one in self.all(Timing) if one.of == "recovery"]
        return [*(one.seconds for one in self.all(RecoveryTime)), *real]

    @functools.cached_property
    def mean_recovery(self) -> float | None:
        """Return the mean time to recovery (MTTR) of the recoveries that took place."""
        known = [one for one in self.recovery_times if one is not None]
        return sum(known) / len(known) if known else None

    def recovery_time(self, trial: int, result: int) -> float | None:
        """Return the time that a result of a trial took to recover, or None."""
        timing = self.timing("recovery", trial, result)
        if timing is not None:
            return timing.seconds
        found = [one for one in self.all(RecoveryTime, trial) if one.result == result]
        return found[0].seconds if found else None

    def seconds(self, of: str, trial: int = 0, number: int = 0, name: str = "") -> float | None:
        """Return how long something took, or None if the timings are missing."""
        timing = self.timing(of, trial, number, name)
        return None if timing is None else timing.seconds

    def timing(self, of: str, trial: int = 0, number: int = 0, name: str = "") -> Timing | None:
        """Return the timing of something, or None if it is missing."""
        return self._timings.get((of, trial, number, name))

    @functools.cached_property
    def _timings(self) -> Mapping[tuple[str, int, int, str], Timing]:
        return {
            (line.entry.of, line.trial, line.entry.number, line.entry.name): line.entry
            for line in self.lines
            if isinstance(line.entry, Timing)
        }


@dataclasses.dataclass(frozen=True)
class SessionLog:
    """All tests of a journal, or of several.

    Attributes:
        tests: The tests by their node ids, sorted.
        problems: What could not be read, as one sentence each.
        shards: The shards whose journals were read, in the order of the journals.
    """

    tests: Mapping[str, TestLog]
    problems: Sequence[str] = ()
    shards: Sequence[ShardEntry] = ()

    def lines(self) -> Iterator[Line]:
        """Yield all lines, test by test."""
        for test in self.tests.values():
            yield from test.lines


def session_of(lines: Iterable[Line], problems: Sequence[str] = ()) -> SessionLog:
    """Return the session that consists of these lines."""
    tests: dict[str, list[Line]] = {}
    shards: list[ShardEntry] = []
    for line in lines:
        if isinstance(line.entry, ShardEntry):
            shards.append(line.entry)
        else:
            tests.setdefault(line.test, []).append(line)
    found = {name: TestLog(name, tests[name]) for name in sorted(tests)}
    return SessionLog(found, problems, shards)


def read_journals(paths: Sequence[Path]) -> SessionLog:
    """Return the session of one journal or more.

    A test that several journals have in the same words counts once. If the ranks of a job have
    written them, it has one end. The timings of a journal are
    read if they are next to it.

    Raises:
        BadArgument: A file cannot be read, is not a journal, or has a newer schema.
    """
    tests: dict[str, list[list[Line]]] = {}
    problems: list[str] = []
    shards: list[ShardEntry] = []
    for path in paths:
        lines = _read(path, problems)
        beside = timings_path(path)
        if beside != path and beside.is_file() and beside not in paths:
            lines += _read(beside, problems)
        session = session_of(lines)
        shards += session.shards
        for name, test in session.tests.items():
            if list(test.lines) not in tests.setdefault(name, []):
                tests[name].append(list(test.lines))
    merged = (line for several in tests.values() for line in _of_ranks(several))
    return dataclasses.replace(session_of(merged, problems), shards=shards)


def _of_ranks(several: Sequence[list[Line]]) -> list[Line]:
    """Return the lines of one test. If several ranks of a job ran it, give it one end.

    That is the worst end of a rank. Its strikes are those of all ranks. If no rank was struck, the
    test has shown nothing.
    """
    lines = [line for lines in several for line in lines]
    ends = [line for line in lines if isinstance(line.entry, Test)]
    if not any(isinstance(line.entry, Test) and line.entry.rank for line in ends):
        return lines
    worst = max(ends, key=lambda line: _BADNESS.get(line.entry.outcome, 0))  # type: ignore[attr-defined]
    end = worst.entry
    assert isinstance(end, Test)
    strikes = sum(isinstance(line.entry, StrikeEntry) for line in lines)
    end = dataclasses.replace(end, strikes=strikes)
    if end.faults and not strikes and end.outcome == "passed":
        faults = ", ".join(end.faults)
        message = f"no rank was struck by {faults}, so the test has shown nothing"
        end = dataclasses.replace(end, outcome="failed", error="NeverStruck", message=message)
    return [
        *(line for line in lines if not isinstance(line.entry, Test)),
        dataclasses.replace(worst, entry=end),
    ]


def _read(path: Path, problems: list[str]) -> list[Line]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadArgument(f"{path}: the journal cannot be read: {error.strerror}") from None
    rows = content.split(b"\n")
    found: list[Line] = []
    skipped: list[str] = []
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            line = parse_line(row.decode())
        except NewerSchema as error:
            raise BadArgument(
                f"{path}: line {number}: {error}. Install a newer version of pytest-mlchaos"
            ) from None
        except ValueError as error:
            reason = str(error) if "entry" in str(error) else "it is not JSON"
            half = number == len(rows)
            skipped.append(
                f"{path}: line {number} is incomplete, as a killed session leaves it"
                if half
                else f"{path}: line {number} was skipped: {reason}"
            )
            continue
        if line is not None:
            found.append(line)
    if skipped and not found:
        raise BadArgument(f"{path} is not a journal of pytest-mlchaos. {skipped[0]}")
    problems += skipped
    return found

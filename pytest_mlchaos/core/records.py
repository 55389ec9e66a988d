"""Define the records of a supervised run, as data."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from .collectives import CollectiveLog
from .journal import Strike
from .validation import count_text

__all__ = [
    "Accounted",
    "Attempt",
    "FileState",
    "Gradients",
    "Launched",
    "Outcome",
    "Output",
    "Preemption",
    "PrivateStep",
    "RankRecord",
    "Record",
    "WorldRecord",
    "tell",
    "too_many_ended",
]

Outcome: TypeAlias = Literal["finished", "failed", "hung", "halted", "stopped"]


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of the subject.

    Attributes:
        ended: How it ended.
        steps: Its number of optimizer steps.
        start: The start, in seconds since 1970. 0 if it is unknown.
        seconds: The duration on the wall clock.
        ranks: The number of ranks in a world, and 0 elsewhere.
    """

    ended: str
    steps: int
    start: float = dataclasses.field(default=0.0, compare=False, repr=False)
    seconds: float = dataclasses.field(default=0.0, compare=False, repr=False)
    ranks: int = dataclasses.field(default=0, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Gradients:
    """The gradients that one optimizer step received.

    Attributes:
        samples: The number of samples whose backward pass ended since the step before.
        norms: The norm of each parameter's gradient. None if nothing could be measured.
        untouched: True if no fault had struck before. Then the step equals that of the golden run,
            and was not measured.
    """

    samples: int
    norms: tuple[float, ...] | None
    untouched: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """One SIGTERM, or a different signal that announces the end, and its effects.

    Attributes:
        where: The site and the visit.
        grace: The seconds between the signal and SIGKILL.
        handled: True if the process had a handler for the signal.
        lasted: The seconds from the signal to the end of the process, on the trial's clock.
        killed: True if SIGKILL ended the process.
        saved: The files that changed after the signal, relative to the work directory.
        cut: Those of them that were open for writing at the end.
        unmoved: Those of them that still had a temporary name.
        more_steps: The optimizer steps after the first of them was written.
        signal: The name of the signal.
    """

    where: str
    grace: float
    handled: bool
    lasted: float
    killed: bool
    saved: tuple[str, ...]
    cut: tuple[str, ...]
    unmoved: tuple[str, ...]
    more_steps: int
    signal: str = "SIGTERM"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrivateStep:
    """One optimizer step of a run that is judged for its privacy.

    Attributes:
        noise: The noise multiplier. 0 if the step added no noise.
        rate: The sample rate that its accountant was told last, or None if it was told none.
        before: A digest of the parameters before the step.
        after: The same after it.
    """

    noise: float
    rate: float | None
    before: bytes
    after: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Accounted:
    """Hold what a privacy accountant knows at the end of an attempt.

    Attributes:
        kind: The class of the accountant.
        history: Its entries: noise multiplier, sample rate, number of steps.
    """

    kind: Any
    history: tuple[tuple[float, float, int], ...]

    @property
    def steps(self) -> int:
        """Return the number of accounted steps."""
        return sum(steps for _, _, steps in self.history)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """The record of a subject that returned, after one attempt or more.

    Attributes:
        value: The value that the subject returned.
        attempts: How each attempt ended.
        faults: The strikes, in order.
        duration: The seconds that it took, on the trial's clock.
        parameters: The parameters of its models.
        kept: A copy of the value, made when the subject returned.
    """

    value: Any
    attempts: tuple[Attempt, ...]
    faults: tuple[Strike, ...]
    duration: float
    parameters: Sequence[Sequence[Any]] = ()
    kept: Any = None
    gradients: Sequence[Sequence[Gradients]] = ()
    """The gradients that each attempt's optimizer steps received.

    Empty if they were not recorded.
    """
    preemptions: Sequence[Preemption | None] = ()
    """The signal that announced the end of each attempt, or None."""
    not_finite: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """The number of values that were not finite at the end, by class and name, in its models and
    optimizers."""
    losses: Sequence[Sequence[float]] = ()
    """The loss of each attempt's backward passes, if it is a single number."""
    real_time: str = ""
    """The reason why a virtual clock became real. Empty if it did not."""
    looked: Any = None
    """The result of the caller's ``look``, which saw the value and the directories at the end."""
    private: Sequence[Sequence[PrivateStep]] = ()
    """Each attempt's steps with what they mean for privacy. Empty if they were not recorded."""
    accounted: Accounted | None = None
    """The entries of the last attempt's privacy accountant."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FileState:
    """The content of a file.

    Two databases are equal if their tables have the same rows, in any order. Their bytes differ
    with each transaction. Two archives are equal if their members are. Their bytes differ with the
    time.

    Attributes:
        size: The size in bytes.
        lines: The number of line ends.
        digest: A digest of the content.
        closed: True if the content can end here: a text that ends with a newline, or JSON that can
            be read. None if unknown.
        beginnings: Digests of the first bytes, by their number.
        tables: For a database: by table, the number of its rows and a digest of them.
        packed: For an archive: a digest of its members.
        may_be_empty: True for a database whose format takes an empty file for one without tables.
    """

    size: int
    lines: int
    digest: bytes
    closed: bool | None = None
    beginnings: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, tuple[int, bytes]] | None = None
    packed: bytes | None = None
    may_be_empty: bool = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileState):
            return NotImplemented
        if self.tables is not None and other.tables is not None:
            return self.tables == other.tables
        if self.packed is not None and self.packed == other.packed:
            return True
        return (self.size, self.lines, self.digest) == (other.size, other.lines, other.digest)

    __hash__ = None  # type: ignore[assignment]  # equal files may have different bytes

    def begins_with(self, other: FileState) -> bool:
        """Return True if ``other`` is a proper beginning of this content."""
        return other.size < self.size and self.beginnings.get(other.size) == other.digest


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """The record of one call of a pipeline.

    Attributes:
        record: The value that it returned, and its strikes.
        error: The exception that it raised, or None.
        before: The files in its directories before the call, by path.
        after: The files after the call, by path.
        renamed: The files that were created by a rename.
        read_back: The files that the call read after it had written them.
        folders: The directories after the call that were not there at first, by path.
        temporary: The number of files and directories of ``tempfile`` that the call left outside
            its directories.
        ended: The end of the call, on the trial's clock.
        fault_ended: The end of its last fault, on the trial's clock. None if no fault struck.
        struck: Each table that a fault has struck, before and after the strike.
        tables: The content of the files that may hold tables, if a fault struck one.
        by_composite: True if a composite fault declared the faults.
        calls: How often it called each counted target.
        uploads: The URLs of the uploads in parts that it left open.
        unremoved: The files that it tried to remove, but a fault made it fail.
    """

    record: Record
    error: BaseException | None
    before: Mapping[str, FileState]
    after: Mapping[str, FileState]
    renamed: frozenset[str] = frozenset()
    read_back: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    temporary: int = 0
    ended: float = 0.0
    fault_ended: float | None = None
    struck: tuple[tuple[Any, Any], ...] = ()
    tables: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    by_composite: bool = False
    calls: Mapping[str, int] = dataclasses.field(default_factory=dict)
    uploads: frozenset[str] = frozenset()
    unremoved: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Launched:
    """The collectives that one rank launched in an attempt, and its end in one word."""

    rank: int
    outcome: Outcome
    collectives: CollectiveLog


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RankRecord:
    """The record of one rank of a world, in its last attempt.

    Attributes:
        rank: The number of the rank.
        outcome: One word for its end. It ``finished``, it ``failed`` by itself, or it ``hung`` (it
            was still running at the time limit). It was ``halted`` by a fault that blocks forever
            or longer than the world lasted, or ``stopped`` because a different rank had failed.
        ended: The end in words.
        exitcode: The exit code of the process, or None.
        duration: The seconds that it took.
        lag: The seconds from the first failure of any rank to its end.
        steps: The number of its optimizer steps.
        joining: True if it called ``init_process_group``.
        joined: True if it initialized its process group.
        faults: The strikes in this rank.
        stack: Its stack when it was stopped.
        output: What it printed.
        load_value: Return the value that it returned.
        load_error: Return the exception that it raised.
        load_parameters: Return the parameters of its models.
        load_not_finite: Return the numbers of values that were not finite, by class and name.
        collectives: The collectives that it launched, if the world records them.
        after_strike: The seconds from the first strike in any rank to its end.
        load_states: Return the digests of its state after each step, or None without any.
    """

    rank: int
    outcome: Outcome
    ended: str
    exitcode: int | None
    duration: float
    lag: float | None
    steps: int
    joining: bool
    joined: bool
    faults: tuple[Strike, ...]
    stack: str
    output: str
    load_value: Callable[[], Any]
    load_error: Callable[[], BaseException | None]
    load_parameters: Callable[[], Sequence[Sequence[Any]]]
    load_not_finite: Callable[[], Mapping[tuple[str, str], int]]
    collectives: CollectiveLog = dataclasses.field(default_factory=CollectiveLog)
    load_states: Callable[[], Any] = lambda: None
    after_strike: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorldRecord:
    """The record of a world after its last attempt.

    Attributes:
        ranks: The record of each rank.
        attempts: How each attempt ended.
        faults: The strikes, in order.
        duration: The seconds that it took.
        first: The rank that failed first, or None.
        grace: The seconds that the other ranks had to end after that.
        timeout: The time limit in seconds.
        elastic: True if torch's elastic agents ran it.
    """

    ranks: tuple[RankRecord, ...]
    attempts: tuple[Attempt, ...]
    faults: tuple[Strike, ...]
    duration: float
    first: int | None
    grace: float
    timeout: float
    elastic: bool = False
    recovery_time: float | None = None
    """The longest time from a failure to the next step of all ranks."""
    orphans: tuple[str, ...] | None = None
    """The processes that ranks left running, in words. None if they were not judged."""
    is_kept: bool = False
    """True for a golden world that an earlier trial of the test ran."""
    ended_by: tuple[str, ...] = ()
    """The fault that ended each attempt, as it prints. Empty for an attempt that no fault ended."""
    earlier: tuple[tuple[Launched, ...], ...] = ()
    """The collectives of each attempt before the last one, if the world records them."""

    @property
    def launched(self) -> tuple[tuple[Launched, ...], ...]:
        """Return the collectives of all ranks in each attempt."""
        last = tuple(Launched(one.rank, one.outcome, one.collectives) for one in self.ranks)
        return (*self.earlier, last)

    @property
    def unfinished(self) -> RankRecord | None:
        """Return the rank that failed first, or else one that did not finish, or None.

        The other ranks may have failed only because of the first.
        """
        in_order = sorted(self.ranks, key=lambda rank: rank.rank != self.first)
        return next((rank for rank in in_order if rank.outcome != "finished"), None)


def too_many_ended(whose: str, attempts: int, limit: str) -> str:
    """Explain that faults ended a process more often than it may restart.

    This says nothing about the job.

    Args:
        whose: The process in words.
        attempts: The number of its attempts.
        limit: The name of the parameter that limits the restarts.
    """
    allowed = attempts - 1
    return (
        f"{whose} did not finish within {count_text(allowed, 'restart')}: faults ended it "
        f"{count_text(attempts, 'time')}, and "
        f"{limit}={allowed} allows for {allowed}. Raise {limit}, or let fewer faults strike"
    )


def tell(attempts: Sequence[Attempt]) -> str:
    """Describe attempts in words, one per line. Attempts that ended alike share a line."""
    lines = []
    numbered = enumerate(attempts, 1)
    sizes = len({attempt.ranks for attempt in attempts}) > 1
    for attempt, group in itertools.groupby(numbered, key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        which = (
            f"attempt {numbers[0]}"
            if len(numbers) == 1
            else f"attempts {numbers[0]} to {numbers[-1]}"
        )
        ended = textwrap.shorten(attempt.ended, 140, placeholder=" ...")
        size = f" of {count_text(attempt.ranks, 'rank')}" if sizes else ""
        lines.append(
            f"  {which}{size}: {attempt.steps} step{'' if attempt.steps == 1 else 's'}, then "
            f"{ended}"
        )
    return "\n".join(lines)

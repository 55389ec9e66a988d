"""What happened in a supervised run, as data."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from .journal import Strike

__all__ = [
    "Attempt",
    "FileState",
    "Gradients",
    "Outcome",
    "Output",
    "Preemption",
    "RankRecord",
    "Record",
    "WorldRecord",
    "tell",
    "too_many_ended",
]

Outcome: TypeAlias = Literal["finished", "failed", "hung", "halted", "stopped"]


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One life of the subject: how it ended, and how many optimizer steps it took."""

    ended: str
    steps: int


@dataclasses.dataclass(frozen=True, slots=True)
class Gradients:
    """What one optimizer step was given: samples whose backward pass came to its end since the step before, and the norm of each gradient.

    ``norms``: a float for each parameter that has a gradient; None where nothing could be measured. ``untouched``: nothing had
    struck by then, so that it is the golden run's step, and was not measured.
    """

    samples: int
    norms: tuple[float, ...] | None
    untouched: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """One SIGTERM, or another ``signal`` that announces the end, and what became of it.

    ``where``: the site and visit. ``handled``: whether the process had a handler for it. ``lasted``: seconds from the signal to the end
    of the process, on the trial's clock; ``killed``: whether SIGKILL ended it. ``saved``: files that changed meanwhile, ``cut``: those of
    them that were open for writing at the end, ``unmoved``: those under a name for the time being; relative to the work directory.
    ``more_steps``: optimizer steps that were taken after the first of them was written.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A subject that returned, after as many attempts as it took; ``kept`` is a copy of its value as it was then."""

    value: Any
    attempts: tuple[Attempt, ...]
    faults: tuple[Strike, ...]
    duration: float
    parameters: Sequence[Sequence[Any]] = ()
    kept: Any = None
    gradients: Sequence[Sequence[Gradients]] = ()
    """Of each attempt, what its optimizer steps were given; empty where nobody watched."""
    preemptions: Sequence[Preemption | None] = ()
    """Of each attempt, the signal that announced its end, if one did."""
    not_finite: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """How many values of its models and optimizers were not finite at the end, by the class and the name."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileState:
    """A file's content: its size in bytes, how many lines end in it, and a digest.

    ``closed``: whether the content can end here: a text that ends with its last line, or JSON that can be read. None if neither can be
    said. ``beginnings``: digests of the first bytes, by their number.
    """

    size: int
    lines: int
    digest: bytes
    closed: bool | None = dataclasses.field(default=None, compare=False)
    beginnings: Mapping[int, bytes] = dataclasses.field(default_factory=dict, compare=False)

    def begins_with(self, other: FileState) -> bool:
        """Return True if ``other`` is a proper beginning of this content."""
        return other.size < self.size and self.beginnings.get(other.size) == other.digest


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """A pipeline that was called once: what it returned or raised, and the files (by path) below its directories, before and after.

    ``renamed``: files that came by a rename. ``read_back``: files that the call read after it had written them.
    """

    record: Record
    error: BaseException | None
    before: Mapping[str, FileState]
    after: Mapping[str, FileState]
    renamed: frozenset[str] = frozenset()
    read_back: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RankRecord:
    """One rank of a world, in its last attempt.

    ``ended`` says how in words, ``outcome`` in one: it ``finished``, ``failed`` by itself, ``hung`` (it was still running when the
    world's time was over), was ``halted`` by a fault that never lets it go on, or was ``stopped`` because another had failed. ``lag``:
    seconds from the first failure of any rank to its end. ``joined``: whether it
    initialised its process group. ``load_…`` get what it sent home.
    """

    rank: int
    outcome: Outcome
    ended: str
    exitcode: int | None
    duration: float
    lag: float | None
    steps: int
    joined: bool
    faults: tuple[Strike, ...]
    stack: str
    output: str
    load_value: Callable[[], Any]
    load_error: Callable[[], BaseException | None]
    load_parameters: Callable[[], Sequence[Sequence[Any]]]
    load_not_finite: Callable[[], Mapping[tuple[str, str], int]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorldRecord:
    """A world after its last attempt. ``first``: the rank that failed first; ``grace``: seconds that the others were given then."""

    ranks: tuple[RankRecord, ...]
    attempts: tuple[Attempt, ...]
    faults: tuple[Strike, ...]
    duration: float
    first: int | None
    grace: float
    timeout: float
    ended_by: tuple[str, ...] = ()
    """The fault that ended each attempt, as it prints; nothing for an attempt that no fault has ended."""


def too_many_ended(whose: str, attempts: int, limit: str) -> str:
    """Explain that faults ended a process more often than it may be restarted: that says nothing about the job."""
    allowed = attempts - 1
    return (
        f"{whose} did not finish within {_count_text(allowed, 'restart')}: faults ended it {_count_text(attempts, 'time')}, and "
        f"{limit}={allowed} allows for {allowed}. Raise {limit}, or let fewer faults strike"
    )


def _count_text(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def tell(attempts: Sequence[Attempt]) -> str:
    """Attempts in words, a line each; those that went alike share one."""
    lines = []
    numbered = enumerate(attempts, 1)
    for attempt, group in itertools.groupby(numbered, key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        which = f"attempt {numbers[0]}" if len(numbers) == 1 else f"attempts {numbers[0]} to {numbers[-1]}"
        ended = textwrap.shorten(attempt.ended, 140, placeholder=" ...")
        lines.append(f"  {which}: {attempt.steps} step{'' if attempt.steps == 1 else 's'}, then {ended}")
    return "\n".join(lines)

"""Plain data: the content of a work directory, a crash state, one run, and its outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from ..runs.traces import Divergence, Trace

__all__ = [
    "COMPLETING",
    "WORKER",
    "Change",
    "Content",
    "CrashOutcome",
    "CrashState",
    "EndDifference",
    "File",
    "Folder",
    "Link",
    "Node",
    "Observed",
    "RunFacts",
    "RunResult",
    "StepEnd",
    "Tree",
    "Verdict",
    "completed_files",
    "tree_key",
]

WORKER = "mlchaos: "
"""Prefix of an output line that says how a thread of the run ended."""

Verdict: TypeAlias = Literal["recovered", "diverged", "failed", "hung", "restarted"]


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """The content of a file.

    Attributes:
        size: Its length in bytes.
        digest: Its digest.
        pieces: Its (offset, length) pairs in the store, in order. A negative offset stands for zero
            bytes.
        blocks: The digests of its blocks, in units of the store.
    """

    size: int
    digest: bytes
    pieces: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False)
    blocks: tuple[bytes, ...] = dataclasses.field(default=(), compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A plain file.

    ``mode`` and ``mtime`` (ns) are restored with it, but files with the same content are equal.
    """

    content: Content
    mode: int = dataclasses.field(default=0o644, compare=False)
    mtime: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
    """A directory."""

    mode: int = dataclasses.field(default=0o755, compare=False)
    mtime: int = dataclasses.field(default=0, compare=False)


Node: TypeAlias = File | Link | Folder
Tree: TypeAlias = Mapping[str, Node]
"""A directory's content by relative path (with ``/``). The directory itself is ``""``, if it
exists."""


def tree_key(tree: Tree) -> frozenset[tuple[str, Node]]:
    """Return a key that is equal for equal trees."""
    return frozenset(tree.items())


Kind: TypeAlias = Literal[
    "created",
    "grew",
    "truncated",
    "rewritten",
    "removed",
    "moved",
    "arrived",
    "link",
    "folder",
    "closed",
    "synced",
]


COMPLETING = ("closed", "moved", "arrived")
"""The kinds of changes that complete a file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One observed change of a work directory.

    Attributes:
        kind: What happened.
        path: The path that changed.
        step: The number of complete steps.
        before: The whole directory before it, or None if the content of a file is unknown, because
            it was gone before it could be read.
        after: The whole directory after it, or None.
        start: For a file that ``grew``, its length before.
        source: For a file that ``moved``, its path before.
        unsynced: The paths whose data a power loss may still take.
        loose: The paths whose directory entries a power loss may still take.
        writes: The largest number of writes by which it grew, or 0 if this is unknown.
    """

    kind: Kind
    path: str
    step: int
    before: Tree | None
    after: Tree | None
    start: int = 0
    source: str | None = None
    unsynced: frozenset[str] = frozenset()
    loose: frozenset[str] = frozenset()
    writes: int = 0


def completed_files(changes: Iterable[Change]) -> Iterator[tuple[Change, File]]:
    """Yield the changes that completed a file, with the file."""
    for change in changes:
        node = change.after.get(change.path) if change.after is not None else None
        if isinstance(node, File) and change.kind in COMPLETING:
            yield change, node


@dataclasses.dataclass(frozen=True, slots=True)
class CrashState:
    """One distinct content of the work directory that a crash could leave.

    Attributes:
        id: The name that ``chaos.crash(state=...)`` takes.
        path: The file that it is about.
        what: The state in words.
        step: The number of complete steps when it appeared.
        until: The number of complete steps when it disappeared.
        torn: True if it was not observed, but derived from an observed content.
        parent: The state whose resumed run was crashed again.
        cut: With several ranks, the number of events of each that had happened.
    """

    id: str
    step: int
    path: str
    what: str
    tree: Tree = dataclasses.field(repr=False)
    torn: bool = False
    until: int = 0
    parent: str | None = None
    cut: tuple[int, ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """Hold what a run can have learned about the directory that it started from.

    All paths are relative, and those at the start of the run.

    Attributes:
        read: The files that were opened. Their content may matter.
        asked: The paths whose size or times may have been asked for, or None for all of them. The
            root is an empty text.
        kept: The files that still existed at the end, as the run found them or written in part.
    """

    read: frozenset[str]
    asked: frozenset[str] | None
    kept: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class StepEnd:
    """The directory when all ranks have ended a step. ``step`` is -1 before the first change."""

    step: int
    tree: Tree = dataclasses.field(repr=False)


@dataclasses.dataclass(slots=True, kw_only=True)
class RunResult:
    """One run of a subject: its result and its effects.

    Attributes:
        value: The returned value.
        error: The error that it raised.
        hung: Its place when its time ended.
        cut: The seconds after which it was ended early, because it was in a place where an earlier
            run had hung.
        trace: Its optimizer steps.
        duration: The seconds that it took.
        output: The text that it printed.
        completed: The files that it completed, in order, with digests of their contents. Recorded
            runs only.
        saved: The files from which a later run could resume: those that it completed after its
            first step, if it takes steps.
        read: The files of an earlier process that it read, by their paths at its start, or None if
            this cannot be seen.
        observed: What it can have learned about the directory, or None if this cannot be seen.
        place: The user's line that raised the error.
        files: Digests of the files in the work directory at the end.
        texts: The bytes of short texts among them.
        grown: The files that were only appended to. Recorded runs only.
        rank: With several ranks, the one that failed or hung first.
        traces: With several ranks, the steps of each.
        step_ends: With several ranks, the directory at the start, when all ranks had ended one step
            and none had changed it in the next, and at the end. Recorded runs only.
        unrepeated: With several ranks, how a first run from the same content failed, if this one
            did not.
    """

    value: Any = None
    error: BaseException | None = None
    hung: str | None = None
    cut: float | None = None
    trace: Trace = dataclasses.field(default_factory=Trace)
    duration: float = 0.0
    output: str = ""
    completed: tuple[tuple[str, bytes], ...] = ()
    saved: tuple[str, ...] = ()
    read: frozenset[str] | None = None
    observed: Observed | None = None
    place: str = ""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    grown: frozenset[str] = frozenset()
    rank: int | None = None
    traces: tuple[Trace, ...] = ()
    step_ends: tuple[StepEnd, ...] = ()
    unrepeated: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class EndDifference:
    """A file whose content at the end of a run differs from the golden run's.

    Attributes:
        path: The file.
        words: The difference in words.
        continued: If it is in a numbered directory and this run made the next one, a note on that.
        log: For an append-only text that has all lines of the golden run, a note on the others.
    """

    path: str
    words: str
    continued: str = ""
    log: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of one run that the verdict on all runs together needs. They are plain data.

    They stand for the contents of directories, which stay on the machine that made the run.

    Attributes:
        differences: The files that differ at the end, sorted by path.
        had_save: True if the state had a file to resume from.
        has_resumed: True if the run has used such a file, or may have.
        mixed: If files of the state are of different saves, this in words.
        finished: True if the state is that of the finished job.
    """

    differences: tuple[EndDifference, ...] = ()
    had_save: bool = False
    has_resumed: bool = False
    mixed: str = ""
    finished: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class CrashOutcome:
    """The result of one resumed run.

    Attributes:
        state: The crash state.
        verdict: ``"recovered"``, ``"diverged"``, ``"failed"``, ``"hung"`` or ``"restarted"``.
        divergence: The first difference from the golden run, if it diverged.
        resumed_at: The step from which it resumed, or None if it is unknown.
        lost_steps: The steps that it took again.
        recovery_time: The seconds from its start to its first step, or None if it took none.
        duration: The seconds that it took.
        error: The error that it raised, or a ``TimeoutError`` that says where it hung.
        place: The user's line that raised it.
        output: The text that it printed.
        detail: Further facts, in words.
        value: The returned value, if it differs.
        completed: The files that it wrote, if steps do not show its progress.
        markers: Entries of the returned value that may show the progress.
        read: The files of the crashed run that it read, or None if this cannot be seen.
        from_scratch: True if this run and all others began from scratch.
        finished: True if the job had finished, and was started again.
        left: Digests of the files at its end, or None if it was cut off.
        texts: The bytes of short texts.
        steps: The steps that it took.
        follows: The id of the state whose run decided this outcome, because a run could not tell
            the two states apart. None if this state was run itself.
        checks: The id of a state from which this outcome would follow. This state was run to check
            that, and None if it was not.
        ended_early: True if the run ended at its horizon.
        could_end_early: True if the run went on to its end to check the horizon.
        rank: With several ranks, the one that failed, hung or diverged first.
        facts: The facts of this run that the verdict on all runs together needs. None if they are
            not derived yet.
    """

    state: CrashState
    verdict: Verdict
    resumed_at: int | None = None
    lost_steps: int | None = None
    recovery_time: float | None = None
    duration: float = 0.0
    error: BaseException | None = None
    divergence: Divergence | None = None
    detail: str = ""
    place: str = ""
    output: str = dataclasses.field(default="", repr=False)
    value: Any = dataclasses.field(default=None, repr=False, compare=False)
    completed: tuple[tuple[str, bytes], ...] = dataclasses.field(
        default=(), repr=False, compare=False
    )
    markers: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    read: frozenset[str] | None = dataclasses.field(default=None, repr=False, compare=False)
    from_scratch: bool = False
    finished: bool = False
    left: Mapping[str, bytes] | None = dataclasses.field(default=None, repr=False, compare=False)
    texts: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    steps: int = 0
    follows: str | None = None
    checks: str | None = None
    ended_early: bool = False
    could_end_early: bool = False
    rank: int | None = None
    facts: RunFacts | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def verified(self) -> bool:
        """Return True if this state was only run to check that its outcome follows from another."""
        return self.checks is not None

"""Crash states: what a work directory held, how a subject resumed from it, and what a whole exploration found. Plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ..runs.traces import Divergence, Trace

__all__ = [
    "WORKER",
    "Change",
    "Content",
    "CrashOutcome",
    "CrashState",
    "File",
    "Folder",
    "Link",
    "Node",
    "RunResult",
    "Tree",
    "Verdict",
    "tree_key",
]

WORKER = "mlchaos: "
"""Begins a line of a run's output that says what ended one of its threads."""

Verdict: TypeAlias = Literal["recovered", "diverged", "failed", "hung", "restarted"]


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: its length in bytes, a digest, and where the bytes are kept: (offset, length) in the store, in order.

    A negative offset stands for as many zero bytes. ``blocks``: the digests of its parts, in units of the store.
    """

    size: int
    digest: bytes
    pieces: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False)
    blocks: tuple[bytes, ...] = dataclasses.field(default=(), compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A plain file. ``mode`` and ``mtime`` (ns) are put back with it, but two files of one content are the same."""

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
"""A directory's content by path relative to it (with ``/``); the directory itself is ``""``, where it exists."""


def tree_key(tree: Tree) -> frozenset[tuple[str, Node]]:
    """What makes two trees the same."""
    return frozenset(tree.items())


Kind: TypeAlias = Literal["created", "grew", "truncated", "rewritten", "removed", "moved", "arrived", "link", "folder", "closed", "synced"]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One change of a work directory, as it was seen.

    ``path``: what changed; ``step``: how many steps were complete; ``start``: for a file that ``grew``, its length before; ``writes``: by
    how many writes it grew, at most; 0 if this is not known.
    ``before``, ``after``: the whole directory; None where not every file's content is known (it was gone before it could be read).
    ``unsynced``: paths whose data a power loss may still take; ``loose``: those whose directory entries it may.
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


@dataclasses.dataclass(frozen=True, slots=True)
class CrashState:
    """One distinct content of the work directory that a crash could leave.

    Attributes:
        id: The name that ``chaos.crash(state=...)`` takes.
        path: The file that it is about.
        what: The state in words.
        step: The number of complete steps when it appeared.
        until: The number of complete steps when it disappeared.
        torn: True if it was not seen as a whole, but made from what was.
        parent: The state whose resumed run was crashed again.
    """

    id: str
    step: int
    path: str
    what: str
    tree: Tree = dataclasses.field(repr=False)
    torn: bool = False
    until: int = 0
    parent: str | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class RunResult:
    """One run of a subject: what it returned, or raised, and what it did.

    ``place``: the user's line that the error came from. ``files``: digests of what lies below the work directory at the end;
    ``texts``: the bytes of short texts among it; ``grown``: the files that were only appended to, where it was recorded. ``hung``: where
    it stood when its time was over; ``cut``: the seconds after which it was ended early, as it stood where an earlier one hung.
    ``completed``: the files that it brought to an end, in their order, with digests of their contents; where it was recorded. ``saved``:
    those that a later run could go on from, as they were brought to an end after the first step, if there are steps. ``read``: the files
    of an earlier process that it read, by their paths at its start; None where this cannot be seen.
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
    place: str = ""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    grown: frozenset[str] = frozenset()


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
    completed: tuple[tuple[str, bytes], ...] = dataclasses.field(default=(), repr=False, compare=False)
    markers: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    read: frozenset[str] | None = dataclasses.field(default=None, repr=False, compare=False)
    from_scratch: bool = False
    finished: bool = False
    left: Mapping[str, bytes] | None = dataclasses.field(default=None, repr=False, compare=False)
    texts: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False, compare=False)

"""Where a subject keeps its checkpoints, and what an exploration needs of it: a directory has one, and so has a URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..end_digests import endings
from ..model import Change, Tree
from . import inotify
from .content_store import ContentStore
from .directory import Disk
from .hooks import install_hooks
from .inotify_recorder import InotifyRecorder
from .polling_recorder import PollingRecorder
from .read_log import InotifyReadLog

__all__ = ["LocalDirectory", "Location", "NoReadLog", "ReadLog", "Recorder", "TreeHolder"]


class Recorder(Protocol):
    """Follows what happens in a place. ``start``: what was there first; ``step`` is what the next changes are put down to."""

    step: int
    start: Tree | None

    @property
    def changes(self) -> Sequence[Change]:
        """What it saw."""
        ...

    @property
    def unseen(self) -> Sequence[int]:
        """How many changes it knows of that left a content which it did not see: a number for each time that there were some."""
        ...

    def drain(self, *, closely: bool = False) -> None:
        """Take in what has happened since the last time; ``closely``: also what raised no event."""

    def tree(self) -> Tree | None:
        """What was there when it looked last."""
        ...

    def close(self) -> None:
        """Follow it no longer."""


class ReadLog(Protocol):
    """Notes which files of an earlier process are read. ``files``: their paths, afterwards; None where this cannot be seen."""

    files: frozenset[str] | None


class TreeHolder(Protocol):
    """A place, and the trees that it is made to hold."""

    def hold(self, tree: Tree) -> None:
        """Make it hold just this."""


class Location(Protocol):
    """Where a subject keeps its checkpoints. As text it is what the user calls it."""

    def recorder(self, contents: ContentStore) -> Recorder:
        """What follows it from now on."""
        ...

    def watched(self, recorder: Any) -> contextlib.AbstractContextManager[None]:
        """While it is entered, the recorder looks whenever something may have been written."""
        ...

    def reads(self, recorder: Recorder | None) -> contextlib.AbstractContextManager[ReadLog]:
        """While it is entered, what is read there is noted, but for what the recorder reads."""
        ...

    def holding(self, contents: ContentStore) -> TreeHolder:
        """What puts a content there."""
        ...

    def endings(self) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """The files that are there, by path: what they hold in short, and the bytes of short texts."""
        ...


class NoReadLog:
    """Reads that cannot be seen."""

    files: frozenset[str] | None = None


class LocalDirectory:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def recorder(self, contents: ContentStore) -> InotifyRecorder | PollingRecorder:
        """Return a recorder that follows events; one that compares listings if the system has none, or refuses more watches."""
        if inotify.available():
            with contextlib.suppress(inotify.NoInotify):
                return InotifyRecorder(self._root, contents)
        return PollingRecorder(self._root, contents)

    def watched(self, recorder: Any) -> contextlib.AbstractContextManager[None]:
        """At each call of a C function."""
        return install_hooks(recorder)

    @contextlib.contextmanager
    def reads(self, recorder: Recorder | None) -> Iterator[InotifyReadLog]:
        """Seen by events of the filesystem."""
        with InotifyReadLog.of(self._root) as reads:
            if isinstance(recorder, InotifyRecorder):
                recorder.reads = reads
            yield reads

    def holding(self, contents: ContentStore) -> Disk:
        """What puts a content there."""
        return Disk(self._root, contents)

    def endings(self) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """Of the plain files."""
        return endings(self._root)

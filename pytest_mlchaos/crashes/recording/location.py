"""Locations of checkpoints: a directory, or a URL.

The protocols are the operations that an exploration needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...engine import inotify
from ..end_digests import endings
from ..model import Change, Observed, Tree
from .content_store import ContentStore
from .directory import Disk
from .hooks import install_hooks
from .inotify_recorder import InotifyRecorder
from .polling_recorder import PollingRecorder
from .read_log import InotifyReadLog

__all__ = ["LocalDirectory", "Location", "NoReadLog", "ReadLog", "Recorder", "TreeHolder"]


class Recorder(Protocol):
    """Follows the changes at a location.

    ``start`` is the content at first. ``step`` is the step to which later changes are attributed.
    """

    step: int
    start: Tree | None

    @property
    def changes(self) -> Sequence[Change]:
        """Return the changes so far."""
        ...

    @property
    def unseen(self) -> Sequence[int]:
        """Return per look the number of changes after which the content is unknown."""
        ...

    def drain(self, *, closely: bool = False) -> None:
        """Record the changes since the last time. ``closely`` includes changes without an event."""

    def tree(self) -> Tree | None:
        """Return the content at the last look."""
        ...

    def close(self) -> None:
        """Stop following the location."""


class ReadLog(Protocol):
    """Notes which files of an earlier process are read.

    ``files`` has their paths afterwards, or None if reads cannot be seen. ``observed`` has all that
    the run can have learned, or None.
    """

    files: frozenset[str] | None
    observed: Observed | None

    def opened(self) -> frozenset[str]:
        """Return the files that were opened so far."""
        ...

    def unseen(self) -> contextlib.AbstractContextManager[None]:
        """Return a context whose reads do not count."""
        ...


class TreeHolder(Protocol):
    """A location that is made to hold one tree after the other."""

    def hold(self, tree: Tree) -> None:
        """Make the location hold exactly this tree."""


class Location(Protocol):
    """A location of checkpoints. Its text is the user's name for it."""

    def recorder(self, contents: ContentStore) -> Recorder:
        """Return a recorder of the location."""
        ...

    def watched(self, recorder: object) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the recorder looks whenever something may have been written."""
        ...

    def reads(self, recorder: Recorder | None) -> contextlib.AbstractContextManager[ReadLog]:
        """Return a context that notes which files are read, without the recorder's own reads."""
        ...

    def holding(self, contents: ContentStore) -> TreeHolder:
        """Return an object that restores the location's content."""
        ...

    def endings(self) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """Return digests of the files at the location, and the bytes of short texts, by path."""
        ...


class NoReadLog:
    """A read log for a location whose reads cannot be seen."""

    files: frozenset[str] | None = None
    observed: Observed | None = None

    def opened(self) -> frozenset[str]:
        """Return nothing, because nothing can be seen."""
        return frozenset()

    def unseen(self) -> contextlib.AbstractContextManager[None]:
        """Return an empty context."""
        return contextlib.nullcontext()


class LocalDirectory:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """Return the directory."""
        return self._root

    def __str__(self) -> str:
        return str(self._root)

    def recorder(self, contents: ContentStore) -> InotifyRecorder | PollingRecorder:
        """Return a recorder that uses inotify, or one that polls if inotify is not available."""
        if inotify.available():
            with contextlib.suppress(inotify.NoInotify):
                return InotifyRecorder(self._root, contents)
        return PollingRecorder(self._root, contents)

    def watched(self, recorder: Any) -> contextlib.AbstractContextManager[None]:
        """Look at each call of a C function."""
        return install_hooks(recorder)

    @contextlib.contextmanager
    def reads(self, recorder: Recorder | None) -> Iterator[InotifyReadLog]:
        """Log reads by inotify."""
        with InotifyReadLog.of(self._root) as reads:
            if recorder is not None:
                reads.is_recorded()
            if isinstance(recorder, InotifyRecorder):
                recorder.reads = reads
            yield reads

    def holding(self, contents: ContentStore) -> Disk:
        """Return an object that restores the directory's content."""
        return Disk(self._root, contents)

    def endings(self) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """Return digests of the plain files, and the bytes of short texts, by path."""
        return endings(self._root)

"""Record the changes that one rank makes in a directory that all ranks share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

# By name, so that patches of the module's attributes do not affect it.
from time import monotonic

from ...engine import inotify
from ...engine.inotify import Event, Inotify
from ..recording.content_store import ContentStore
from ..recording.inodes import SPECIAL
from ..recording.inotify_recorder import InotifyRecorder
from ..recording.own_events import OwnEvents
from .timelines import Look

__all__ = ["RankRecorder", "RecordedLook"]

_WRITES = inotify.MODIFY | inotify.CREATE


@dataclasses.dataclass(frozen=True, slots=True)
class RecordedLook:
    """A look at the files of others, and its place among the changes and the waits of its rank.

    Attributes:
        changes: The number of changes before it.
        waits: The number of waits before it.
        look: What the rank saw.
    """

    changes: int
    waits: int
    look: Look

    def is_same(self, other: RecordedLook) -> bool:
        """Return True if the rank saw the same in the same place, perhaps later."""
        mine, theirs = self.look, other.look
        return (self.changes, self.waits, mine.path, mine.listing) == (
            other.changes,
            other.waits,
            theirs.path,
            theirs.listing,
        )


class RankRecorder(InotifyRecorder):
    """Follows the directory, and keeps the changes of this process alone.

    Files of other ranks are only names here: they are not read. ``windows`` has for each change the
    times between which it happened, on a clock that all ranks share. ``looks`` has what this rank
    has seen of the others' files (``look``). ``waits`` is the number of its waits so far, which the
    caller counts.
    """

    def __init__(self, root: Path, contents: ContentStore) -> None:
        self.windows: list[tuple[float, float]] = []
        self.looks: list[RecordedLook] = []
        self.waits = 0
        self._quiet = monotonic()
        self._moving: dict[int, str] = {}
        super().__init__(root, contents)
        ask = self.pending

        def pending() -> int:
            now = monotonic()
            count = ask()
            if not count:
                self._quiet = now
            return count

        self.pending: Callable[[], int] = pending
        self.windows.clear()

    @property
    def is_complete(self) -> bool:
        """Return True if the owner of each change is known."""
        return not self._events_queue.lost

    def _queue(self) -> Inotify:
        self._events_queue = OwnEvents()
        return self._events_queue

    def _look(self, closely: bool) -> None:
        start = monotonic()
        super()._look(closely)
        self._stamp()
        self._quiet = start

    def synced(self, path: str) -> None:
        """Note that a file or directory was written back, so that it survives a power loss."""
        super().synced(path)
        self._stamp()

    def all_synced(self) -> None:
        """Note that everything was written back."""
        super().all_synced()
        self._stamp()

    def _stamp(self) -> None:
        more = len(self.changes) - len(self.windows)
        if more > 0:
            self.windows += [(self._quiet, monotonic())] * more

    # -- what this rank sees of the others ---------------------------------------------------------

    def look(self, path: str, *, listing: bool = False) -> None:
        """Note that this rank has just looked at a path.

        Args:
            path: The absolute path.
            listing: True if it saw the names in a directory.
        """
        relative = os.path.relpath(path, self._history.root).replace(os.sep, "/")
        if relative == ".." or relative.startswith("../"):
            return
        self._saw("" if relative == "." else relative, listing=listing)

    def _saw(self, path: str, *, listing: bool = False) -> None:
        one = RecordedLook(len(self.windows), self.waits, Look(path, listing, monotonic()))
        last = self.looks[-1] if self.looks else None
        if last is not None and last.is_same(one):
            self.looks[-1] = one
        else:
            self.looks.append(one)

    # -- events ------------------------------------------------------------------------------------

    def _apply(self, events: Sequence[Event]) -> None:
        queue = self._events_queue
        self._apply_others([event for event in events if not queue.is_own(event)])
        taken: set[str] = set()
        own = []
        for event in events:
            if not queue.is_own(event):
                continue
            path = self._watches.path_of(event)
            if path is not None and self._history.tree.get(path) is SPECIAL:
                self._touch(event.mask, path, taken)
            if path not in taken or not event.mask & _WRITES:
                own.append(event)
        super()._apply(own)

    def _touch(self, mask: int, path: str, taken: set[str]) -> None:
        """Note that this rank opened or changed a file of a different rank.

        A changed one is its own from here on. It is added to ``taken``.
        """
        if mask & (inotify.OPEN | inotify.ACCESS):
            self._saw(path)
        if mask & _WRITES:
            before = self._history.tree
            self._history.forget(path)
            self._new(path, writers=1)
            self._history.note("arrived", path, before)
            taken.add(path)

    def _apply_others(self, events: Sequence[Event]) -> None:
        """Follow the names that other processes change."""
        for event in events:
            path = self._watches.path_of(event)
            if path is None or event.mask & inotify.IGNORED:
                continue
            if event.mask & inotify.MOVED_FROM:
                self._moving[event.cookie] = path
            elif event.mask & inotify.MOVED_TO:
                self._others_moved(self._moving.pop(event.cookie, None), path)
            elif event.mask & inotify.CREATE:
                self._others_made(path)
            elif event.mask & inotify.DELETE:
                self._forget(path)
            elif event.mask & inotify.MODIFY and isinstance(self._history.tree.get(path), tuple):
                self._history.forget(path)
                self._history.tree = {**self._history.tree, path: SPECIAL}
        for path in self._moving.values():  # out of the directory
            self._forget(path)
        self._moving.clear()

    def _others_made(self, path: str) -> None:
        history = self._history
        at = history.at(path)
        if path not in history.tree and (os.path.islink(at) or not os.path.isdir(at)):
            history.tree = {**history.tree, path: SPECIAL}
        elif history.tree.get(path) is None and self._watches.watch(path) is not None:
            below = self._watches.below(path)
            history.tree = {
                **history.tree,
                path: self._watches.mode(path),
                **{
                    name: SPECIAL if folder is None else folder
                    for name, folder in below.items()
                    if name not in history.tree
                },
            }

    def _others_moved(self, origin: str | None, path: str) -> None:
        history = self._history
        self._forget(path)
        if origin is None or origin not in history.tree:
            self._others_made(path)
            return
        history.rename(origin, path)
        self._watches.rename(origin, path)

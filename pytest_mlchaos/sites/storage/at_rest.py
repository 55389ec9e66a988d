"""Define ``storage.file``: files at rest, which faults change on disk before the subject reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ...core.interrupts import deferred
from ...core.sites import Key, site
from ...core.storage import StoredFile
from ...engine.controller import Controller
from ...engine.opened_files import OpenedFiles
from ...engine.other_servers import in_other_server
from ...engine.patching import Patches
from ...engine.scopes import GOLDEN_COPY_PREFIX, INTERNAL_OPERATION, within
from .base import TOOL_FILE_PREFIX
from .changed_files import ChangedFiles
from .steps import Steps

__all__ = ["SITE", "FilesAtRest"]

SITE = "storage.file"
MAX_FILES = 2000
MAX_SHOWN_NAMES = 8
_FOREIGN = re.compile(r"/(__pycache__|\.pytest_cache|\.hypothesis)(/|$)")
_active: list[FilesAtRest] = []


@site(
    SITE,
    "A file that exists when a subject starts, in the order of the paths. Payload: a "
    "core.storage.StoredFile.",
)
def arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Change files at the start of each subject of this process."""
    found = _active[-1] if _active and _active[-1].controller is controller else None
    if found is None:
        found = FilesAtRest(controller)
        _active.append(found)
        controller.subject_listeners.append(found.subject)
        patches.on_undo(lambda: _active.remove(found) if found in _active else None)
    found.watch(key)


Version = tuple[int, int, int]


class FilesAtRest:
    """The files at rest of one trial."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._keys: list[tuple[Key, Callable[[str], object] | None]] = []
        self._own = tuple(
            dict.fromkeys(
                f"{text}/"
                for path in controller.own
                for text in (path.as_posix(), path.resolve().as_posix())
            )
        )
        self._process = os.getpid()

    def watch(self, key: Key) -> None:
        """Count files on this key."""
        pattern = None if isinstance(key, str) else re.compile(fnmatch.translate(key[1])).match
        self._keys.append((key, pattern))

    @contextlib.contextmanager
    def subject(self, roots: Iterable[Path], *, stepwise: bool) -> Iterator[Callable[[], None]]:
        """Run a subject inside. Each call of the yielded function visits the files at rest."""
        if not self.controller.scheduled or os.getpid() != self._process:
            yield lambda: None
            return
        running = _Subject(self, self._folders(roots), stepwise=stepwise)
        try:
            with Steps(running.step, running.before_open, running.pending, stepwise=stepwise):
                yield running.start
        finally:
            with deferred():
                running.end()

    def _folders(self, roots: Iterable[Path]) -> list[str]:
        """Return the directories below the test's own, without those inside a different one."""
        paths = sorted({os.path.realpath(root) for root in roots})
        own = tuple(os.path.realpath(path) + os.sep for path in self._own)
        found: list[str] = []
        for path in paths:
            is_inside = any(path == one or path.startswith(one + os.sep) for one in found)
            if path.startswith(own) and not is_inside:
                found.append(path)
        return found

    def shown(self, path: str) -> str:
        """Return a path relative to the test's own directory."""
        for root in self._own:
            if path.startswith(root):
                below = path[len(root) :]
                return below.partition("/")[2] or below
        return path.rpartition("/")[2]

    def keys_of(self, path: str, *, named: bool) -> list[Key]:
        """Return the keys that a file counts on. ``named`` leaves out keys without a pattern."""
        shown = self.shown(path)
        names = (shown, f"./{shown}", shown.rpartition("/")[2], path)
        return [
            key
            for key, matches in self._keys
            if (matches is None and not named) or (matches is not None and any(map(matches, names)))
        ]

    def show(self, paths: Iterable[str]) -> None:
        """Keep some names of opened files for a fault that never strikes."""
        names = self.controller.names.setdefault(SITE, {})
        for path in paths:
            if len(names) < MAX_SHOWN_NAMES:
                names[self.shown(path)] = None


class _Subject:
    """One subject: its files, their visits, and the changes that are restored at its end."""

    def __init__(self, rest: FilesAtRest, roots: list[str], *, stepwise: bool) -> None:
        self._rest = rest
        self._roots = roots
        self._stepwise = stepwise
        self._begun = False
        self._visited: dict[str, Version | None] = {}
        self._visits: list[tuple[Key, int, str]] = []
        self._effects: dict[str, list[Callable[[], None]]] = {}
        self._busy = False
        self._lock = threading.RLock()
        self._struck = False  # a reader has met a changed file that is not restored yet
        self._raised = False  # an error of the subject was attributed to that
        rest.controller.claims.append(self._claims)
        # The files that Python opens in the subject, and in servers beside it.
        self._read: set[str] = set()
        self._served: set[str] = set()
        with within(INTERNAL_OPERATION):
            self._opened = OpenedFiles(roots)
            own = rest.controller.own
            self._changed = ChangedFiles(own[0] if own else None, rest.controller.clock)

    def start(self) -> None:
        """Visit each file that is new or changed since the last attempt.

        If that one raised because of a changed file, the originals are restored first. An operator
        would do that.
        """
        self._begun = True
        if self._raised:
            self._raised = self._struck = False
            with within(INTERNAL_OPERATION):
                self._changed.restore()
                self._visited |= {path: _version(path) for path in self._visited}
        self._visit([path for root in self._roots for path in _files(root)], named=False)

    def _claims(self, error: BaseException) -> bool:
        """Attribute an error to a changed file."""
        if not isinstance(error, Exception):
            return False
        if self._effects and not self._busy:
            self._opened.drain()
            self._note_opened()
        found = self._struck
        self._raised = self._raised or found
        return found

    def pending(self) -> bool:
        """Return True if files may have changed."""
        return self._begun and not self._busy and self._opened.pending()

    def step(self) -> None:
        """Visit the files that the subject has completed, before its next call."""
        if self._busy or not self._lock.acquire(blocking=False):
            return  # a different thread is at it
        try:
            self._opened.drain()
            self._note_opened()
            fresh, self._opened.fresh = self._opened.fresh, set()
            if fresh:
                self._visit(sorted(fresh), named=not self._stepwise)
        finally:
            self._lock.release()

    def before_open(self, path: str) -> None:
        """Visit a file that Python is about to open for reading, if it was written meanwhile."""
        if self._busy or not self._begun:
            return
        path = os.path.realpath(path)
        (self._served if in_other_server() else self._read).add(path)
        if not any(path == root or path.startswith(root + os.sep) for root in self._roots):
            return
        with self._lock:
            if self._busy:
                return
            self._opened.drain()
            if path in self._opened.fresh:
                self._opened.fresh.discard(path)
                self._visit([path], named=not self._stepwise)
            self._met(path)

    def end(self) -> None:
        """Restore the files, and note which of them were opened."""
        self._busy = True
        with within(INTERNAL_OPERATION):
            self._opened.drain()
            self._note_opened()
            self._struck = False
            try:
                self._changed.restore()
            finally:
                controller = self._rest.controller
                if self._opened.works:
                    self._rest.show(self._opened.names())
                if controller.probing and self._opened.works:
                    for key, number, path in self._visits:
                        served = isinstance(key, str) and path in self._served - self._read
                        if served or not self._opened.opened(path):
                            _withdraw(controller, key, number)
                self._opened.close()

    def _note_opened(self) -> None:
        for path in [path for path in self._effects if self._opened.opened(path)]:
            self._met(path)

    def _met(self, path: str) -> None:
        """Record the strikes on a file that a reader opens."""
        for took_effect in self._effects.pop(path, ()):
            self._struck = True
            took_effect()

    def _visit(self, paths: list[str], *, named: bool) -> None:
        """Visit files in the order of their paths."""
        self._busy = True
        try:
            with within(INTERNAL_OPERATION):
                found: dict[str, StoredFile] = {}
                for path in sorted(paths)[:MAX_FILES]:
                    version = _version(path)
                    if version is not None and self._visited.get(path) != version:
                        self._visited[path] = version
                        found[path] = StoredFile(self._rest.shown(path), path)
                keys = {path: self._rest.keys_of(path, named=named) for path in found}
                groups: dict[Key, list[StoredFile]] = {}
                for path, file in found.items():
                    for key in keys[path]:
                        groups.setdefault(key, []).append(file)
                together = {key: tuple(files) for key, files in groups.items()}
                for path, file in found.items():
                    self._visit_one(path, file, {key: together[key] for key in keys[path]})
                self._opened.drain(ours=True)
                for path in found:
                    self._opened.forget(path)
        finally:
            self._busy = False

    def _visit_one(
        self, path: str, file: StoredFile, keys: dict[Key, tuple[StoredFile, ...]]
    ) -> None:
        controller = self._rest.controller
        for key, group in keys.items():
            number = controller.count(key)
            file = dataclasses.replace(file, group=group)
            gate = controller.begin(key, file, {"path": file.path})
            if gate is not None:
                with gate:
                    gate.wait()
                    file = gate.payload
            self._visits.append((key, number, path))
        if not file.is_changed:
            return
        self._changed.change(path, file)
        self._visited[path] = _version(path)
        if file.took_effect is not None:
            # A search knows from the trial without faults that the file is opened. No event
            # shows a reader of a file that does not exist.
            known = file.replacement is None or file.absent or controller.drawn
            if known or not self._opened.works:
                self._struck = True
                file.took_effect()
            else:
                self._effects.setdefault(path, []).append(file.took_effect)


def _withdraw(controller: Controller, key: Key, number: int) -> None:
    """Let the search not choose a visit, because no reader opened its file."""
    for scheduled in controller.scheduled:
        if scheduled.fault.key == key and number in scheduled.eligible:
            scheduled.eligible.remove(number)


def _version(path: str) -> Version | None:
    """Return what changes if a file is written again, or None if it is not a plain file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _files(root: str) -> list[str]:
    """Return the plain files at or below a path, without the plugin's own."""
    if os.path.isfile(root):
        return [root]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((GOLDEN_COPY_PREFIX, TOOL_FILE_PREFIX))
            and not _FOREIGN.search(f"/{name}/")
        )
        found += [os.path.join(folder, name) for name in sorted(files)]
        if len(found) > MAX_FILES:
            break
    return found

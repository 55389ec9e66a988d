"""Define ``storage.reread`` and ``storage.list``: reads and listings that could be out of date.

A ``History`` meets each operation before it takes effect, and keeps the contents of files that are
about to change. So it knows the version before the current one, in whatever language it was written.
"""

from __future__ import annotations

import contextlib
import functools
import genericpath
import os
import pathlib
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from ...core.sites import Key, name_of, site
from ...core.storage import Condition, Listing, Operation, Reread
from ...engine.controller import Controller
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, inside, within
from ...engine.stand_ins import unbound
from .base import Storage, WatchedFile, active, storage_of

__all__ = ["History", "history"]

READ, LIST = "storage.reread", "storage.list"
MAX_KEPT_BYTES = 16 << 20
"""Keep versions of files up to this size."""


def history() -> History | None:
    """Return the history of the active storage, or None if nothing needs it."""
    storage = active()
    found = storage.history if storage is not None and not inside() else None
    return found if isinstance(found, History) else None


@site(
    READ,
    "A file that was overwritten in this trial, about to be read. Payload: a core.storage.Reread.",
)
def arm_reads(controller: Controller, patches: Patches, key: Key) -> None:
    """Keep the versions of files."""
    _history_of(controller, patches).keys.append(key)


@site(
    LIST,
    "A listing or an existence check, where files were written or removed in this trial. "
    "Payload: a core.storage.Listing.",
)
def arm_lists(controller: Controller, patches: Patches, key: Key) -> None:
    """Make listings visits."""
    found = _history_of(controller, patches)
    if not found.lists:
        found.lists = True
        _wrap_listings(patches)
    found.keys.append(key)


def _history_of(controller: Controller, patches: Patches) -> History:
    storage = storage_of(controller, patches)
    if storage.history is None:
        storage.counts_all = True
        made = History(storage)
        storage.history = made
        storage.conditions.append(made)
    found = storage.history
    assert isinstance(found, History)
    return found


class History(Condition):
    """The versions of files, and the names that appeared and vanished."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.keys: list[Key] = []
        self.lists = False
        self._versions: dict[str, list[bytes]] = {}
        self._new: dict[str, float] = {}
        self._gone: dict[str, float] = {}

    # -- what changes --------------------------------------------------------------------------------

    def meet(self, operation: Operation, file: str | None, now: float) -> None:
        """Keep the content of a file that is about to change, and what appears or vanishes."""
        path = operation.path if file is None else file
        if file is not None:
            if operation.op in ("read", "write"):
                return  # its opening was seen
            with within(INTERNAL_OPERATION):
                self._look(file)
                is_there = os.path.exists(file)
        else:
            is_there = path in self._versions and path not in self._gone
        if operation.op == "remove":
            self._gone[path] = now
            self._new.pop(path, None)
        elif operation.op in ("open", "write", "rename") and not is_there:
            self._new.setdefault(path, now)
            self._gone.pop(path, None)

    def _look(self, file: str) -> None:
        with contextlib.suppress(OSError):
            if os.path.isfile(file) and os.path.getsize(file) <= MAX_KEPT_BYTES:
                self.note(file, pathlib.Path(file).read_bytes())

    def note(self, path: str, content: bytes) -> None:
        """Note the content of a file."""
        versions = self._versions.setdefault(path, [])
        if not versions or versions[-1] != content:
            versions.append(bytes(content))
            del versions[:-2]

    # -- what is read --------------------------------------------------------------------------------

    def stale(self, watched_file: WatchedFile | None) -> bytes | None:
        """Return the previous content of a file, if a fault lets it be read now."""
        if watched_file is None:
            return None
        path = watched_file.path if watched_file.file is None else watched_file.file
        if watched_file.file is not None:
            with within(INTERNAL_OPERATION):
                self._look(path)
        versions = self._versions.get(path, [])
        if len(versions) < 2:
            return None
        payload = Reread(watched_file.path, versions[-2])
        for key in self.keys:
            if name_of(key) == READ and _is_meant(key, watched_file):
                payload = self._storage.controller.visit(key, payload)
        return payload.replacement

    def listed(self, folder: str, names: list[str], *, checks: bool = False) -> list[str]:
        """Return the names in a folder, as a fault lets them appear.

        Args:
            folder: The folder, as an absolute path or as the filesystem writes it.
            names: The names that are there.
            checks: True for an existence check of one name.
        """
        new = tuple(name for name in names if posixpath.join(folder, name) in self._new)
        gone = tuple(
            posixpath.basename(path)
            for path in self._gone
            if posixpath.dirname(path) == folder
            and posixpath.basename(path) not in names
            and not checks
        )
        if not new and not gone:
            return names
        watched_file = self._storage.local(folder) if os.path.isabs(folder) else None
        shown = folder if watched_file is None else watched_file.path
        payload = Listing(shown, new, gone)
        for key in self.keys:
            if name_of(key) == LIST and self._concerns(key, folder, (*new, *gone)):
                payload = self._storage.controller.visit(key, payload)
        return [name for name in names if name not in payload.hidden] + [
            name for name in gone if name in payload.shown
        ]

    def _concerns(self, key: Key, folder: str, names: tuple[str, ...]) -> bool:
        if isinstance(key, str):
            return True
        for name in names:
            path = posixpath.join(folder, name)
            file = self._storage.local(path) if os.path.isabs(path) else self._storage.remote(path)
            if file is not None and file.is_matched(key[1]):
                return True
        return False


def _is_meant(key: Key, watched_file: WatchedFile) -> bool:
    return watched_file.is_matched(None if isinstance(key, str) else key[1])


# -- listings of local directories ---------------------------------------------------------------------


def _wrap_listings(patches: Patches) -> None:
    for original, make in (
        (os.listdir, _listdir),
        (os.scandir, _scandir),
        (genericpath.exists, _exists),
        (genericpath.isfile, _exists),
    ):
        patches.replace_everywhere(original, unbound(make(original), original))
    for name in ("exists", "is_file"):
        patches.set(pathlib.Path, name, _exists(getattr(pathlib.Path, name)))


def _folder(path: Any) -> str | None:
    if path is None:
        path = "."
    if isinstance(path, int):
        return None
    try:
        return os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))
    except (TypeError, OSError):
        return None


def _listdir(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def listdir(path: Any = None) -> Any:
        found, folder = history(), _folder(path)
        with within("list") if found is not None else contextlib.nullcontext():
            names = original(path)
        if found is None or folder is None or isinstance(path, bytes):
            return names
        return found.listed(folder, names)

    return listdir


class _Scan:
    """The entries of a directory, without those that are hidden."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: the entries have been read."""


def _scandir(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def scandir(path: Any = None) -> Any:
        found, folder = history(), _folder(path)
        if found is None or folder is None or isinstance(path, bytes):
            return original(path)
        with within("list"), original(path) as opened:
            entries = list(opened)
        shown = set(found.listed(folder, [entry.name for entry in entries]))
        return _Scan([entry for entry in entries if entry.name in shown])

    return scandir


def _exists(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def exists(path: Any, *args: Any, **kwargs: Any) -> Any:
        found, file = history(), _folder(path)
        with within("list") if found is not None else contextlib.nullcontext():
            there = original(path, *args, **kwargs)
        if found is None or not there or file is None:
            return there
        folder, _, name = file.rpartition("/")
        return bool(found.listed(folder, [name], checks=True))

    return exists

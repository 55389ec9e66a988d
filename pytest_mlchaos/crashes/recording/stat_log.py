"""Log which files Python code asks for their size or times, by ``os.stat`` and its relatives.

No event of the kernel and no audit event tells of a ``stat``.
"""

from __future__ import annotations

import functools
import genericpath
import os
import pathlib
import posixpath
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from ...core.interrupts import uninterruptible
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, inside

__all__ = ["UNKNOWN", "Noted", "note_stats"]

Noted = Callable[[str], None]
"""Called with the path of a file whose size or times were asked for, or with ``UNKNOWN``."""
UNKNOWN = ""
"""Stands for a process that was started in a way that keeps no patches. It may ask for anything."""

_PATH_MODULES = {
    # The modules are frozen, so their code does not name their files.
    genericpath.exists.__code__.co_filename,
    posixpath.realpath.__code__.co_filename,
}
_TELL_SIZE_OR_TIME = frozenset({"getsize", "getmtime", "getatime", "getctime"})
_KIND_METHODS = frozenset({"exists", "resolve", "samefile"})
"""Methods of ``Path`` that use ``stat`` and tell neither a size nor a time."""
_PACKAGE = __name__.partition(".")[0]
_listeners: list[Noted] = []


@uninterruptible
def note_stats(listener: Noted) -> Iterator[None]:
    """Tell the listener of each ``stat`` while the context is entered.

    A function that only returns if a path exists, or of what kind it is, tells nothing of its size.
    So ``os.path.exists`` and ``Path.is_file`` are not noted, although they call ``os.stat``.

    A process that ``os.fork`` makes calls the listener in its own memory.

    Fidelity: C++ code and programs that ask for a size by a path are not seen.
    """
    with Patches() as patches:
        _install(patches)
        _listeners.append(listener)
        try:
            yield
        finally:
            _listeners.remove(listener)


def _install(patches: Patches) -> None:
    replaced = [
        (os.stat, _noting(os.stat)),
        (os.lstat, _noting(os.lstat)),
        (os.scandir, _listing(os.scandir)),
    ]
    for capable in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
        # Code asks ``os.stat in os.supports_follow_symlinks``.
        more = {new for old, new in replaced if old in capable}
        capable.update(more)
        patches.on_undo(functools.partial(capable.difference_update, more))
    with patches.together():
        for old, new in replaced:
            patches.replace_everywhere(old, new)
    when_imported("multiprocessing.process", patches, lambda: _watch_starts(patches))


def _watch_starts(patches: Patches) -> None:
    """Note processes of ``multiprocessing`` that are not forked. No audit event tells of them."""
    process = sys.modules["multiprocessing.process"].BaseProcess
    original = process.start

    @functools.wraps(original)
    def start(self: Any) -> None:
        kind = getattr(self, "_start_method", None)
        if kind is None:
            kind = sys.modules["multiprocessing.context"]._default_context.get_start_method()
        if kind != "fork":
            _tell(UNKNOWN)
        original(self)

    patches.set(process, "start", start)


def _tell(path: str) -> None:
    for listener in tuple(_listeners):
        listener(path)


def _noting(original: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    @functools.wraps(original)
    def noted(path: Any, *args: Any, **keywords: Any) -> os.stat_result:
        if _listeners and isinstance(path, (str, bytes, os.PathLike)) and not _asks_only_for_kind():
            _tell(_absolute(path, keywords.get("dir_fd")))
        return original(path, *args, **keywords)

    return noted


def _listing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def scandir(path: Any = None) -> Any:
        entries = original(".") if path is None else original(path)
        if not _listeners or _is_ours(sys._getframe(1)):
            return entries
        return _Entries(entries, _absolute("." if path is None else path, None))

    return scandir


def _absolute(path: Any, folder: int | None) -> str:
    """Return an absolute path as text. A folder is given by its descriptor."""
    text = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)
    if isinstance(path, int) or folder is not None:
        try:
            above = os.readlink(f"/proc/self/fd/{path if folder is None else folder}")
        except OSError:
            return UNKNOWN
        return above if folder is None else os.path.join(above, text)
    try:
        return os.path.abspath(text)
    except OSError:  # the current directory was removed
        return UNKNOWN


def _is_ours(frame: types.FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return inside() == INTERNAL_OPERATION or name.partition(".")[0] == _PACKAGE


def _asks_only_for_kind() -> bool:
    """Return True if the caller of ``stat`` returns neither a size nor a time."""
    frame = sys._getframe(2)
    if _is_ours(frame):
        return True
    code = frame.f_code
    if code.co_filename in _PATH_MODULES:
        return code.co_name not in _TELL_SIZE_OR_TIME
    caller = frame.f_back
    if code in _PATH_METHODS and caller is not None:
        name = caller.f_code.co_name
        # From Python 3.13 on, pathlib is a package.
        is_method = caller.f_globals.get("__name__", "").partition(".")[0] == "pathlib"
        return is_method and (name.startswith("is_") or name in _KIND_METHODS)
    return False


_PATH_METHODS = {pathlib.Path.stat.__code__, pathlib.Path.lstat.__code__}


class _Entries:
    """The iterator of ``os.scandir``, with entries that tell of their ``stat``."""

    def __init__(self, entries: Any, folder: str) -> None:
        self._entries = entries
        self._folder = folder

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> _Entry:
        return _Entry(next(self._entries), self._folder)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory."""
        self._entries.close()


class _Entry:
    """An ``os.DirEntry``, which cannot be subclassed."""

    __slots__ = ("_entry", "_folder", "name", "path")

    def __init__(self, entry: Any, folder: str) -> None:
        self._entry, self._folder = entry, folder
        self.name, self.path = entry.name, entry.path

    __class__: Any = property(lambda self: os.DirEntry)

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return repr(self._entry)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if inside() != INTERNAL_OPERATION:
            _tell(os.path.join(self._folder, os.fsdecode(self.name)) if self._folder else UNKNOWN)
        found: os.stat_result = self._entry.stat(follow_symlinks=follow_symlinks)
        return found

    def inode(self) -> int:
        found: int = self._entry.inode()
        return found

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return bool(self._entry.is_dir(follow_symlinks=follow_symlinks))

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return bool(self._entry.is_file(follow_symlinks=follow_symlinks))

    def is_symlink(self) -> bool:
        return bool(self._entry.is_symlink())

    def is_junction(self) -> bool:
        return False

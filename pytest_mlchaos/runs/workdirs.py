"""The directories that a subject works in: as they were at the start, as a crash found them, and swapped for a golden run."""

from __future__ import annotations

import atexit
import codecs
import collections
import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import stat
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.interrupts import deferred, uninterruptible
from ..core.records import FileState
from ..engine.controller import current
from ..engine.scopes import GOLDEN_COPY_PREFIX, INTERNAL_OPERATION, within
from .inputs import FRAMEWORK, is_filled

__all__ = ["WorkDirs", "paths_in"]

Fingerprint = dict[str, tuple[int, int, int]]
MAX_OBJECTS = 10_000
BLOCK_BYTES = 1 << 20
CONTINUATION = bytes(range(0x80, 0xC0))
"""What a part of a text may begin with, in UTF-8: the rest of a character."""


class WorkDirs:
    """Copies of some directories (and files), and ways to put them in their place.

    A path keeps its name: the golden run finds the start's content where the trial has its own, and afterwards the
    trial's is back, untouched. Only what lies below ``scratch``, this process's own temporary directory, is ever copied or
    moved: whatever else a subject is given (the project's files, a data set) is input, and left alone.

    None of this is anybody's visit.
    """

    def __init__(self, paths: Iterable[Path], scratch: Path) -> None:
        self._roots = _outermost({path for path in paths if scratch in path.parents})
        self._home = scratch / f"{GOLDEN_COPY_PREFIX}{secrets.token_hex(8)}"  # tempfile's own names are the same in each trial
        _remove_unused()
        reference = weakref.ref(self, _unused.append)
        _homes[id(reference)] = reference, self._home
        controller = current()
        if controller is not None:
            controller.resources.callback(_remove_home, self._home)
        with within(INTERNAL_OPERATION):
            self._home.mkdir(mode=0o700)
        self._start = self._copied("start")
        self._frozen: Path | None = None
        self._prints: list[Fingerprint] = []

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directories (and files)."""
        return tuple(self._roots)

    @classmethod
    def of(cls, subject: Any, args: tuple[Any, ...], scratch: Path, more: Iterable[Path] = ()) -> WorkDirs:
        """The directories that a subject may work in: the working directory, what it and its arguments name, and ``more``."""
        return cls([Path.cwd(), *more, *paths_in(subject, args)], scratch)

    @within(INTERNAL_OPERATION)
    def freeze(self) -> None:
        """The process has died: what is on disk now is what a restart finds, whatever is written while the code unwinds."""
        self._frozen = self._copied("crash")
        self._prints = [_fingerprint(root) for root in self._roots]

    @within(INTERNAL_OPERATION)
    def thaw(self) -> None:
        """Undo what was written after the death."""
        frozen, self._frozen = self._frozen, None
        if frozen is None:
            return
        with deferred():
            for number, root in enumerate(self._roots):
                if _fingerprint(root) != self._prints[number]:
                    _remove(root)
                    _move(frozen / str(number) / root.name, root)
            _remove(frozen)

    @uninterruptible
    def as_at_the_start(self) -> Iterator[None]:
        """Every directory is as it was at the start; on leaving, the trial's own is back."""
        aside = self._home / "aside"
        swapped: list[tuple[int, Path]] = []
        try:
            with within(INTERNAL_OPERATION):
                for number, root in enumerate(self._roots):
                    _move(root, aside / str(number) / root.name)
                    swapped.append((number, root))
                    _copy_tree(self._start / str(number) / root.name, root)
            yield
        finally:
            with within(INTERNAL_OPERATION):
                for number, root in swapped:
                    _remove(root)
                    _move(aside / str(number) / root.name, root)
                _remove(aside)

    @within(INTERNAL_OPERATION)
    def contents(self, sizes: Mapping[str, Iterable[int]] = types.MappingProxyType({})) -> dict[str, FileState]:
        """What the files hold now, by path: relative to their directory, whose name comes first where there are several.

        ``sizes``: of each path, how many first bytes are of interest.
        """
        found = {}
        for root in self._roots:
            base = self._base(root)
            for path in _files(root):
                name = path.relative_to(base).as_posix()
                found[name] = _state(path, sizes.get(name, ()))
        return found

    def named(self, paths: Iterable[str]) -> frozenset[str]:
        """Return those of these absolute paths that are below the directories, and the files below them, named as in ``contents``."""
        given = {Path(path) for path in paths}
        return frozenset(
            path.relative_to(self._base(root)).as_posix()
            for root in (self._roots if given else ())
            for path in _files(root)
            if not given.isdisjoint((path, *path.parents))
        )

    def _base(self, root: Path) -> Path:
        return root.parent if len(self._roots) > 1 or not root.is_dir() else root

    @within(INTERNAL_OPERATION)
    def _copied(self, name: str) -> Path:
        target = self._home / name
        _remove(target)
        for number, root in enumerate(self._roots):
            _copy_tree(root, target / str(number) / root.name)
        return target


def _outermost(paths: set[Path]) -> list[Path]:
    """Paths that lie in no other of them."""
    return sorted(path for path in paths if not any(other != path and path.is_relative_to(other) for other in paths))


def _special(folder: str, names: list[str]) -> list[str]:
    """What is neither file, directory nor link (a socket, a pipe) is not copied, nor are our own copies."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    plain = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return [name for name, mode in modes.items() if name.startswith(GOLDEN_COPY_PREFIX) or not any(kind(mode) for kind in plain)]


def _copy_tree(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=_special, dirs_exist_ok=True)
    elif source.is_file():
        shutil.copy2(source, target)


def _move(source: Path, target: Path) -> None:
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)


# Removing a directory takes time, and Python drops a Ctrl-C that comes in a finalizer. So a callback of C's notes that a
# home is unused, and it is removed at the next opportunity: with the test's body at the latest, or with the process.
_homes: dict[int, tuple[weakref.ref[WorkDirs], Path]] = {}
_unused: list[weakref.ref[WorkDirs]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_homes.clear)  # they are the parent's


def _remove_unused() -> None:
    while _unused:
        _, home = _homes.get(id(_unused[-1]), (None, None))
        if home is not None:
            _remove_home(home)
            del _homes[id(_unused[-1])]
        del _unused[-1]


@within(INTERNAL_OPERATION)
def _remove_home(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)


@atexit.register
def _remove_all() -> None:
    for _, home in _homes.values():
        _remove_home(home)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(root: Path) -> Iterator[Path]:
    """The plain files at or below a path, sorted; our own copies left out."""
    if root.is_file():
        yield root
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(GOLDEN_COPY_PREFIX))
        yield from (path for name in sorted(files) if (path := Path(folder, name)).is_file())


def _state(path: Path, sizes: Iterable[int] = ()) -> FileState:
    digest, size, lines, last = hashlib.blake2b(digest_size=16), 0, 0, b""
    stops, beginnings = sorted(set(sizes), reverse=True), {}
    with path.open("rb") as file:
        while block := file.read(min(BLOCK_BYTES, stops[-1] - size) if stops and stops[-1] > size else BLOCK_BYTES):
            digest.update(block)
            size, lines, last = size + len(block), lines + block.count(b"\n"), block
            while stops and stops[-1] <= size:
                beginnings[size] = digest.digest()
                stops.pop()
    closed = _is_closed(path.read_bytes() if BLOCK_BYTES >= size != len(last) else last, complete=size <= BLOCK_BYTES)
    return FileState(size, lines, digest.digest(), closed, beginnings)


def _is_closed(content: bytes, *, complete: bool) -> bool | None:
    """Return True if a text can end as this one does: after a line, or as JSON that can be read. None if it is not a text."""
    if b"\0" in content:
        return None
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content if complete else content.lstrip(CONTINUATION))
    except UnicodeDecodeError:
        return None
    if complete and _is_json(text):
        return True
    looks_like_json = complete and text.lstrip()[:1] in ("{", "[")
    last = text.rstrip("\n").rpartition("\n")[2]
    return text.endswith("\n") and (not looks_like_json or _is_json(last))  # the last of several records, a line each


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _fingerprint(root: Path) -> Fingerprint:
    """What tells whether anything below a path has changed."""
    found = {}
    for folder, folders, files in os.walk(root) if root.is_dir() else [(str(root.parent), [], [root.name] if root.exists() else [])]:
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                found[path] = (status.st_size if name in files else 0, status.st_mtime_ns if name in files else 0, status.st_ino)
    return found


def _as_path(value: Any) -> Path | None:
    """The absolute path that a value stands for, if it does: a PathLike, or a text that holds an absolute path."""
    if isinstance(value, os.PathLike):
        return Path(os.path.abspath(os.fsdecode(value)))
    if isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value:
        text = value.removeprefix("file://")
        text = text.rpartition("=")[2] if text.startswith("--") else text
        return Path(os.path.abspath(text)) if os.path.isabs(text) else None
    return None


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if is_filled(cell)]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, (type, types.ModuleType, str, bytes, int, float)) or type(value).__module__.partition(".")[0] in FRAMEWORK:
        return []
    slots = [
        getattr(value, name, None) for cls in type(value).__mro__ for name in cls.__dict__.get("__slots__", ()) if isinstance(name, str)
    ]
    return [*getattr(value, "__dict__", {}).values(), *slots]


def paths_in(*values: Any) -> Iterator[Path]:
    """Every path in some values, however deep: arguments, closures, attributes; at most so many objects are looked at."""
    seen: set[int] = set()
    pending = collections.deque(values)  # breadth first: what is passed itself is found, however much another value holds
    while pending and len(seen) < MAX_OBJECTS:
        value = pending.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        path = _as_path(value)
        if path is not None:
            yield path
        else:
            pending.extend(_children(value))

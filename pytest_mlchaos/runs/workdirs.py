"""Copy the directories that a subject works in, and restore or swap them."""

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
from ..oracles.packed_content import MAX_PACKED, is_packed, packed_digest
from ..oracles.stored_tables import database_tables, format_of, is_database_log
from .inputs import FRAMEWORK, is_filled

__all__ = ["WorkDirs", "content_state", "paths_in"]

Fingerprint = dict[str, tuple[int, int, int]]
MAX_OBJECTS = 10_000
MAX_TABLE_BYTES = 16 << 20
TABLES = (
    *(".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".orc"),
    *(".csv.gz", ".tsv.gz", ".jsonl.gz"),
)
"""The suffixes of files that may hold a table."""
BLOCK_BYTES = 1 << 20
CONTINUATION = bytes(range(0x80, 0xC0))
"""The bytes that a part of a UTF-8 text may start with: the rest of a character."""


class WorkDirs:
    """Copies of some directories (and files), and methods to restore them.

    A path keeps its name. The golden run finds the initial content at the same path, and afterwards
    the trial's content is restored. Only directories below ``scratch``, this process's own
    temporary directory, are copied or moved. Other paths (the project's files, a data set) are
    input, and are not touched. These operations make no visits.
    """

    def __init__(self, paths: Iterable[Path], scratch: Path) -> None:
        self._roots = _outermost({path for path in paths if scratch in path.parents})
        # Not from tempfile, whose names are the same in each trial.
        self._home = scratch / f"{GOLDEN_COPY_PREFIX}{secrets.token_hex(8)}"
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
        """Return the directories (and files)."""
        return tuple(self._roots)

    @classmethod
    def of(
        cls, subject: object, args: tuple[Any, ...], scratch: Path, more: Iterable[Path] = ()
    ) -> WorkDirs:
        """Return the directories that a subject may work in.

        Args:
            subject: The function, with the paths in its closure and attributes.
            args: Its arguments, with the paths in them.
            scratch: The temporary directory of this process.
            more: Further directories. The working directory is always included.
        """
        return cls([Path.cwd(), *more, *paths_in(subject, args)], scratch)

    @within(INTERNAL_OPERATION)
    def start_digest(self) -> bytes:
        """Return a digest of the initial content of the directories. Their own names do not count."""
        told = hashlib.blake2b(digest_size=16)
        for number, root in enumerate(self._roots):
            base = self._start / str(number) / root.name
            for folder, folders, files in os.walk(base):
                folders.sort()
                for name in sorted([*folders, *files]):
                    path = Path(folder, name)
                    status = path.lstat()
                    about = number, str(path.relative_to(base)), status.st_mode, status.st_size
                    told.update(repr(about).encode())
                    if path.is_symlink():
                        told.update(os.fsencode(os.readlink(path)))
                    elif path.is_file():
                        with path.open("rb") as file:
                            told.update(hashlib.file_digest(file, _file_hash).digest())
            if base.is_file():
                told.update(base.read_bytes())
        return told.digest()

    @within(INTERNAL_OPERATION)
    def freeze(self) -> None:
        """Save the disk at the moment of a crash, for the restart.

        The code that unwinds may change it afterwards.
        """
        self._frozen = self._copied("crash")
        self._prints = [_fingerprint(root) for root in self._roots]

    @within(INTERNAL_OPERATION)
    def thaw(self) -> None:
        """Undo all writes after the crash."""
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
        """Restore the initial content of each directory inside this context.

        At its end, the trial's content comes back.
        """
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
    def contents(
        self, sizes: Mapping[str, Iterable[int]] = types.MappingProxyType({})
    ) -> dict[str, FileState]:
        """Return the content of each file by its path, relative to its directory.

        If there are several directories, the path starts with the directory's name.

        Args:
            sizes: By path, the numbers of first bytes whose digests are needed.
        """
        found = {}
        for root in self._roots:
            base = self._base(root)
            for path in _files(root):
                name = path.relative_to(base).as_posix()
                found[name] = _state(path, sizes.get(name, ()))
        return found

    @within(INTERNAL_OPERATION)
    def folders(self) -> frozenset[str]:
        """Return the names of the directories inside, as in ``contents``."""
        return frozenset(
            path.relative_to(self._base(root)).as_posix()
            for root in self._roots
            for path in _folders(root)
        )

    @within(INTERNAL_OPERATION)
    def tables(self) -> dict[str, bytes]:
        """Return the content of each small file that may hold a table, by its path."""
        found = {}
        for root in self._roots:
            for path in _files(root):
                if path.name.endswith(TABLES) and path.stat().st_size <= MAX_TABLE_BYTES:
                    found[path.relative_to(self._base(root)).as_posix()] = path.read_bytes()
        return found

    def named(self, paths: Iterable[str]) -> frozenset[str]:
        """Return the names of these absolute paths and the files below them, as in ``contents``.

        Paths outside the directories are left out.
        """
        given = {Path(path) for path in paths}
        return frozenset(
            path.relative_to(self._base(root)).as_posix()
            for root in (self._roots if given else ())
            for path in _files(root)
            if not given.isdisjoint((path, *path.parents))
        )

    def path_of(self, name: str) -> Path | None:
        """Return the path of a file by its name in ``contents``, or None."""
        paths = (self._base(root) / name for root in self._roots)
        return next((path for path in paths if path.is_file()), None)

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
    """Return the paths that are not inside a different one."""
    return sorted(
        path
        for path in paths
        if not any(other != path and path.is_relative_to(other) for other in paths)
    )


def _special(folder: str, names: list[str]) -> list[str]:
    """Return the names to leave out of a copy: sockets, pipes and the like, and our own copies."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    plain = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return [
        name
        for name, mode in modes.items()
        if name.startswith(GOLDEN_COPY_PREFIX) or not any(kind(mode) for kind in plain)
    ]


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


# Removing a directory takes time, and Python drops a Ctrl-C during a finalizer. So a callback in C
# only notes that a directory is unused. It is removed at the next opportunity, at the latest with
# the test's body or the process.
_homes: dict[int, tuple[weakref.ref[WorkDirs], Path]] = {}
_unused: list[weakref.ref[WorkDirs]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_homes.clear)  # they belong to the parent


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
    """Yield the plain files at or below a path, sorted, without our own copies."""
    if root.is_file():
        yield root
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(GOLDEN_COPY_PREFIX))
        yield from (
            path
            for name in sorted(files)
            if (path := Path(folder, name)).is_file() and not is_database_log(path)
        )


def _folders(root: Path) -> Iterator[Path]:
    """Yield the directories below a path, without our own copies."""
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(GOLDEN_COPY_PREFIX))
        yield from (Path(folder, name) for name in folders)


def _state(path: Path, sizes: Iterable[int] = ()) -> FileState:
    digest, size, lines, last = hashlib.blake2b(digest_size=16), 0, 0, b""
    stops, beginnings = sorted(set(sizes), reverse=True), {}
    with path.open("rb") as file:
        while block := file.read(
            min(BLOCK_BYTES, stops[-1] - size) if stops and stops[-1] > size else BLOCK_BYTES
        ):
            digest.update(block)
            size, lines, last = size + len(block), lines + block.count(b"\n"), block
            while stops and stops[-1] <= size:
                beginnings[size] = digest.digest()
                stops.pop()
    closed = _is_closed(
        path.read_bytes() if BLOCK_BYTES >= size != len(last) else last,
        complete=size <= BLOCK_BYTES,
    )
    tables = database_tables(path, digest.digest())
    closed = closed if tables is None else True
    packed = (
        packed_digest(path.read_bytes(), digest.digest())
        if size <= MAX_PACKED and is_packed(path)
        else None
    )
    may_be_empty = tables is not None and format_of(path) == "sqlite"
    return FileState(size, lines, digest.digest(), closed, beginnings, tables, packed, may_be_empty)


def content_state(content: bytes, sizes: Iterable[int] = ()) -> FileState:
    """Return the state of a file with this content.

    ``sizes`` are the numbers of first bytes whose digests are needed.
    """
    beginnings = {size: _digest(content[:size]) for size in sizes if size <= len(content)}
    closed = _is_closed(content, complete=True)
    digest, lines = _digest(content), content.count(b"\n")
    packed = packed_digest(content, digest)
    return FileState(len(content), lines, digest, closed, beginnings, packed=packed)


_file_hash = functools.partial(hashlib.blake2b, digest_size=16)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _is_closed(content: bytes, *, complete: bool) -> bool | None:
    """Return True if a text can end here: after a line, or as JSON that can be read.

    Return None if it is not a text.
    """
    if b"\0" in content:
        return None
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(
            content if complete else content.lstrip(CONTINUATION)
        )
    except UnicodeDecodeError:
        return None
    if complete and _is_json(text):
        return True
    looks_like_json = complete and text.lstrip()[:1] in ("{", "[")
    last = text.rstrip("\n").rpartition("\n")[2]
    # Or the last of several records, one per line.
    return text.endswith("\n") and (not looks_like_json or _is_json(last))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _fingerprint(root: Path) -> Fingerprint:
    """Return a fingerprint that changes with any file below a path."""
    found = {}
    for folder, folders, files in (
        os.walk(root)
        if root.is_dir()
        else [(str(root.parent), [], [root.name] if root.exists() else [])]
    ):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                found[path] = (
                    status.st_size if name in files else 0,
                    status.st_mtime_ns if name in files else 0,
                    status.st_ino,
                )
    return found


def _as_path(value: object) -> Path | None:
    """Return the absolute path in a value: a PathLike, or a text with an absolute path.

    Return None if there is none.
    """
    if isinstance(value, os.PathLike):
        return Path(os.path.abspath(os.fsdecode(value)))
    if isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value:
        text = value.removeprefix("file://")
        text = text.rpartition("=")[2] if text.startswith("--") else text
        return Path(os.path.abspath(text)) if os.path.isabs(text) else None
    return None


def _children(value: object) -> Iterable[Any]:
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
    if (
        isinstance(value, (type, types.ModuleType, str, bytes, int, float))
        or type(value).__module__.partition(".")[0] in FRAMEWORK
    ):
        return []
    slots = [
        getattr(value, name, None)
        for cls in type(value).__mro__
        for name in cls.__dict__.get("__slots__", ())
        if isinstance(name, str)
    ]
    return [*getattr(value, "__dict__", {}).values(), *slots]


def paths_in(*values: object) -> Iterator[Path]:
    """Yield each path in some values, at any depth of arguments, closures and attributes.

    Look at up to ``MAX_OBJECTS`` objects.
    """
    seen: set[int] = set()
    # Breadth first, so that the arguments themselves are found, even if one of them holds many
    # objects.
    pending = collections.deque(values)
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

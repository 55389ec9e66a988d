"""What lies below a directory, by status alone; and which files this process has open for writing. On any system of the POSIX kind."""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import threading
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["OpenFiles", "Status", "are_fine", "has_fine_times", "list_tree", "status_of"]

_FDS = "/dev/fd"
_NS_PER_MS = 1_000_000  # ns
_MIN_CLOCK_TICK_NS = 950_000  # ns: no clock that ticks does so more often than a thousand times a second
_MAX_CLOCK_PROBES = 500
_MAX_DESCRIPTORS = 256
"""How many descriptors are asked where nothing lists them."""


class Status(NamedTuple):
    """What is compared. Whatever is done to a file, it shows in one of these; what is done soon after may not, where times are coarse."""

    key: tuple[int, int]
    """Device and inode."""
    mode: int
    size: int
    mtime: int
    ctime: int

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


def status_of(path: str) -> Status | None:
    """A path's status; None for nothing."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return Status((status.st_dev, status.st_ino), status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def list_tree(root: str) -> dict[str, Status] | None:
    """All that there is, by path relative to the root, which is ``""``; None if it changed while it was looked at."""
    above = status_of(root)
    if above is None or not above.is_folder:
        return {}
    found, left = {"": above}, [""]
    while left:
        folder = left.pop()
        for name in _names(os.path.join(root, folder) if folder else root):
            path = f"{folder}/{name}" if folder else name
            status = status_of(os.path.join(root, path))
            if status is None:
                return None
            found[path] = status
            if status.is_folder:
                left.append(path)
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # gone, which the next listing shows; or nobody may look into it
        return []


def are_fine(first: int, second: int) -> bool:
    """Whether two times (ns) were not taken from a clock that ticks some hundred times a second, or once."""
    passed = second - first
    return 0 < passed < _MIN_CLOCK_TICK_NS or (
        passed < 3 * _NS_PER_MS and _NS_PER_MS - _MIN_CLOCK_TICK_NS < passed % _NS_PER_MS < _MIN_CLOCK_TICK_NS
    )


def has_fine_times(folder: str) -> bool:
    """Whether the filesystem of this directory tells things apart that are done one right after the other. Tries it, with a file there."""
    path = os.path.join(folder, f".times-{os.getpid()}-{threading.get_ident()}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(fd).st_mtime_ns
        for _ in range(_MAX_CLOCK_PROBES):
            os.write(fd, b"x")
            after = os.fstat(fd).st_mtime_ns
            if are_fine(before, after):
                return True
            before = after
        return False
    finally:
        os.close(fd)
        os.unlink(path)


class OpenFiles:
    """The files that this process has open for writing, whoever opened them.

    Fidelity: those of other processes are not known.
    """

    def __init__(self) -> None:
        self._fcntl = importlib.import_module("fcntl")  # not everywhere
        self._last: dict[tuple[int, int], int] = {}
        self._free = -1

    def has_more(self) -> bool:
        """Whether something was opened since the last time that ``among`` was called, as far as one question tells."""
        try:
            os.fstat(self._free)
        except OSError:
            return False
        return True

    def among(self, wanted: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Those of these files, by device and inode."""
        found: dict[tuple[int, int], int] = {}
        missing = set()
        for key in wanted:
            fd = self._last.get(key)
            if fd is not None and self._written_by(fd) == key:
                found[key] = fd
            else:
                missing.add(key)
        for fd in _descriptors() if missing else ():
            key_there = self._written_by(fd)
            if key_there in missing:
                found[key_there] = fd
        self._last = found
        self._free = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # the lowest that is free: the next that is opened has it
        os.close(self._free)
        return set(found)

    def _written_by(self, fd: int) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            if self._fcntl.fcntl(fd, self._fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                status = os.fstat(fd)
                return (status.st_dev, status.st_ino)
        return None


def _descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir(_FDS)]
    except (OSError, ValueError):
        return range(_MAX_DESCRIPTORS)

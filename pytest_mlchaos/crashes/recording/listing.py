"""List a directory by status alone, on any POSIX system.

This also finds the files that this process has open for writing.
"""

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
_NS_PER_MS = 1_000_000
# A clock that ticks does so at most a thousand times a second, so 1 ms less 5 %.
_MIN_CLOCK_TICK_NS = 950_000
_MAX_CLOCK_PROBES = 500
"""Write to a file at most this many times to find out if its times are fine."""
_MAX_DESCRIPTORS = 256
"""Try this many descriptors if the system does not list them."""


class Status(NamedTuple):
    """The compared values of a path.

    Every change of a file changes one of them, unless it follows an earlier change within one tick
    of a coarse clock.
    """

    key: tuple[int, int]
    """Device and inode."""
    mode: int
    size: int
    mtime: int
    ctime: int

    @property
    def is_file(self) -> bool:
        """Return True for a plain file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """Return True for a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Return True for a symbolic link."""
        return stat.S_ISLNK(self.mode)


def status_of(path: str) -> Status | None:
    """Return a path's status, or None if it does not exist."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return Status(
        (status.st_dev, status.st_ino),
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def list_tree(root: str) -> dict[str, Status] | None:
    """Return the status of all paths below the root, by relative path. The root is ``""``.

    Return None if the tree changed meanwhile.
    """
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
    except OSError:  # gone, as the next listing will show, or not readable
        return []


def are_fine(first: int, second: int) -> bool:
    """Return True if two times (ns) come from a fine clock.

    Their difference rules out a clock that ticks each millisecond or less often.
    """
    passed = second - first
    return 0 < passed < _MIN_CLOCK_TICK_NS or (
        passed < 3 * _NS_PER_MS
        and _NS_PER_MS - _MIN_CLOCK_TICK_NS < passed % _NS_PER_MS < _MIN_CLOCK_TICK_NS
    )


def has_fine_times(folder: str) -> bool:
    """Return True if file times differ for writes in quick succession.

    This writes to a file in the folder to find out.
    """
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
    """The files that this process has open for writing.

    Fidelity: open files of other processes are unknown.
    """

    def __init__(self) -> None:
        self._fcntl = importlib.import_module("fcntl")  # not on every platform
        self._last: dict[tuple[int, int], int] = {}
        self._free = -1

    def has_more(self) -> bool:
        """Return True if a file was opened since ``among`` was called.

        This is one system call: it checks if the descriptor that was the lowest free one is in use.
        """
        try:
            os.fstat(self._free)
        except OSError:
            return False
        return True

    def among(self, wanted: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return those of these files (device, inode) that are open for writing."""
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
        # The lowest free number, which the next open() uses.
        self._free = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
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

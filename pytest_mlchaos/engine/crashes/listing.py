"""What lies below a directory, by status alone; and which files this process has open for writing. On any system of the POSIX kind."""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["OpenFiles", "Status", "listed", "status_of"]

_FDS = "/dev/fd"
_MOST = 256
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


def listed(root: str) -> dict[str, Status] | None:
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


class OpenFiles:
    """The files that this process has open for writing, whoever opened them.

    Fidelity: those of other processes are not known.
    """

    def __init__(self) -> None:
        self._fcntl = importlib.import_module("fcntl")  # not everywhere
        self._last: dict[tuple[int, int], int] = {}

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
        return range(_MOST)

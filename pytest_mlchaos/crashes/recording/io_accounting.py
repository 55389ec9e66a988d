"""Count the bytes that this process writes, and its write calls.

The counts show if a file grew from start to end.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import NamedTuple

from ...engine.activity import list_threads

__all__ = ["WriteAccount", "WriteCount", "mapped_files"]


class WriteCount(NamedTuple):
    """The amount written between two looks: ``size`` in bytes, by ``calls`` system calls."""

    size: int
    calls: int


class WriteAccount:
    """Linux' account of this process's writes (``/proc/self/io``), from one look to the next.

    A file may grow by more than was written. Then it was given its length first, or has holes, or
    was written through a memory mapping, so a cut of it is not a state.

    Fidelity: the account is unknown while new threads or child processes may be writing. It does
    not detect a file that was written in a different order without a hole. It counts all threads of
    this process, and child processes once they have ended.
    """

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
        self._before = self._written()
        self._others = _others()

    def close(self) -> None:
        """Close the account."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def since(self) -> WriteCount | None:
        """Return the amount written since ``reset``, or None if it is unknown."""
        now = self._written()
        if now is None or self._before is None or _others() - self._others:
            return None
        return WriteCount(now.size - self._before.size, now.calls - self._before.calls)

    def reset(self) -> None:
        """Start counting here."""
        self._before = self._written()

    def _written(self) -> WriteCount | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            lines = os.pread(self._fd, 512, 0).decode("ascii").splitlines()
            counts = {
                name: int(number) for name, _, number in (line.partition(":") for line in lines)
            }
            return WriteCount(counts["wchar"], counts["syscw"])
        return None


def _others() -> set[int]:
    """Return the IDs of other threads and of this thread's child processes. They may write, too."""
    others = (thread for thread in list_threads() if not thread.name.startswith("mlchaos"))
    found = {thread.native_id or 0 for thread in others if thread.ident != threading.get_ident()}
    with (
        contextlib.suppress(OSError),
        open(f"/proc/self/task/{threading.get_native_id()}/children", "rb") as children,
    ):
        found |= set(map(int, children.read().split()))
    return found


def mapped_files() -> set[tuple[int, int]]:
    """Return the (device, inode) of each file that this process has mapped shared and writable."""
    found = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as maps:
        for line in maps.read().splitlines():
            if b" rw-s " in line:
                _, _, _, device, inode, *_ = line.split()
                major, minor = device.split(b":")
                found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    return found

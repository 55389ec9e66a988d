"""How many bytes this process has written, and by how many calls, as the kernel counts them: whether a file grew from front to back."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import NamedTuple

from ...engine.activity import list_threads

__all__ = ["WriteAccount", "WriteCount", "mapped_files"]


class WriteCount(NamedTuple):
    """What was written between two looks: ``size`` in bytes, by how many system ``calls``."""

    size: int
    calls: int


class WriteAccount:
    """Linux' account of this process's writes (``/proc/self/io``), from one look to the next.

    A file that has grown by more than was written was given its length first, or has holes, or was written through a mapping into memory:
    its beginnings are no states.

    Fidelity: nothing can be said while threads or child processes that were started since then may be writing, nor where a file was
    written in another order without a hole. All threads of this process are counted, and child processes when they have ended.
    """

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
        self._before = self._written()
        self._others = _others()

    def close(self) -> None:
        """Look no more."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def since(self) -> WriteCount | None:
        """Return what was written since ``reset``; None if this cannot be told."""
        now = self._written()
        if now is None or self._before is None or _others() - self._others:
            return None
        return WriteCount(now.size - self._before.size, now.calls - self._before.calls)

    def reset(self) -> None:
        """What comes is counted from here on."""
        self._before = self._written()

    def _written(self) -> WriteCount | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            lines = os.pread(self._fd, 512, 0).decode("ascii").splitlines()
            counts = {name: int(number) for name, _, number in (line.partition(":") for line in lines)}
            return WriteCount(counts["wchar"], counts["syscw"])
        return None


def _others() -> set[int]:
    """Who else may write: this thread's child processes, and the other threads, by their numbers."""
    others = (thread for thread in list_threads() if not thread.name.startswith("mlchaos"))
    found = {thread.native_id or 0 for thread in others if thread.ident != threading.get_ident()}
    with contextlib.suppress(OSError), open(f"/proc/self/task/{threading.get_native_id()}/children", "rb") as children:
        found |= set(map(int, children.read().split()))
    return found


def mapped_files() -> set[tuple[int, int]]:
    """The files that this process has mapped into memory so that they change when it does: (device, inode) of each."""
    found = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as maps:
        for line in maps.read().splitlines():
            if b" rw-s " in line:
                _, _, _, device, inode, *_ = line.split()
                major, minor = device.split(b":")
                found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    return found

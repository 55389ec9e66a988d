"""How many bytes this process has written, as the kernel counts them: whether a file can have grown from front to back."""

from __future__ import annotations

import contextlib
import os
import threading

from ..bystanders import threads

__all__ = ["Account", "mapped_files"]


class Account:
    """Linux' account of this process's writes (``/proc/self/io``), from one look to the next.

    A file that has grown by more than was written was given its length first, or has holes, or was written through a mapping into memory:
    its beginnings are no states.

    Fidelity: nothing can be said while threads or child processes that were started since then may be writing, nor where a file was
    written in another order without a hole.
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

    def since(self) -> int | None:
        """How many bytes were written since ``reset``; None where nobody can tell."""
        now = self._written()
        if now is None or self._before is None or _others() - self._others:
            return None
        return now - self._before

    def reset(self) -> None:
        """What comes is counted from here on."""
        self._before = self._written()

    def _written(self) -> int | None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(os.pread(self._fd, 512, 0).split(b"wchar:", 1)[1].split(None, 1)[0])
        return None


def _others() -> set[int]:
    """Who else may write: this thread's child processes, and the other threads, by their numbers."""
    others = (thread for thread in threads() if not thread.name.startswith("mlchaos"))
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

"""Linux' inotify, by ctypes.

It reports every change below a directory, from any process and any language.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import importlib
import os
import select
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Event", "Inotify", "NoInotify", "available"]

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED, ISDIR = 0x4000, 0x8000, 0x40000000
# States leave out unlinked files, so their events are not needed.
_ONLYDIR, _EXCL_UNLINK = (0x01000000, 0x04000000)
_MASK = (
    MODIFY
    | ATTRIB
    | CLOSE_WRITE
    | CLOSE_NOWRITE
    | OPEN
    | MOVED_FROM
    | MOVED_TO
    | CREATE
    | DELETE
    | _EXCL_UNLINK
)
_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 18
"""Read at most this many bytes of events at a time."""
_MAX_SPARE = 2
"""Keep at most this many closed instances for reuse: a recorder and a read log need one each."""
_spare: list[tuple[int, int]] = []
"""Closed instances, each with the process that owns it.

The kernel takes 8 to 15 ms to close an instance. Removing its watches takes microseconds.
"""


class NoInotify(OSError):
    """The system refuses a further instance or watch. Directories can be polled instead."""


class Event(NamedTuple):
    """An event of the entry ``name`` in the directory of ``watch``."""

    watch: int
    mask: int
    cookie: int
    name: str


def available() -> bool:
    """Return True if the system has inotify.

    Without it, ``polling_recorder.py`` compares listings.
    """
    return sys.platform == "linux"


class Inotify:
    """A queue of events. ``pending`` returns, in half a microsecond, if there are any."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._owner = os.getpid()
        self._watches: set[int] = set()
        self.fd = _take_spare()
        if self.fd < 0:
            self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise NoInotify(
                ctypes.get_errno(),
                "inotify_init1: the limit of user instances (fs.inotify.max_user_instances) may be "
                "reached",
            )
        self.pending = self._asker()

    def wait(self, seconds: float) -> bool:
        """Wait until there are events, at most this many seconds."""
        return bool(select.select([self.fd], [], [], seconds)[0])

    def _asker(self) -> Callable[[], int]:
        count = array.array("i", [0])
        # Not on every platform.
        fcntl, termios = (importlib.import_module("fcntl"), importlib.import_module("termios"))
        ioctl, fd, request = fcntl.ioctl, self.fd, termios.FIONREAD

        def pending() -> int:
            try:
                ioctl(fd, request, count)
            except (OSError, ValueError):  # a different thread has closed the queue
                return 0
            return count[0]

        def forget() -> None:
            nonlocal fd
            fd = -1  # the descriptor may soon belong to a different queue

        self._forget_fd = forget
        return pending

    def close(self) -> None:
        """Close the queue."""
        fd, self.fd = self.fd, -1
        self._forget_fd()
        if fd < 0:
            return
        if os.getpid() != self._owner or len(_spare) >= _MAX_SPARE:
            # A forked process shares the watches with its parent, which still needs them.
            os.close(fd)
            return
        for watch in self._watches:
            self._libc.inotify_rm_watch(fd, watch)
        self._watches.clear()
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, _BUFFER_BYTES):
                pass
        _spare.append((self._owner, fd))

    def add(self, path: str, *, reads: bool = False) -> int | None:
        """Watch a directory, and return the watch, or None if the directory does not exist.

        With ``reads``, watch read accesses, too.
        """
        mask = _MASK | (ACCESS if reads else 0)
        watch: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask | _ONLYDIR)
        if watch >= 0:
            self._watches.add(watch)
            return watch
        code = ctypes.get_errno()
        if code in (2, 20):  # ENOENT, ENOTDIR
            return None
        raise NoInotify(
            code,
            f"inotify_add_watch: {os.strerror(code)} (is fs.inotify.max_user_watches too low?)",
            path,
        )

    def forget(self, watch: int) -> None:
        """Remove a watch."""
        self._watches.discard(watch)
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """Yield the events so far, in order."""
        while self.pending():
            with contextlib.suppress(BlockingIOError):
                yield from _parse_events(os.read(self.fd, _BUFFER_BYTES))


def _take_spare() -> int:
    """Return the descriptor of a closed instance of this process, or -1 if there is none.

    Numbers of watches are never used twice, so a late event of an earlier use has an unknown one.
    """
    while _spare:
        owner, fd = _spare.pop()
        # The subject may have closed all descriptors that it does not know.
        with contextlib.suppress(OSError):
            if owner == os.getpid() and "inotify" in os.readlink(f"/proc/self/fd/{fd}"):
                return fd
    return -1


def _parse_events(data: bytes) -> Iterator[Event]:
    index = 0
    while index < len(data):
        watch, mask, cookie, length = _HEAD.unpack_from(data, index)
        index += _HEAD.size
        yield Event(watch, mask, cookie, os.fsdecode(data[index : index + length].rstrip(b"\0")))
        index += length

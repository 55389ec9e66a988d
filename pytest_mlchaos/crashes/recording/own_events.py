"""Tell the changes of this process from those of others, by Linux' fanotify.

inotify reports the changes in order, and does not say which process made them. fanotify does: a
process without privileges learns which events are its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator

# By name, so that patches of the module's attributes do not affect them.
from time import monotonic, sleep

from ...engine.inotify import IGNORED, ISDIR, OVERFLOW, Event, Inotify, NoInotify

__all__ = ["OwnEvents", "is_available"]

_NONBLOCK, _CLOEXEC, _DIR_AND_NAME = 0x2, 0x1, 0x400 | 0x800
_MARK_ADD, _ONLYDIR, _HERE = 0x1, 0x8, -100
_ON_DIRECTORIES, _ON_CHILDREN = 0x40000000, 0x08000000
_ACCESS = 0x1
_MASK = 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200
"""The changes, opens and closes that inotify is asked for. Both have the same bits."""
_NAMES = 0x40 | 0x80 | 0x100 | 0x200
"""The changes of names: moved from, moved to, created, deleted."""
_ITSELF = "."
"""A directory has this name in its own events."""
_HEAD = struct.Struct("IBBHQii")
_INFO = struct.Struct("BBH8xIi")
_MAX_HANDLE_BYTES = 128
_BUFFER_BYTES = 1 << 18
_MAX_WAIT_SECONDS = 2.0
_WAIT_SECONDS = 0.0001
"""The kernel adds an event to one queue after the other, some microseconds apart. On a busy machine,
the process that makes it may be stopped in between for much longer."""

Key = tuple[int, str]
"""A watched directory and a name in it."""


class OwnEvents(Inotify):
    """An inotify queue that knows which entries this process has changed.

    ``own`` has the entries that this process changed in the events that were read last, and
    ``foreign`` those that other processes changed.

    Source: ``copy_event_to_user`` of the Linux kernel (5.13 and later) gives a process without
    privileges its own process id, and 0 for the events of others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own: set[Key] = set()
        self.foreign: set[Key] = set()
        self.lost = False
        """True if the kernel dropped events, so that the owner of some changes is unknown."""
        self.unsure = False
        """True if no owner was found for some event, so that it counts as another process's."""
        self._handles: dict[bytes, int] = {}
        self._late: tuple[set[Key], set[Key]] = (set(), set())
        self._fan = _new_group(self._libc)
        if self._fan < 0:
            code = ctypes.get_errno()
            super().close()
            raise NoInotify(code, f"fanotify_init: {os.strerror(code)}")

    def close(self) -> None:
        """Close the queues."""
        super().close()
        fan, self._fan = self._fan, -1
        if fan >= 0:
            os.close(fan)

    def add(self, path: str, *, reads: bool = False) -> int | None:
        """Watch a directory."""
        # First this queue, so that the owner of each event of the other is known.
        handle = _handle_of(self._libc, path)
        marked = self._libc.fanotify_mark(
            self._fan,
            _MARK_ADD | _ONLYDIR,
            ctypes.c_uint64(_MASK | _ON_DIRECTORIES | _ON_CHILDREN | (_ACCESS if reads else 0)),
            _HERE,
            os.fsencode(path),
        )
        code = ctypes.get_errno()
        watch = super().add(path, reads=reads)
        if watch is None:
            return None
        if handle is None or marked < 0:
            if code in (2, 20):  # removed in between
                return watch
            raise NoInotify(code, f"fanotify_mark: {os.strerror(code)}", path)
        self._handles[handle] = watch
        return watch

    def read(self) -> Iterator[Event]:
        """Yield the events so far, and note which entries are this process's own."""
        events = list(super().read())
        changed = {
            (event.watch, event.name or _ITSELF)
            for event in events
            if not event.mask & (IGNORED | OVERFLOW) and not _is_of_folder(event)
        }
        self.own, self.foreign = self._late
        pause = _WAIT_SECONDS
        end = monotonic() + _MAX_WAIT_SECONDS
        while True:
            self._drain()
            if changed <= self.own | self.foreign or monotonic() > end:
                break
            sleep(pause)
            pause *= 2
        self.unsure |= not changed <= self.own | self.foreign
        self._late = (self.own - changed, self.foreign - changed)
        return iter(events)

    def is_own(self, event: Event) -> bool:
        """Return True if this process has used the entry, or has listed the directory."""
        return (event.watch, event.name or _ITSELF) in self.own

    def _drain(self) -> None:
        me = os.getpid()
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self._fan, _BUFFER_BYTES)
                offset = 0
                while offset < len(data):
                    length, _, _, head, mask, _, pid = _HEAD.unpack_from(data, offset)
                    self.lost |= bool(mask & OVERFLOW)
                    key = self._key(data[offset + head : offset + length])
                    if key is not None:
                        (self.own if pid == me else self.foreign).add(key)
                    offset += length

    def _key(self, info: bytes) -> Key | None:
        if len(info) < _INFO.size:
            return None
        _, _, length, size, kind = _INFO.unpack_from(info)
        end = _INFO.size + size
        watch = self._handles.get(struct.pack("i", kind) + info[_INFO.size : end])
        name = info[end:length].split(b"\0")[0]
        return None if watch is None else (watch, os.fsdecode(name))


def _is_of_folder(event: Event) -> bool:
    """Return True if a directory above tells of a listed or touched one.

    fanotify does not. The directory itself tells of it, too.
    """
    return bool(event.mask & ISDIR and event.name) and not event.mask & _NAMES


def _new_group(libc: ctypes.CDLL) -> int:
    if not hasattr(libc, "fanotify_init"):
        return -1
    group: int = libc.fanotify_init(_NONBLOCK | _CLOEXEC | _DIR_AND_NAME, os.O_RDONLY)
    return group


def _handle_of(libc: ctypes.CDLL, path: str) -> bytes | None:
    """Return the kernel's name of a directory, which a rename does not change."""
    buffer = ctypes.create_string_buffer(8 + _MAX_HANDLE_BYTES)
    struct.pack_into("Ii", buffer, 0, _MAX_HANDLE_BYTES, 0)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(_HERE, os.fsencode(path), buffer, ctypes.byref(mount), 0) < 0:
        return None
    size, kind = struct.unpack_from("Ii", buffer, 0)
    return struct.pack("i", kind) + buffer.raw[8 : 8 + size]


def is_available(path: str) -> bool:
    """Return True if the system tells this process which changes below ``path`` are its own."""
    if sys.platform != "linux":
        return False
    try:
        events = OwnEvents()
    except (NoInotify, OSError):
        return False
    try:
        events.add(path)
    except (NoInotify, OSError, AttributeError):
        return False
    finally:
        events.close()
    return True

"""Watch ``os.read`` and ``os.write`` on descriptors of files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from ...core.storage import Break
from ...engine.patching import Patches
from ...engine.scopes import inside
from ...engine.stand_ins import unbound
from .base import Breaks, Storage, WatchedFile, active, mechanism

__all__: list[str] = []


@mechanism
def install(storage: Storage, patches: Patches) -> None:
    """Wrap both functions under all their names."""
    for original, make in ((os.write, _writer), (os.read, _reader)):
        patches.replace_everywhere(original, unbound(make(original), original))


def _file_of(number: object) -> tuple[Storage, WatchedFile] | None:
    """Return the watched file of a descriptor. Return None for pipes, sockets and terminals."""
    storage = active()
    if storage is None or inside() or not isinstance(number, int):
        return None
    watched_file = storage.descriptor(number)
    if watched_file is None or not watched_file.watched:
        return None
    return storage, watched_file


def _position(number: int) -> int:
    try:
        return os.lseek(number, 0, os.SEEK_CUR)
    except OSError:
        return 0


def _writer(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def write(fd: int, data: Any, /) -> int:
        found = _file_of(fd)
        if found is None:
            return int(original(fd, data))
        storage, watched_file = found
        breaks, known = storage.descriptor_breaks, (fd, "write")
        passage = storage.begin("write", watched_file, data)
        if passage is None and known not in breaks:
            with storage.unlimited(watched_file):
                return int(original(fd, data))
        view = memoryview(data).cast("B")
        if passage is not None:
            with passage:
                passage.wait()
                if (point := passage.operation.breaks) is not None:
                    position, length, point.data = _position(fd), os.fstat(fd).st_size, view
                    breaks[known] = point.reach(view.nbytes, position, length), point
                done = _write(original, fd, view, breaks, known)
            passage.transferred(done)
            return done
        return _write(original, fd, view, breaks, known)

    return write


def _write(
    original: Callable[..., Any], fd: int, view: memoryview, breaks: Breaks, known: tuple[int, str]
) -> int:
    """Write the bytes before the point at which writes stop."""
    if known not in breaks:
        return int(original(fd, view))
    offset, point = breaks[known]
    room = max(0, offset - _position(fd))
    if not point.lasts:
        del breaks[known]
    if room >= view.nbytes:
        return int(original(fd, view))
    done = int(original(fd, view[:room])) if room else 0
    if done and point.error is not None:
        return done
    point.stop()
    if point.reports_all:
        os.lseek(fd, view.nbytes - done, os.SEEK_CUR)
        return view.nbytes
    return done


def _reader(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(fd: int, length: int, /) -> bytes:
        found = _file_of(fd)
        if found is None:
            return bytes(original(fd, length))
        storage, watched_file = found
        breaks, known = storage.descriptor_breaks, (fd, "read")
        passage = storage.begin("read", watched_file)
        if passage is None:
            return _read(original, fd, length, breaks, known)
        with passage:
            passage.wait()
            size, operation = os.fstat(fd).st_size, passage.operation
            if operation.keep is not None:
                end = operation.ends_at(size, _position(fd))
                breaks[known] = end, Break(end)
            if operation.breaks is not None and operation.breaks.offset(size) < size:
                breaks[known] = operation.breaks.offset(size), operation.breaks
            data = _read(original, fd, length, breaks, known)
        passage.transferred(len(data))
        return data

    return read


def _read(
    original: Callable[..., Any], fd: int, length: int, breaks: Breaks, known: tuple[int, str]
) -> bytes:
    """Read the bytes before the point at which reads stop."""
    if known not in breaks:
        return bytes(original(fd, length))
    offset, point = breaks[known]
    room = max(0, offset - _position(fd))
    if not room and length:
        point.stop()
    return bytes(original(fd, min(length, room)))

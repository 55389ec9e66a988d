"""Wrap file objects that no hook reaches, so that their reads and writes are visits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...core.storage import Break
from ...engine.scopes import inside
from ...engine.stand_ins import Proxy
from .base import Passage, Storage, WatchedFile, active

if TYPE_CHECKING:
    import torch

__all__ = ["FileProxy"]


class FileProxy(Proxy):
    """A proxy for any file object. Each read and write is a visit.

    A fault may set an end, after which nothing can be read. ``watched_file`` must not hold the
    filesystem, because the file would keep it alive: some filesystems write their index when they
    are freed.
    """

    __slots__ = ("_mlchaos_end", "_mlchaos_file", "_mlchaos_read_break", "_mlchaos_write_break")

    def __init__(self, file: Any, watched_file: Callable[[Storage], WatchedFile | None]) -> None:
        super().__init__(file)
        self._mlchaos_file = watched_file
        self._mlchaos_end: int | None = None
        self._mlchaos_read_break: Break | None = None
        self._mlchaos_write_break: tuple[int, Break] | None = None

    def __iter__(self) -> Iterator[Any]:
        own = hasattr(type(self._mlchaos), "__next__")
        return self if own else self._mlchaos_lines()

    def __next__(self) -> Any:
        if line := self._mlchaos_line():
            return line
        raise StopIteration

    def read(self, *args: object, **kwargs: object) -> Any:
        """Read the next bytes, or the rest."""
        return self._mlchaos_read("read", args, kwargs)

    def read1(self, *args: object, **kwargs: object) -> Any:
        """Read the next bytes that are available at once."""
        return self._mlchaos_read("read1", args, kwargs)

    def readline(self, *args: object, **kwargs: object) -> Any:
        """Read the next line."""
        return self._mlchaos_read("readline", args, kwargs)

    def readlines(self, hint: int | None = -1, /) -> Any:
        """Read the remaining lines, or about ``hint`` bytes of them."""
        lines, size = [], 0
        while line := self._mlchaos_line():
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def readinto(self, buffer: torch.Tensor, /) -> Any:
        """Fill a buffer."""
        return self._mlchaos_fill("readinto", buffer)

    def readinto1(self, buffer: torch.Tensor, /) -> Any:
        """Fill a buffer with the bytes that are available at once."""
        return self._mlchaos_fill("readinto1", buffer)

    def write(self, data: Any, /) -> Any:
        """Write bytes or text."""
        passage = self._mlchaos_begin("write", data)
        if passage is None:
            return self._mlchaos_put(data)
        with passage:
            passage.wait()
            if passage.operation.breaks is not None:
                passage.operation.breaks.data = data
                self._mlchaos_break_writes(passage.operation.breaks, len(data))
            done = self._mlchaos_put(data)
        passage.transferred(len(data))
        return done

    def writelines(self, lines: Any, /) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def _mlchaos_begin(self, op: str, data: Any = None) -> Passage | None:
        storage = active()
        watched_file = self._mlchaos_file(storage) if storage is not None and not inside() else None
        return (
            None
            if storage is None or watched_file is None
            else storage.begin(op, watched_file, data)
        )

    def _mlchaos_break_writes(self, point: Break, size: int) -> None:
        """Let writes stop at a point from now on."""
        position = self._mlchaos_position()
        offset = point.reach(size, position, position)
        if offset < position + size or not isinstance(point.after, float):
            self._mlchaos_write_break = offset, point

    def _mlchaos_position(self) -> int:
        try:
            return int(self._mlchaos.tell())
        except (AttributeError, OSError):
            return 0

    def _mlchaos_put(self, data: Any) -> Any:
        """Write what is before the point at which writes stop.

        The file object takes all that it is given, as a buffer does, so an error comes at once.
        """
        if self._mlchaos_write_break is None or active() is None:
            return self._mlchaos.write(data)
        offset, point = self._mlchaos_write_break
        room = max(0, offset - self._mlchaos_position())
        if room >= len(data):
            return self._mlchaos.write(data)
        if not point.lasts:
            self._mlchaos_write_break = None
        if point.error is None and not point.reports_all:
            return self._mlchaos.write(data)  # a buffer writes the rest itself
        if room:
            self._mlchaos.write(data[:room])
        point.stop()
        return len(data) if point.reports_all else room

    def _mlchaos_line(self) -> Any:
        return self._mlchaos_read(
            "readline" if hasattr(self._mlchaos, "readline") else "__next__", (), {}
        )

    def _mlchaos_lines(self) -> Iterator[Any]:
        while line := self._mlchaos_line():
            yield line

    def _mlchaos_read(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        passage = self._mlchaos_begin("read")
        read = getattr(self._mlchaos, name)
        if passage is None:
            return self._mlchaos_trimmed(read(*args, **kwargs), _wanted(name, args))
        with passage:
            passage.wait()
            self._mlchaos_end_at(passage)
            data = self._mlchaos_trimmed(read(*args, **kwargs), _wanted(name, args))
        passage.transferred(len(data))
        return data

    def _mlchaos_fill(self, name: str, buffer: torch.Tensor) -> Any:
        passage = self._mlchaos_begin("read")
        if passage is None and self._mlchaos_end is None:
            return getattr(self._mlchaos, name)(buffer)
        view = memoryview(buffer).cast("B")
        with passage or contextlib.nullcontext():
            if passage is not None:
                passage.wait()
                self._mlchaos_end_at(passage)
            data = self._mlchaos_trimmed(self._mlchaos.read(len(view)), len(view))
            view[: len(data)] = data
        if passage is not None:
            passage.transferred(len(data))
        return len(data)

    def _mlchaos_end_at(self, passage: Passage) -> None:
        """Set the end of the file that a fault asks for, or the point where reads stop."""
        point = passage.operation.breaks
        if passage.operation.keep is None and point is None:
            return
        file = self._mlchaos
        position = file.tell()
        size = int(file.seek(0, 2))
        file.seek(position)
        if passage.operation.keep is not None:
            self._mlchaos_end = passage.operation.ends_at(size, position)
        if point is not None and point.offset(size) < size:
            self._mlchaos_end, self._mlchaos_read_break = point.offset(size), point

    def _mlchaos_trimmed(self, data: Any, wanted: int) -> Any:
        """Return the data before the end, and correct the position.

        If reads stop there with an error, the read that needs more raises it.
        """
        if self._mlchaos_end is None or active() is None:
            return data
        position = self._mlchaos.tell()
        surplus = min(len(data), max(0, position - self._mlchaos_end))
        if surplus:
            self._mlchaos.seek(position - surplus)
        point = self._mlchaos_read_break
        if point is not None and surplus and (wanted < 0 or surplus == len(data)):
            point.stop()
        return data[: len(data) - surplus]


def _wanted(name: str, args: tuple[Any, ...]) -> int:
    """Return the number of bytes that a read asks for, or -1 for a line or the rest."""
    size = args[0] if args and name in ("read", "read1") else None
    return size if isinstance(size, int) else -1

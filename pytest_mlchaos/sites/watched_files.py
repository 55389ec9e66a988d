"""A file object whose reads and writes are visits, around one that no hook reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..engine.scopes import inside
from .storage import Passage, Place, Storage, active

__all__ = ["Watched"]
__tracebackhide__ = True  # a failure shows the user's code, not ours


class Watched:
    """Stands for a file object of any kind; ``isinstance`` takes it for one of that kind. Each read and write is a visit.

    A fault may set an end: behind it there is nothing more to read.
    """

    def __init__(self, file: Any, place: Callable[[Storage], Place | None]) -> None:
        self._mlchaos_file = file
        self._mlchaos_place = place
        self._mlchaos_end: int | None = None

    @property  # type: ignore[misc]  # what isinstance asks when the type itself does not fit
    def __class__(self) -> Any:
        return type(self._mlchaos_file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlchaos_file, name)

    def __enter__(self) -> Watched:
        self._mlchaos_file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._mlchaos_file.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        while line := self.readline():
            yield line

    def __next__(self) -> Any:
        if line := self.readline():
            return line
        raise StopIteration

    def read(self, *size: Any) -> Any:
        """The next bytes, or the rest."""
        return self._mlchaos_read("read", size)

    def read1(self, *size: Any) -> Any:
        """The next bytes, as many as there are at once."""
        return self._mlchaos_read("read1" if hasattr(self._mlchaos_file, "read1") else "read", size)

    def readline(self, *size: Any) -> Any:
        """The next line."""
        return self._mlchaos_read("readline", size)

    def readlines(self, *hint: Any) -> Any:
        """The lines that are left."""
        return list(self)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")
        data = self._mlchaos_read("read", (len(view),))
        view[: len(data)] = data
        return len(data)

    readinto1 = readinto

    def write(self, data: Any) -> Any:
        """Some bytes, or text."""
        passage = self._mlchaos_begin("write")
        if passage is None:
            return self._mlchaos_file.write(data)
        with passage:
            passage.wait()
            done = self._mlchaos_file.write(data)
        passage.transferred(len(data))
        return done

    def writelines(self, lines: Any) -> None:
        """One write each."""
        for line in lines:
            self.write(line)

    def _mlchaos_begin(self, op: str) -> Passage | None:
        storage = active()
        place = self._mlchaos_place(storage) if storage is not None and not inside() else None
        return None if storage is None or place is None else storage.begin(op, place)

    def _mlchaos_read(self, name: str, arguments: tuple[Any, ...]) -> Any:
        passage = self._mlchaos_begin("read")
        read = getattr(self._mlchaos_file, name)
        if passage is None:
            return self._mlchaos_trimmed(read(*arguments))
        with passage:
            passage.wait()
            if passage.operation.keep is not None:
                self._mlchaos_end = passage.operation.ends_at(self._mlchaos_size())
            data = self._mlchaos_trimmed(read(*arguments))
        passage.transferred(len(data))
        return data

    def _mlchaos_size(self) -> int:
        file = self._mlchaos_file
        position = file.tell()
        size = int(file.seek(0, 2))
        file.seek(position)
        return size

    def _mlchaos_trimmed(self, data: Any) -> Any:
        """What lies before the end; the position too."""
        if self._mlchaos_end is None or active() is None:
            return data
        position = self._mlchaos_file.tell()
        surplus = min(len(data), max(0, position - self._mlchaos_end))
        if surplus:
            self._mlchaos_file.seek(position - surplus)
        return data[: len(data) - surplus]

"""Track open files and descriptors as the kernel does.

Threads share descriptors, a fork copies them, and several of them may refer to one open file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .strace_parser import Call

if TYPE_CHECKING:
    from .outside_files import Shadow

__all__ = ["OpenFile", "Processes"]


@dataclasses.dataclass(eq=False, slots=True)
class OpenFile:
    """One open file.

    Attributes:
        path: The path by which it was opened.
        shadow: A copy of the file, or None for a file that is only read, or that is not a plain
            file.
        writes: True if it was opened for writing.
        appends: True if writes go to its end.
        synced: True if each write is written back.
        at: The offset of the next read or write.
        uses: The number of descriptors for it.
    """

    path: str
    shadow: Shadow | None
    writes: bool = False
    appends: bool = False
    synced: bool = False
    at: int = 0
    uses: int = 0


@dataclasses.dataclass(eq=False, slots=True)
class _Table:
    """Descriptors by number, with True for those that ``execve`` closes.

    ``uses`` is the number of threads that share the table.
    """

    files: dict[int, tuple[OpenFile, bool]]
    uses: int = 0


@dataclasses.dataclass(eq=False, slots=True)
class _Directory:
    path: str


class Processes:
    """The descriptors and working directories of threads, by thread ID.

    ``closed`` is called when the last descriptor of an open file is closed. ``parents`` has each
    thread's and process's parent, and whether they share their descriptors and their working
    directory.
    """

    def __init__(
        self,
        directory: str,
        parents: dict[int, tuple[int, bool, bool]],
        closed: Callable[[OpenFile], object],
    ) -> None:
        self._parents = parents
        self._closed = closed
        self._first = _Table({}), _Directory(directory)
        self._of: dict[int, tuple[_Table, _Directory]] = {}

    def _thread(self, thread: int) -> tuple[_Table, _Directory]:
        """Return a thread's descriptors and working directory.

        A new thread shares those of its parent, or has a copy.
        """
        if thread not in self._of:
            parent, files, directory = self._parents.get(thread, (0, True, True))
            table, where = self._thread(parent) if parent else self._first
            if not files:
                table = _Table(dict(table.files))
                for file, _ in table.files.values():
                    file.uses += 1
            table.uses += 1
            self._of[thread] = table, where if directory else _Directory(where.path)
        return self._of[thread]

    def born(self, thread: int) -> None:
        """Create a thread's tables, so that later calls of its parent do not change a copy."""
        self._thread(thread)

    def directory(self, thread: int) -> str:
        """Return the working directory."""
        return self._thread(thread)[1].path

    def enter(self, thread: int, directory: str) -> None:
        """Change the working directory."""
        self._thread(thread)[1].path = directory

    def file(self, thread: int, number: int) -> OpenFile | None:
        """Return the open file of a descriptor."""
        found = self._thread(thread)[0].files.get(number)
        return found[0] if found else None

    def open(self, thread: int, number: int, file: OpenFile, *, lost: bool) -> None:
        """Assign a descriptor to an open file.

        Args:
            thread: The thread that opened it.
            number: The descriptor.
            file: The open file.
            lost: True if ``execve`` closes the descriptor.
        """
        file.uses += 1
        self.close(thread, number)
        self._thread(thread)[0].files[number] = file, lost

    def close(self, thread: int, number: int) -> None:
        """Close a descriptor."""
        found = self._thread(thread)[0].files.pop(number, None)
        if found is not None:
            self._drop(found[0])

    def close_range(self, thread: int, call: Call) -> None:
        """Close the descriptors of a ``close_range`` call."""
        for number in list(self._numbers(thread, call.number(0), call.number(1))):
            if call.has(2, "CLOSE_RANGE_CLOEXEC"):
                self.lose(thread, number)
            else:
                self.close(thread, number)

    def _numbers(self, thread: int, first: int, last: int) -> Iterator[int]:
        return (number for number in self._thread(thread)[0].files if first <= number <= last)

    def lose(self, thread: int, number: int, *, lost: bool = True) -> None:
        """Set if ``execve`` closes a descriptor."""
        files = self._thread(thread)[0].files
        if number in files:
            files[number] = files[number][0], lost

    def new_program(self, thread: int) -> None:
        """Give the thread its own table after ``execve``, and close the descriptors that it loses."""
        table, directory = self._thread(thread)
        if table.uses > 1:
            self._leave(table)
            table = _Table(dict(table.files), 1)
            for file, _ in table.files.values():
                file.uses += 1
            self._of[thread] = table, directory
        for number in [number for number, (_, lost) in table.files.items() if lost]:
            self.close(thread, number)

    def ended(self, thread: int) -> None:
        """Forget a thread that has ended."""
        self._leave(self._thread(thread)[0])
        del self._of[thread]

    def _leave(self, table: _Table) -> None:
        table.uses -= 1
        while not table.uses and table.files:
            self._drop(table.files.popitem()[1][0])

    def _drop(self, file: OpenFile) -> None:
        file.uses -= 1
        if not file.uses:
            self._closed(file)

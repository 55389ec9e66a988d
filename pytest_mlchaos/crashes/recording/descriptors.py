"""Open files as processes have them: descriptors that threads share, that a fork copies, and that several stand for one open file."""

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
    """One open file. ``shadow``: the file; None for what is none, and what only is read. ``at``: where the next write goes.

    ``uses``: how many descriptors stand for it.
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
    """Descriptors, by number, with whether a new program loses each. ``uses``: how many threads share it."""

    files: dict[int, tuple[OpenFile, bool]]
    uses: int = 0


@dataclasses.dataclass(eq=False, slots=True)
class _Directory:
    path: str


class Processes:
    """The descriptors and current directories of threads, by their numbers. ``closed`` is called when nothing stands for a file any more.

    ``parents``: of each thread and process the one that made it, and if they share descriptors, and the current directory.
    """

    def __init__(self, directory: str, parents: dict[int, tuple[int, bool, bool]], closed: Callable[[OpenFile], object]) -> None:
        self._parents = parents
        self._closed = closed
        self._first = _Table({}), _Directory(directory)
        self._of: dict[int, tuple[_Table, _Directory]] = {}

    def _thread(self, thread: int) -> tuple[_Table, _Directory]:
        """Return the tables of a thread: at its first call a new one shares those of its parent, or has a copy."""
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
        """It has been made: what its parent does from now on is its parent's alone."""
        self._thread(thread)

    def directory(self, thread: int) -> str:
        """The current one."""
        return self._thread(thread)[1].path

    def enter(self, thread: int, directory: str) -> None:
        """Make another one the current one."""
        self._thread(thread)[1].path = directory

    def file(self, thread: int, number: int) -> OpenFile | None:
        """Return the open file of a descriptor."""
        found = self._thread(thread)[0].files.get(number)
        return found[0] if found else None

    def open(self, thread: int, number: int, file: OpenFile, *, lost: bool) -> None:
        """A descriptor stands for that file from now on. ``lost``: until a new program is started."""
        file.uses += 1
        self.close(thread, number)
        self._thread(thread)[0].files[number] = file, lost

    def close(self, thread: int, number: int) -> None:
        """A descriptor stands for nothing."""
        found = self._thread(thread)[0].files.pop(number, None)
        if found is not None:
            self._drop(found[0])

    def close_range(self, thread: int, call: Call) -> None:
        """Several do."""
        for number in list(self._numbers(thread, call.number(0), call.number(1))):
            if call.has(2, "CLOSE_RANGE_CLOEXEC"):
                self.lose(thread, number)
            else:
                self.close(thread, number)

    def _numbers(self, thread: int, first: int, last: int) -> Iterator[int]:
        return (number for number in self._thread(thread)[0].files if first <= number <= last)

    def lose(self, thread: int, number: int, *, lost: bool = True) -> None:
        """A new program loses a descriptor, or it does not."""
        files = self._thread(thread)[0].files
        if number in files:
            files[number] = files[number][0], lost

    def new_program(self, thread: int) -> None:
        """``execve``: it has a table of its own."""
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
        """Forget a process that has ended."""
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

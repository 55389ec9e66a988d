"""Record how files were made (by a rename, or in place), and if they were read back."""

from __future__ import annotations

import functools
import os
import sys
from types import TracebackType
from typing import Any

from .scopes import INTERNAL_OPERATION, inside

__all__ = ["FileHistory"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOVES = frozenset({"os.rename", "os.link"})
_TEMPORARY = frozenset({"tempfile.mkstemp", "tempfile.mkdtemp"})
_EVENTS = frozenset({"open"}) | _MOVES | _TEMPORARY
_recording: list[FileHistory] = []


class FileHistory:
    """A context manager that records this process's file operations by audit events.

    Files that C code opens directly raise no event.
    """

    def __init__(self) -> None:
        self.renamed: set[str] = set()
        self.read_back: set[str] = set()
        self.temporary: set[str] = set()
        """The files and directories that ``tempfile`` made."""
        self._written: set[str] = set()

    def opened(self, path: str, flags: object) -> None:
        """Note that a file is opened for writing or for reading."""
        if not isinstance(flags, int) or flags & _WRITES:
            self._written.add(path)
            self.read_back.discard(path)
            self.renamed.discard(path)
        elif path in self._written:
            self.read_back.add(path)

    def moved(self, path: str) -> None:
        """Note that a complete file or directory is moved to this path."""
        self._written.add(path)
        self.read_back.discard(path)
        self.renamed.add(path)

    def __enter__(self) -> FileHistory:
        _install()
        _recording.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in _recording:
            _recording.remove(self)


def _absolute(path: str | os.PathLike[str]) -> str | None:
    try:
        return os.path.abspath(os.fsdecode(path))
    except (TypeError, ValueError, OSError):
        # A file descriptor, or a relative path in a deleted directory.
        return None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _recording or event not in _EVENTS or inside() == INTERNAL_OPERATION:
        return
    path = _absolute(arguments[1] if event in _MOVES else arguments[0])
    for history in tuple(_recording) if path is not None else ():
        if event == "open":
            history.opened(path, arguments[2] if len(arguments) > 2 else None)  # type: ignore[arg-type]
        elif event in _TEMPORARY:
            history.temporary.add(path)  # type: ignore[arg-type]
        else:
            history.moved(path)  # type: ignore[arg-type]


@functools.cache
def _install() -> None:
    """Install the hook, once per process, because Python cannot remove audit hooks."""
    sys.addaudithook(_hook)

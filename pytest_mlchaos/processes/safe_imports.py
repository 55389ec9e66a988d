"""Import libraries in a process that others are forked from, if the forked ones cannot tell.

A forked process differs from one that imports a library itself if the import starts a thread, which
a fork does not copy, or if it reads a variable whose value each process has of its own, or sets
one. Each library is
tried in a forked process first, because an import cannot be undone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from .process_tree import die_with_parent, threads

__all__ = ["SafeImports"]

MAX_SECONDS = 120.0
"""The time limit for all imports. Libraries that are left then can be tried later."""
MAX_SECONDS_EACH = 30.0
"""The time limit for one library."""
_GOOD, _FAILED = b"g", b"f"


class SafeImports:
    """Imports libraries in this process, in which nothing else runs.

    Args:
        environment: The variables that the imports can read.
        own: The names of variables whose value each forked process has of its own.

    Attributes:
        refused: The libraries that each process must import itself.
        left: The libraries that were not tried in time.
        reads: The variables that imports have read, with the value or None.
    """

    def __init__(self, environment: Mapping[str, str], own: Collection[str]) -> None:
        self.refused: list[str] = []
        self.left: Sequence[str] = ()
        self.reads: dict[str, str | None] = {}
        self._environment = environment
        self._own = own
        self._until = time.monotonic() + MAX_SECONDS
        self._encoded: dict[Any, Any] = {}
        self._noted = _NotedReads()

    def run(self, names: Sequence[str]) -> None:
        """Import those of these libraries that are safe.

        Each should follow those that it imports, as in ``sys.modules``. So the first one that is
        not safe is the cause, and all that import it are left out at little cost.
        """
        with self._noted_environment():
            while names and time.monotonic() < self._until:
                left = self._import_good(names)
                cause = self._cause(left[0]) if left else ""
                if time.monotonic() >= self._until:
                    # A trial that was cut short blames no library.
                    self.left = left
                    return
                names = [name for name in left[1:] if not name.startswith(f"{cause}.")]
                self.refused += [name for name in left if name not in names]

    def _import_good(self, names: Sequence[str]) -> Sequence[str]:
        """Import libraries up to the first that is not safe. Return the rest."""
        tried = self._try(names)
        for name, told in zip(names, tried, strict=False):
            if told == _GOOD[0]:
                with contextlib.suppress(BaseException):  # it has been imported before
                    importlib.import_module(name)
        return names[len(tried) :]

    def _cause(self, name: str) -> str:
        """Return the outermost package of a library that is not safe, or the library."""
        packages = [name[:place] for place, letter in enumerate(name) if letter == "."]
        return next(
            (
                package
                for package in packages
                if package not in sys.modules and not self._try([package])
            ),
            name,
        )

    def _try(self, names: Sequence[str]) -> bytes:
        """Import libraries in a forked process. Return what became of each until it ended."""
        result, told = os.pipe()
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            try:
                die_with_parent(parent)
                self._import_and_tell(names, told)
            finally:
                os._exit(0)
        os.close(told)
        found = b""
        while select.select([result], [], [], self._patience())[0]:
            data = os.read(result, 1 << 12)
            if not data:
                break
            found += data
        os.close(result)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # the warm process ignores SIGCHLD
            os.waitpid(pid, 0)
        return found

    def _patience(self) -> float:
        return max(0.0, min(MAX_SECONDS_EACH, self._until - time.monotonic()))

    def _import_and_tell(self, names: Sequence[str], told: int) -> None:
        """Import one after the other, and end at the first one that is not safe."""
        for name in names:
            told_now = _GOOD
            try:
                importlib.import_module(name)
            except BaseException:  # noqa: BLE001  # any library may fail
                told_now = _FAILED
            is_own = not self.reads.keys().isdisjoint(self._own)
            # Not by os.environ, because that would note reads.
            if threads() > 1 or is_own or self._noted != self._encoded:
                return
            os.write(told, told_now)

    @contextlib.contextmanager
    def _noted_environment(self) -> Iterator[None]:
        """Set the environment, and note what is read of it."""
        environ: Any = os.environ
        before = environ._data
        self._encoded = {
            environ.encodekey(key): environ.encodevalue(value)
            for key, value in self._environment.items()
        }
        self._noted = _NotedReads(self._encoded)
        self._noted.decode, self._noted.reads = environ.decodevalue, self.reads
        environ._data = self._noted
        try:
            yield
        finally:
            environ._data = before


class _NotedReads(dict[Any, Any]):
    """The content of ``os.environ``. A copy of all does not count as a read of each."""

    decode: Any
    reads: dict[str, str | None]

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key)
        self.reads[self.decode(key)] = None if value is None else self.decode(value)
        return super().__getitem__(key)

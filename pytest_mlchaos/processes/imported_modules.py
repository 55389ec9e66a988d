"""What is loaded in this process: a fresh one need not import it again."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from types import FrameType, ModuleType

from ..engine.user_code import is_users
from .subject_pickling import SameFiles, is_found_by_name, same_files

__all__ = ["LateImports", "Modules"]

_OURS = __name__.partition(".")[0]
_MAX_SEARCHED_BYTES = 1 << 24
"""Bytes of a pickle that are searched for the names of the user's modules."""


class Modules:
    """What is loaded here, and so is imported there beforehand.

    ``libraries``: all but the user's, in the order of import; the warm process has them. ``generation``: rises when supervisors forked
    before lack something, or have it from another file. ``late``: libraries that an earlier process imported on its way; supervisors
    import them, too.
    ``unsafe``: modules that start threads, or end the process, and so are imported by each process. ``sources``: files of code of which
    processes have read lines, as tracebacks do.
    """

    def __init__(self) -> None:
        self.libraries: list[str] = []
        self.files = SameFiles({})
        self.generation = 0
        self.late: dict[str, None] = {}
        self.unsafe: set[str] = set()
        self.sources: dict[str, None] = {}
        self._seen: set[str] = set()
        self._users: dict[str, ModuleType | None] = {}

    def look(self) -> bool:
        """Look again; True when there is a new generation."""
        new = [name for name in sys.modules.copy() if name not in self._seen]
        other = [name for name, module in self._users.items() if sys.modules.get(name) is not module]
        if not new and not other:
            return False
        more = [name for name in new if _is_library(name, sys.modules.get(name))]
        self._seen.update(new)
        self.libraries += more
        self.files = same_files()
        users = (name for name, (file, _) in self.files.files.items() if file is not None and not _is_ours(name))
        self._users = {name: sys.modules.get(name) for name in users}
        self.unsafe.difference_update(other)
        self.generation += bool(other or more)
        return bool(other or more)

    def learn(self, names: Iterable[str] = (), sources: Iterable[str] = ()) -> None:
        """A process has imported these libraries, in this order, and read lines of these files; the next ones shall find them there."""
        self.late.update(dict.fromkeys(names))
        self.sources.update(dict.fromkeys(sources))

    def wanted(self, payload: bytes) -> set[str]:
        """The user's modules that a pickle names, and maybe some more."""
        text = payload[:_MAX_SEARCHED_BYTES]
        return {name for name in self._users if name not in self.unsafe and name.encode() in text}


class LateImports:
    """The libraries that this process imports from now on, if they are what they would be at any other time.

    A program that sets a variable of its environment may mean a library that reads it when it is imported, and then imports it for itself.
    """

    def __init__(self) -> None:
        self._known = len(sys.modules)
        self._as_started = True
        sys.addaudithook(self._heard)

    def imported(self) -> list[str]:
        """In the order of import; nothing where the program has changed its environment."""
        more = itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - self._known))  # to look at all is to copy their pages
        late = [name for name in more if _is_library(name, sys.modules.get(name))]
        return late[::-1] if self._as_started else []

    def _heard(self, event: str, _: object) -> None:
        if event in ("os.putenv", "os.unsetenv") and self._as_started:
            self._as_started = _by_an_import(sys._getframe(1))


def _by_an_import(frame: FrameType | None) -> bool:
    """Whether a library does this while it is imported (torch does, with a variable of its own), rather than for the program."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == _OURS


def _is_library(name: str, module: object) -> bool:
    """Return True for a module that is not the user's, and can be imported by its name. (``pytest.__main__`` would run.)"""
    spec = getattr(module, "__spec__", None)
    if getattr(spec, "name", None) != name or name.rpartition(".")[2] == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return _is_ours(name) or (isinstance(file, str) and not is_users(file) and is_found_by_name(name))

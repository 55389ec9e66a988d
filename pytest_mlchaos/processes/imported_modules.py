"""Track the modules of this process, so that fresh processes need not import them again."""

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
"""The number of bytes of a pickle that are searched for the names of the user's modules."""


class Modules:
    """The modules that this process has imported, to be imported in advance for fresh processes.

    Attributes:
        libraries: All modules except the user's, in the order of import. The warm process has them.
        generation: A number that increases if existing supervisors lack a module, or have it from a
            different file.
        late: Libraries that an earlier fresh process imported. Supervisors import them, too.
        unsafe: Modules that start threads or end the process, so that each process must import them
            itself.
        sources: Source files of which processes have read lines, for example for tracebacks.
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
        """Look for new modules, and return True if there is a new generation."""
        new = [name for name in sys.modules.copy() if name not in self._seen]
        other = [
            name for name, module in self._users.items() if sys.modules.get(name) is not module
        ]
        if not new and not other:
            return False
        more = [name for name in new if _is_library(name, sys.modules.get(name))]
        self._seen.update(new)
        self.libraries += more
        self.files = same_files()
        users = (
            name
            for name, (file, _) in self.files.files.items()
            if file is not None and not _is_ours(name)
        )
        self._users = {name: sys.modules.get(name) for name in users}
        self.unsafe.difference_update(other)
        self.generation += bool(other or more)
        return bool(other or more)

    def learn(self, names: Iterable[str] = (), sources: Iterable[str] = ()) -> None:
        """Record the libraries and the source files that a process has loaded, in order.

        Later processes start with them.
        """
        self.late.update(dict.fromkeys(names))
        self.sources.update(dict.fromkeys(sources))

    def wanted(self, payload: bytes) -> set[str]:
        """Return the user's modules that a pickle names, and maybe a few more."""
        text = payload[:_MAX_SEARCHED_BYTES]
        return {name for name in self._users if name not in self.unsafe and name.encode() in text}


class LateImports:
    """Track the libraries that this process imports from now on.

    Libraries that may depend on the program are left out.

    A program that sets a variable of its environment may do so for a library that reads it at
    import. So only the libraries that it imported before count.
    """

    def __init__(self) -> None:
        self._known = len(sys.modules)
        self._until: int | None = None
        sys.addaudithook(self._heard)

    def imported(self) -> list[str]:
        """Return the libraries in the order of import."""
        # A look at all modules would copy their memory pages.
        more = list(itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - self._known)))
        until = None if self._until is None else max(0, self._until - self._known)
        return [name for name in more[::-1][:until] if _is_library(name, sys.modules.get(name))]

    def _heard(self, event: str, _: object) -> None:
        if (
            event in ("os.putenv", "os.unsetenv")
            and self._until is None
            and not _by_an_import(sys._getframe(1))
        ):
            self._until = len(sys.modules)


def _by_an_import(frame: FrameType | None) -> bool:
    """Return True if a library changes the environment during its import, as torch does."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == _OURS


def _is_library(name: str, module: object) -> bool:
    """Return True for a module that is not the user's, and can be imported by name.

    A module such as ``pytest.__main__`` would run when it is imported.
    """
    spec = getattr(module, "__spec__", None)
    if getattr(spec, "name", None) != name or name.rpartition(".")[2] == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return _is_ours(name) or (
        isinstance(file, str) and not is_users(file) and is_found_by_name(name)
    )

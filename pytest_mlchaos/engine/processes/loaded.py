"""What is loaded in this process: a fresh one need not import it again."""

from __future__ import annotations

import sys
from types import ModuleType

from ..places import INSTALLED
from .shipping import SameFiles, same_files

__all__ = ["Modules"]

_OURS = __name__.partition(".")[0]
_SEARCHED = 1 << 24
"""Bytes of a pickle that are searched for the names of the user's modules."""


class Modules:
    """What is loaded here, and so is imported there beforehand.

    ``libraries``: what is installed, in the order of import; the warm process has them. ``generation``: rises when keepers forked before
    lack something, or have it from another file. ``unsafe``: the user's modules that start threads, and so are imported by each process.
    """

    def __init__(self) -> None:
        self.libraries: list[str] = []
        self.files = SameFiles({})
        self.generation = 0
        self.unsafe: set[str] = set()
        self._seen: set[str] = set()
        self._users: dict[str, ModuleType | None] = {}

    def look(self) -> bool:
        """Look again; True when there is a new generation."""
        new = [name for name in list(sys.modules) if name not in self._seen]
        other = [name for name, module in self._users.items() if sys.modules.get(name) is not module]
        if not new and not other:
            return False
        libraries = [name for name in new if _is_library(name, sys.modules.get(name))]
        self._seen.update(new)
        self.libraries += libraries
        self.files = same_files()
        users = (name for name, (file, _) in self.files.files.items() if file is not None and not _is_ours(name))
        self._users = {name: sys.modules.get(name) for name in users}
        self.unsafe.difference_update(other)
        self.generation += bool(other or libraries)
        return bool(other or libraries)

    def wanted(self, payload: bytes) -> set[str]:
        """The user's modules that a pickle names, and maybe some more."""
        text = payload[:_SEARCHED]
        return {name for name in self._users if name not in self.unsafe and name.encode() in text}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == _OURS


def _is_library(name: str, module: object) -> bool:
    """Whether a module is an installed one that can be imported by its name. (``pytest.__main__`` would run.)"""
    spec = getattr(module, "__spec__", None)
    if getattr(spec, "name", None) != name or name.rpartition(".")[2] == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return _is_ours(name) or (isinstance(file, str) and file.startswith(INSTALLED))

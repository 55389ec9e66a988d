"""Read pairs of programs: a sound and an unsound one that differ by the mend."""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from program import BadProgram, Requirement

__all__ = ["Twin", "chosen", "read_expected"]


@dataclasses.dataclass(frozen=True)
class Twin:
    """One program of a pair, and the verdict that its test must get."""

    folder: Path
    requires: tuple[Requirement, ...]
    area: str
    sound: bool
    twin: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def module(self) -> str:
        """The name under which a test imports the program."""
        return f"{type(self).__name__.lower()}_" + self.name.replace("-", "_")

    def needs(self, package: str) -> bool:
        """Return True if it requires a package with this name."""
        return any(requirement.name == package for requirement in self.requires)

    def test(self) -> str:
        """Return the source of its test."""
        raise NotImplementedError

    def problem_of(self, error: str, faults: Sequence[str]) -> str:
        """Return in words why a failure by this error and these faults is not the expected one."""
        raise NotImplementedError


OneTwin = TypeVar("OneTwin", bound=Twin)


def read_expected(folder: Path, needed: set[str], known: set[str]) -> dict[str, Any]:
    """Return the content of ``expected.toml``. Raise ``BadProgram`` for unknown or missing keys."""
    with (folder / "expected.toml").open("rb") as file:
        expected = tomllib.load(file)
    if unknown := expected.keys() - known:
        raise BadProgram(
            f"{folder.name}: expected.toml has {sorted(unknown)}; it may have {sorted(known)}"
        )
    if missing := needed - expected.keys():
        raise BadProgram(f"{folder.name}: expected.toml lacks {sorted(missing)}")
    expected["requires"] = tuple(sorted(map(Requirement.parse, expected["requires"])))
    return expected


def chosen(
    folder: Path, names: Sequence[str], read: Callable[[Path], OneTwin], kind: str
) -> list[OneTwin]:
    """Return the programs in a folder whose names match one of the patterns; all if none."""
    found = sorted(path.parent for path in folder.glob("*/expected.toml"))
    wrong = [name for name in names if not any(fnmatch.fnmatch(path.name, name) for path in found)]
    if wrong:
        raise BadProgram(
            f"No {kind} is called {', '.join(wrong)}. "
            f"There are: {', '.join(path.name for path in found)}"
        )
    return [
        read(path)
        for path in found
        if not names or any(fnmatch.fnmatch(path.name, name) for name in names)
    ]

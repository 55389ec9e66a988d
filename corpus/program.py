"""A program of the corpus: a folder with ``subject.py`` and ``expected.toml``."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["LOST_WORK", "VERDICTS", "BadProgram", "Program", "Requirement", "chosen", "read"]

VERDICTS = ("recovered", "diverged", "failed", "hung", "restarted")
LOST_WORK = "lost work"
"""What ``find`` says of a program that recovers, but not within ``max_lost_steps``."""
FINDS = {*VERDICTS[1:], LOST_WORK}
KEYS = {
    "requires",
    "entry",
    "args",
    "sound",
    "find",
    "cause",
    "env",
    "cross_device",
    "max_lost_steps",
}


class BadProgram(Exception):
    """An ``expected.toml`` that does not say what it must."""


@dataclasses.dataclass(frozen=True, order=True)
class Requirement:
    """One line for pip. ``version`` is what it is pinned to; "" where it is not pinned."""

    text: str
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """``torch==2.13.0``, ``numpy``, ``s3fs[boto]>=2024.2``."""
        found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*(.*?)\s*$", text)
        if found is None:
            raise BadProgram(f"Expected a requirement as pip reads it but got {text!r}")
        name, rest = re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]
        pinned = re.fullmatch(r"==\s*([A-Za-z0-9.+!-]+)", rest)
        return cls(text.strip(), name, pinned[1] if pinned else "")

    @property
    def age(self) -> tuple[int, ...]:
        """Orders the releases of one package."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version))


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to run, and the verdict that it must get."""

    folder: Path
    requires: tuple[Requirement, ...]
    entry: str
    sound: bool
    args: tuple[Any, ...] = ()
    find: tuple[str, ...] = ()
    cause: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cross_device: bool = False
    max_lost_steps: int | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def needs(self, package: str) -> bool:
        """Return True if it requires a package with this name."""
        return any(requirement.name == package for requirement in self.requires)


def read(folder: Path) -> Program:
    """The program in a folder. Raises ``BadProgram`` where its ``expected.toml`` cannot be judged by."""
    with (folder / "expected.toml").open("rb") as file:
        expected = tomllib.load(file)
    if unknown := expected.keys() - KEYS:
        raise BadProgram(
            f"{folder.name}: expected.toml has {sorted(unknown)}; it may have {sorted(KEYS)}"
        )
    if missing := {"requires", "entry", "sound"} - expected.keys():
        raise BadProgram(f"{folder.name}: expected.toml lacks {sorted(missing)}")
    program = Program(
        folder=folder.resolve(),
        requires=tuple(sorted(map(Requirement.parse, expected.pop("requires")))),
        env=tuple(sorted(expected.pop("env", {}).items())),
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in expected.items()
        },
    )
    _check(program)
    return program


def _check(program: Program) -> None:
    """Refuse what no run could meet."""
    if program.sound and (program.find or program.cause):
        raise BadProgram(
            f"{program.name}: a sound program has nothing to find, but find={program.find}, cause={program.cause}"
        )
    if not program.sound and not program.find:
        raise BadProgram(
            f"{program.name}: an unsound program needs find=[...], some of {sorted(FINDS)}"
        )
    if wrong := set(program.find) - FINDS:
        raise BadProgram(f"{program.name}: find has {sorted(wrong)}; it may have {sorted(FINDS)}")
    if LOST_WORK in program.find and (program.max_lost_steps is None or len(program.find) > 1):
        raise BadProgram(
            f'{program.name}: find=["{LOST_WORK}"] stands alone, and needs max_lost_steps'
        )


def chosen(folders: Iterable[Path], names: Sequence[str] = ()) -> list[Program]:
    """The programs below ``folders`` (or the folders themselves) whose names match one of the patterns ``names``; all if none."""
    found = [
        path
        for folder in folders
        for path in ([folder] if (folder / "subject.py").exists() else sorted(folder.iterdir()))
        if (path / "subject.py").exists()
    ]
    programs = [
        read(path)
        for path in found
        if not names or any(fnmatch.fnmatch(path.name, name) for name in names)
    ]
    if unmatched := [
        name
        for name in names
        if not any(fnmatch.fnmatch(program.name, name) for program in programs)
    ]:
        raise BadProgram(
            f"No program is called {', '.join(unmatched)}. There are: {', '.join(path.name for path in found)}"
        )
    return programs

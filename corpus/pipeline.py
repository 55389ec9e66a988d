"""A pipeline of the corpus: a folder with ``subject.py`` and ``expected.toml``, and its twin."""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Sequence
from pathlib import Path

from program import BadProgram, Requirement

__all__ = ["AREAS", "Pipeline", "chosen", "read"]

AREAS = ("damaged files", "tables in files", "storage", "network", "records", "time and streams")
DECORATORS = ("bad_data", "bad_storage")
NEEDED = {"requires", "area", "decorator", "sound", "twin"}
KEYS = NEEDED | {"entry", "keywords", "assertion", "again", "changed", "proxy", "find"}


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A pipeline to run under one composite fault, and the verdict that it must get."""

    folder: Path
    requires: tuple[Requirement, ...]
    area: str
    decorator: str
    sound: bool
    twin: str
    entry: str = "pipeline"
    keywords: tuple[tuple[str, str], ...] = ()
    """The arguments of the decorator. ``subject:`` in a value stands for the program's module."""
    assertion: str = "assert_same_output()"
    again: bool = False
    """Judge the next call, too."""
    proxy: bool = False
    """Put a proxy in front of the server at the program's ``URL``."""
    changed: str = ""
    """The function of the program that changes its input before the next call."""
    find: tuple[str, ...] = ()
    """The faults of which the reported schedule must have one."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def module(self) -> str:
        """The name under which a test imports the program."""
        return "pipeline_" + self.name.replace("-", "_")

    def needs(self, package: str) -> bool:
        """Return True if it requires a package with this name."""
        return any(requirement.name == package for requirement in self.requires)


def read(folder: Path) -> Pipeline:
    """Return the pipeline in a folder. Raise ``BadProgram`` if it cannot be judged."""
    with (folder / "expected.toml").open("rb") as file:
        expected = tomllib.load(file)
    if unknown := expected.keys() - KEYS:
        raise BadProgram(
            f"{folder.name}: expected.toml has {sorted(unknown)}; it may have {sorted(KEYS)}"
        )
    if missing := NEEDED - expected.keys():
        raise BadProgram(f"{folder.name}: expected.toml lacks {sorted(missing)}")
    pipeline = Pipeline(
        folder=folder.resolve(),
        requires=tuple(sorted(map(Requirement.parse, expected.pop("requires")))),
        keywords=tuple(sorted(expected.pop("keywords", {}).items())),
        find=tuple(expected.pop("find", ())),
        **expected,
    )
    _check(pipeline)
    return pipeline


def _check(pipeline: Pipeline) -> None:
    for key, known in (("area", AREAS), ("decorator", DECORATORS)):
        if getattr(pipeline, key) not in known:
            raise BadProgram(
                f"{pipeline.name}: {key} must be one of {', '.join(known)}, "
                f"got {getattr(pipeline, key)!r}"
            )
    if pipeline.sound == bool(pipeline.find):
        raise BadProgram(
            f"{pipeline.name}: an unsound pipeline needs find=[...], a sound one must not have it"
        )


def chosen(folder: Path, names: Sequence[str] = ()) -> list[Pipeline]:
    """Return the pipelines in a folder whose names match one of the patterns; all if none."""
    found = sorted(path.parent for path in folder.glob("*/expected.toml"))
    wrong = [name for name in names if not any(fnmatch.fnmatch(path.name, name) for path in found)]
    if wrong:
        raise BadProgram(
            f"No pipeline is called {', '.join(wrong)}. "
            f"There are: {', '.join(path.name for path in found)}"
        )
    return [
        read(path)
        for path in found
        if not names or any(fnmatch.fnmatch(path.name, name) for name in names)
    ]

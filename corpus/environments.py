"""The environments that programs need: as few as their pins allow, each built once and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from program import Program, Requirement

__all__ = ["ROOT", "Environment", "Interpreter", "NotBuilt", "build", "group"]

ROOT = Path(__file__).resolve().parent.parent
OF_THE_PACKAGE = "[process,storage]"
"""The extras that a user who explores crashes has."""

WITHOUT_ITS_DEPENDENCIES = {"xgboost": ("numpy", "scipy")}
"""Packages that would fetch hundreds of megabytes of CUDA libraries, and what they need on a CPU."""

PROBE = """
import importlib.metadata as metadata, json, re
versions = {re.sub("[-_.]+", "-", found.metadata["Name"]).lower(): found.version for found in metadata.distributions()}
plugin = any(entry.name == "mlchaos" for entry in metadata.entry_points(group="pytest11"))
print(json.dumps([versions, plugin]))
"""


class NotBuilt(Exception):
    """Pip could not install a set of requirements; the text is the end of what it said."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """Programs whose requirements agree. ``current``: no program asks for a newer release of any of their pins."""

    name: str
    programs: tuple[Program, ...]
    current: bool

    @property
    def requires(self) -> tuple[str, ...]:
        """The lines for pip: a pin replaces the bare name."""
        lines: dict[str, Requirement] = {}
        for requirement in sorted(
            {each for program in self.programs for each in program.requires},
            key=lambda each: each.version,
        ):
            lines[requirement.name] = requirement
        return tuple(sorted(requirement.text for requirement in lines.values()))


def group(programs: Iterable[Program]) -> list[Environment]:
    """Return as few environments as the pins allow. Programs without torch get one without it."""
    left = list(programs)
    environments: list[Environment] = []
    generation = 0
    while left:
        pins = _newest(left)
        fitting = [
            program
            for program in left
            if all(
                pins[each.name] in ("", each.version) for each in program.requires if each.version
            )
        ]
        fitting = fitting or [left[0]]
        name = f"older-{generation}" if generation else "current"
        for suffix, torch in (("", True), ("-no-torch", False)):
            if members := tuple(program for program in fitting if program.needs("torch") is torch):
                environments.append(Environment(name + suffix, members, current=not generation))
        left = [program for program in left if program not in fitting]
        generation += 1
    return environments


def _newest(programs: Sequence[Program]) -> dict[str, str]:
    """The newest version that any program pins, of each package that one pins."""
    newest: dict[str, Requirement] = {}
    for requirement in (each for program in programs for each in program.requires if each.version):
        if requirement.name not in newest or requirement.age > newest[requirement.name].age:
            newest[requirement.name] = requirement
    return {name: requirement.version for name, requirement in newest.items()}


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python, the versions of what is installed there, and whether the plugin is among it."""

    python: Path
    versions: dict[str, str]
    has_plugin: bool

    @classmethod
    def at(cls, python: Path) -> Interpreter:
        """Ask it."""
        said = subprocess.run(
            [python, "-c", PROBE], check=True, capture_output=True, text=True
        ).stdout
        return cls(python, *json.loads(said))

    def has(self, requirement: Requirement) -> bool:
        """Return True if it meets a requirement. A local version (``+cpu``) does not matter."""
        installed = self.versions.get(requirement.name)
        return installed is not None and requirement.version in ("", installed.partition("+")[0])

    def suits(self, program: Program) -> bool:
        """Return True if it has all that a program requires."""
        return all(map(self.has, program.requires))


def build(environment: Environment, folder: Path) -> Interpreter:
    """Build it below ``folder``, or take the one of an earlier time, with this package as it is now. Raises ``NotBuilt``."""
    digest = hashlib.sha256("\n".join((sys.version, *environment.requires)).encode()).hexdigest()[
        :8
    ]
    place = folder / f"{environment.name}-{digest}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        _install_all(python, environment)
        (place / "complete").touch()
    _pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    return Interpreter.at(python)


def _install_all(python: Path, environment: Environment) -> None:
    """Torch first, and named on each line, so that nothing picks another build."""
    torch = [line for line in environment.requires if Requirement.parse(line).name == "torch"]
    alone = [
        line
        for line in environment.requires
        if Requirement.parse(line).name in WITHOUT_ITS_DEPENDENCIES
    ]
    rest = [line for line in environment.requires if line not in (*torch, *alone)]
    rest += [
        needed
        for line in alone
        for needed in WITHOUT_ITS_DEPENDENCIES[Requirement.parse(line).name]
    ]
    if torch:
        _pip(python, *torch)
    if alone:
        _pip(python, "--no-deps", *alone)
    _pip(python, f"{ROOT}{OF_THE_PACKAGE}", *rest, *torch)
    _mend_torchvision(python)


def _pip(python: Path, *arguments: str) -> None:
    """Install, or say why not."""
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *arguments],
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NotBuilt("\n".join(done.stderr.splitlines()[-8:]))


def _mend_torchvision(python: Path) -> None:
    """Let torchvision be imported beside a CPU build of torch.

    The wheel on the package index has CUDA kernels that such a torch cannot load. torchvision goes on without them,
    but for two decorators that name an operator which then does not exist. Nothing here calls that operator.
    """
    for file in python.parent.parent.glob(
        "lib/python*/site-packages/torchvision/_meta_registrations.py"
    ):
        file.write_text(
            file.read_text().replace(
                "\n@torch.library.register_fake(", "\n# @torch.library.register_fake("
            )
        )

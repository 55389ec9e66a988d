"""A served program of the corpus: a folder with ``subject.py`` and ``expected.toml``, and its twin."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path

import twins
from program import BadProgram
from twins import Twin

__all__ = ["AREAS", "Service", "chosen", "read"]

AREAS = ("dependencies", "batches", "caches", "clients", "models", "overload")
NEEDED = {"requires", "area", "faults", "test", "sound", "twin"}
KEYS = NEEDED | {"fails", "slow"}

TEST = """
import pytest
import pytest_mlchaos
from pytest_mlchaos import chaos
import {module} as subject

{decorators}
def test_service(mlchaos):
{body}
"""


@dataclasses.dataclass(frozen=True)
class Service(Twin):
    """A served program, the test that judges it, and the verdict that it must get."""

    faults: tuple[str, ...]
    """The decorators, without ``@chaos.``. ``subject:`` stands for the program's module."""
    body: str
    """The body of the test."""
    fails: tuple[str, ...] = ()
    """The errors of which an unsound program must raise one."""
    slow: bool = False
    """The pair takes many seconds, for example because it starts real servers."""

    def test(self) -> str:
        """Return the source of its test."""
        body = textwrap.indent(self.body.strip("\n"), "    ")
        text = TEST.format(
            module=self.module,
            decorators="\n".join(f"@chaos.{fault}" for fault in self.faults),
            body=body,
        )
        return text.replace("subject:", f"{self.module}:")

    def problem_of(self, error: str, faults: Sequence[str]) -> str:
        """Return in words why the error or the reported schedule is not the expected one."""
        if error not in self.fails:
            return f"it failed by {error}, expected {' or '.join(self.fails)}"
        if not faults:
            return "its test fails without any fault"
        declared = {fault.partition("(")[0] for fault in self.faults}
        if not declared & set(faults) and "bad_day" not in declared:
            return f"the schedule has {', '.join(faults)}, which its test does not declare"
        return ""


def read(folder: Path) -> Service:
    """Return the program in a folder. Raise ``BadProgram`` if it cannot be judged."""
    expected = twins.read_expected(folder, NEEDED, KEYS)
    service = Service(
        folder=folder.resolve(),
        faults=tuple(expected.pop("faults")),
        body=expected.pop("test"),
        fails=tuple(expected.pop("fails", ())),
        **expected,
    )
    if service.area not in AREAS:
        raise BadProgram(
            f"{service.name}: area must be one of {', '.join(AREAS)}, got {service.area!r}"
        )
    if service.sound == bool(service.fails):
        raise BadProgram(
            f"{service.name}: an unsound program needs fails=[...], a sound one must not have it"
        )
    return service


def chosen(folder: Path, names: Sequence[str] = ()) -> list[Service]:
    """Return the programs in a folder whose names match one of the patterns; all if none."""
    return twins.chosen(folder, names, read, "service")

"""List what a session or a journal can be written as. A new output is a module and a row here."""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias

from ..errors import BadArgument

__all__ = ["OUTPUTS", "Output", "check_writable"]

Target: TypeAlias = Literal["a file", "a directory", "a text"]


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """One output: a reader of the journal.

    Its module has ``write(session, target)``, with a ``SessionLog`` and the target as a text. It
    may have ``check(target)``, which raises ``BadArgument`` at the start of the session, for
    example if a library is missing.

    Attributes:
        name: The option's name, after ``--mlchaos-``.
        metavar: The name of its value in the help.
        text: The help.
        module: Its module in this package.
        target: What its value names.
        implied: The value of the option without one, or None if it needs a value.
    """

    name: str
    metavar: str
    text: str
    module: str
    target: Target = "a file"
    implied: str | None = None

    @property
    def option(self) -> str:
        """Return the option of pytest."""
        return f"--mlchaos-{self.name}"

    def load(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(f".{self.module}", __package__)

    def check(self, option: str, target: str) -> None:
        """Raise ``BadArgument`` if the output cannot be written.

        Args:
            option: The option as the user wrote it.
            target: Its value.
        """
        if self.target != "a text":
            check_writable(option, target, self.target)
        check = getattr(self.load(), "check", None)
        if check is not None:
            check(target)


OUTPUTS: tuple[Output, ...] = (
    Output(
        "report",
        "FILE.html",
        "write a report to FILE.html: one page with timelines and charts, which needs no network",
        "html",
    ),
    Output(
        "bundle",
        "DIR",
        "write a folder for each failing test to DIR, with an issue and a script that repeats it",
        "bundle",
        "a directory",
    ),
)


def check_writable(option: str, given: str, what: str) -> None:
    """Raise ``BadArgument`` unless ``given`` names a file or directory that can be written."""
    path = Path(given).absolute()
    if not given.strip() or (path.exists() and path.is_dir() != (what == "a directory")):
        raise BadArgument(
            f"{option} must be {what}, got {repr(given) if given.strip() else 'an empty name'}"
        )
    try:
        folder = path if what == "a directory" else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with open(path, "ab") if what == "a file" else tempfile.TemporaryFile(dir=path):
            pass
        if what == "a file" and not existed:
            path.unlink()
    except (OSError, ValueError) as error:
        raise BadArgument(f"{option}: {given!r} cannot be written: {error}") from None

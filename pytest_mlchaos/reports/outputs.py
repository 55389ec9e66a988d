"""List what a session or a journal can be written as. A new output is a module and a row here."""

from __future__ import annotations

import dataclasses
import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import BadArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .journal_reader import SessionLog

__all__ = ["OUTPUTS", "Output", "check_writable"]

Target: TypeAlias = Literal["a file", "a directory", "a text", "nothing"]


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """One output: a reader of the journal.

    Its module has ``write(session, target)``, with a ``SessionLog`` and the target as a text. It
    may have ``check(target)``, which raises ``BadArgument`` or ``MissingExtra`` at the start of the
    session. It may have ``lines(session, target)``, which yields lines for the terminal.

    Attributes:
        name: The option's name, after ``--mlchaos-``.
        metavar: The name of its value in the help.
        text: The help.
        module: Its module in this package.
        target: What its value names. An option for ``nothing`` takes no value.
        implied: The value of the option without one, or None if it needs a value.
        variable: An environment variable that turns it on if it is ``true``. The ini option of the
            output turns that off.
    """

    name: str
    metavar: str
    text: str
    module: str
    target: Target = "a file"
    implied: str | None = None
    variable: str = ""

    @property
    def option(self) -> str:
        """Return the option of pytest."""
        return f"--mlchaos-{self.name}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the option for argparse."""
        if self.target == "nothing":
            return {"help": self.text, "action": "store_const", "const": self.implied or ""}
        optional = {} if self.implied is None else {"nargs": "?", "const": self.implied}
        return {"help": self.text, "metavar": self.metavar, **optional}

    @property
    def is_on_by_itself(self) -> bool:
        """Return True if the environment turns it on."""
        if not self.variable:
            return False
        # The implied value names a variable, too: a runner that is not GitHub's may set only that.
        return os.environ.get(self.variable) == "true" or bool(os.environ.get(self.implied or ""))

    def load(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(f".{self.module}", __package__)

    def lines(self, session: SessionLog, target: str) -> Iterable[str]:
        """Return the lines for the terminal, after the output was written to its target."""
        lines = getattr(self.load(), "lines", None)
        return () if lines is None else lines(session, target)

    def check(self, option: str, target: str) -> None:
        """Raise ``BadArgument`` if the output cannot be written.

        Args:
            option: The option as the user wrote it.
            target: Its value.
        """
        if self.target in ("a file", "a directory"):
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
    Output(
        "incidents",
        "DIR",
        "write a report in Markdown on each failing test to DIR: timeline, blast radius, how to repeat",
        "incidents",
        "a directory",
    ),
    Output(
        "evidence",
        "DIR",
        "write a folder for an auditor to DIR: results by clause, an in-toto statement, and hashes",
        "evidence",
        "a directory",
    ),
    Output(
        "sarif", "FILE", "write the failures to FILE, as SARIF for code review", "exports.sarif"
    ),
    Output(
        "github",
        "FILE",
        "append a Markdown summary to FILE, and print annotations. GitHub Actions needs no option",
        "exports.github",
        implied="GITHUB_STEP_SUMMARY",
        target="a text",
        variable="GITHUB_ACTIONS",
    ),
    Output(
        "otel",
        "",
        "send a trace to OpenTelemetry, as the OTEL_ variables say",
        "exports.otel",
        target="nothing",
    ),
    Output(
        "prometheus",
        "FILE.prom",
        "write metrics to FILE.prom, or to the URL of a push gateway",
        "exports.prometheus",
        target="a text",
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

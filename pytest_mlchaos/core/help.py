"""The line of a report that leads to the documentation of its error."""

from __future__ import annotations

from .. import errors

__all__ = ["DOCS", "add_help", "help_line"]

DOCS = "https://pytest-mlchaos.readthedocs.io/en/latest"
"""The documentation of the newest version."""


def help_line(kind: type[errors.MlchaosError]) -> str:
    """Return the line for errors of this class: the address of a section that is named like the class."""
    public = next(cls for cls in kind.__mro__ if cls.__module__ == errors.__name__)  # a subclass elsewhere has no section
    return f"  help: {DOCS}/failures/#{public.__name__.lower()}"


def add_help(error: errors.MlchaosError) -> None:
    """Add the line to an error that is about to be reported. An error that is raised again has it already."""
    line = help_line(type(error))
    if line not in getattr(error, "__notes__", ()):
        error.add_note(line)

"""Add a line to a report that links to the documentation of its error."""

from __future__ import annotations

from .. import errors

__all__ = ["DOCS", "add_help", "help_line"]

DOCS = "https://pytest-mlchaos.readthedocs.io/en/latest"
"""The address of the newest version's documentation."""


def help_line(kind: type[errors.MlchaosError]) -> str:
    """Return the line for errors of this class: the address of the section with the name of the class."""
    # A subclass that is defined outside of errors.py has no section of its own.
    public = next(cls for cls in kind.__mro__ if cls.__module__ == errors.__name__)
    return f"  help: {DOCS}/failures/#{public.__name__.lower()}"


def add_help(error: errors.MlchaosError) -> None:
    """Add the help line to an error before it is reported. Skip it if an earlier report has added it."""
    line = help_line(type(error))
    if line not in getattr(error, "__notes__", ()):
        error.add_note(line)

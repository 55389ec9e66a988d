"""The line of a report that leads to the documentation of its error."""

from __future__ import annotations

from .. import errors

__all__ = ["DOCS", "add_help", "help_line"]

DOCS = "https://pytest-mlchaos.readthedocs.io/en/latest"
"""The documentation of the newest version."""
_OWN_ERROR = "mlchaos: the subject's own error"
"""The beginning of the note on an error that the subject raised after a restart."""


def help_line(error: BaseException) -> str:
    """Return the line with the address of the section on an error; empty if no section is about
    it."""
    if isinstance(error, errors.MlchaosError):
        # A subclass elsewhere has no section.
        public = next(cls for cls in type(error).__mro__ if cls.__module__ == errors.__name__)
        return f"  help: {DOCS}/failures/#{public.__name__.lower()}"
    if any(str(note).startswith(_OWN_ERROR) for note in getattr(error, "__notes__", ())):
        return f"  help: {DOCS}/failures/#an-error-of-your-own-code"
    return ""


def add_help(error: BaseException) -> None:
    """Add the line to an error that is about to be reported.

    An error that is raised again has it already.
    """
    line = help_line(error)
    if line and line not in getattr(error, "__notes__", ()):
        error.add_note(line)

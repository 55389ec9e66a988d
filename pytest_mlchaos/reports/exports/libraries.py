"""Share between the readers for libraries: the session that a caller means, a missing library."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from ...errors import MissingExtra
from ..journal_reader import SessionLog, read_journals, timings_path

__all__ = ["Journal", "files_of", "require", "session_from"]

Journal: TypeAlias = "SessionLog | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"
"""A session, or the path of its journal, or the paths of several."""


def session_from(journal: Journal) -> SessionLog:
    """Return the session that a caller means."""
    return journal if isinstance(journal, SessionLog) else read_journals(_paths(journal))


def files_of(journal: Journal, artifacts: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the files to keep: the journals with their timings, and what the caller adds."""
    journals = _paths(journal)
    beside = [timings_path(path) for path in journals]
    return [*journals, *(path for path in beside if path.is_file()), *map(Path, artifacts)]


def _paths(journal: Journal) -> list[Path]:
    if isinstance(journal, SessionLog):
        return []
    if isinstance(journal, (str, os.PathLike)):
        return [Path(journal)]
    return [Path(one) for one in journal]


def require(module: str, what: str, package: str, extra: str) -> None:
    """Raise ``MissingExtra`` if a module is not installed.

    Args:
        module: The module to look for. It is not imported.
        what: What needs it, for example an option.
        package: The name of its distribution.
        extra: The extra that installs it.
    """
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its parent is missing
        found = None
    if found is None:
        raise MissingExtra(what, package, extra)

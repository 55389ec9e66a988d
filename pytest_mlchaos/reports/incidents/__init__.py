"""Write ``--mlchaos-incidents=DIR``: a report in Markdown on each failing test.

A bundle has the same report as its ``ISSUE.md``, with what else is needed to repeat the failure.
"""

from __future__ import annotations

from pathlib import Path

from ...core.slugs import slug_of
from ..journal_reader import SessionLog
from .text import incident_text

__all__ = ["incident_text", "write"]


def write(session: SessionLog, target: str) -> None:
    """Write a file for each failing test, and remove the files of tests that pass now."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for test in session.tests.values():
        path = folder / f"{slug_of(test.nodeid)}.md"
        if test.outcome == "failed":
            path.write_text(incident_text(test), encoding="utf-8")
        else:
            path.unlink(missing_ok=True)

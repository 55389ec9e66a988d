"""Find the paths of files in the repository: pytest's root directory may be a part of it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..journal_reader import SessionLog
from .findings import Finding, Spot, spot_of_test

__all__ = ["Repository"]


@dataclasses.dataclass(frozen=True, slots=True)
class Repository:
    """The repository that holds the tests.

    Attributes:
        prefix: The root directory of pytest, relative to the repository. Empty if it is the
            repository itself, or if the files are not on this machine.
        root: The root directory of pytest, or None if the files are not on this machine.
    """

    prefix: str = ""
    root: Path | None = None

    @classmethod
    def of(cls, session: SessionLog, folder: Path | None = None) -> Repository:
        """Return the repository around ``folder``, by default the current directory."""
        start = Path.cwd() if folder is None else folder
        above = [start, *start.parents]
        workspace = os.environ.get("GITHUB_WORKSPACE")
        top = Path(workspace) if workspace else None
        if top is None or top not in above:
            top = next((one for one in above if (one / ".git").exists()), None)
        file = next((spot_of_test(test).file for test in session.tests.values()), None)
        if top is None or file is None:
            return cls()
        inside = above[: above.index(top) + 1]
        root = next((one for one in inside if (one / file).is_file()), None)
        found = "." if root is None else root.relative_to(top).as_posix()
        return cls("" if found == "." else f"{found}/", root)

    def spot(self, finding: Finding) -> Spot:
        """Return the line to show: that of the finding, or of the test if it is not in the project.

        The path of a file outside of the root directory is its name alone.
        """
        is_elsewhere = self.root is not None and not (self.root / finding.spot.file).is_file()
        return spot_of_test(finding.test) if is_elsewhere else finding.spot

    def path(self, spot: Spot) -> str:
        """Return the path of a line's file in the repository."""
        return f"{self.prefix}{spot.file}"

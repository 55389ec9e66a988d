"""Model the files of a history, and changes whose contents are still to be read."""

from __future__ import annotations

import dataclasses

from ..model import File, Folder, Kind, Link
from .content_store import GrowingFile

__all__ = ["SPECIAL", "Draft", "Entry", "Inode"]

SPECIAL = Link("")
"""Stands for a pipe, a socket or the like, or for a file of a different rank. The trees of changes
leave these out."""


class Inode:
    """One file or symbolic link, with all its names.

    ``versions`` has its contents in order, with None for one that could not be read in time.
    """

    __slots__ = ("fresh", "growing", "key", "paths", "supposed", "synced", "versions", "writers")

    def __init__(self, path: str, version: File | Link | None) -> None:
        self.paths = {path}
        self.versions: list[File | Link | None] = [version]
        self.key: tuple[int, int] | None = None
        self.growing: GrowingFile | None = None
        # (version, change) of contents that were not read as a whole.
        self.supposed: list[tuple[int, int]] = []
        # Its version, if it was really created and is not a link to an existing file.
        self.fresh = -1
        self.synced = -1
        self.writers = 0  # a lower bound for how many times it is open

    @property
    def last(self) -> int:
        """Return the number of its last version."""
        return len(self.versions) - 1

    def lose(self) -> None:
        """Mark its last version as unknown, because it was not read in time."""
        self.versions[-1] = None


Entry = Folder | Link | tuple[Inode, int] | None
"""None stands for an entry of unknown kind, or one that appears and disappears. The only link is
``SPECIAL``."""


@dataclasses.dataclass(slots=True)
class Draft:
    """A change whose contents are still to be read."""

    kind: Kind
    path: str
    step: int
    before: dict[str, Entry]
    after: dict[str, Entry]
    source: str | None
    unsynced: frozenset[str]
    loose: frozenset[str]
    names: frozenset[str] | None

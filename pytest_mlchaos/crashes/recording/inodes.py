"""Files as a history knows them, and changes that are still to be filled in."""

from __future__ import annotations

import dataclasses

from ..model import File, Folder, Kind, Link
from .content_store import GrowingFile

__all__ = ["SPECIAL", "Draft", "Entry", "Inode"]

SPECIAL = Link("")
"""Stands for what is neither file, directory nor symbolic link: a pipe, a socket. No state holds it."""


class Inode:
    """One file or symbolic link, whatever its names are: what it held, version by version; None where that could not be read in time."""

    __slots__ = ("fresh", "growing", "key", "paths", "supposed", "synced", "versions", "writers")

    def __init__(self, path: str, version: File | Link | None) -> None:
        self.paths = {path}
        self.versions: list[File | Link | None] = [version]
        self.key: tuple[int, int] | None = None
        self.growing: GrowingFile | None = None
        self.supposed: list[tuple[int, int]] = []  # (version, change): known but for a change that left no trace
        self.fresh = -1  # the version that it had if it was really made anew, and is no link to another
        self.synced = -1
        self.writers = 0  # how many have it open, at least

    @property
    def last(self) -> int:
        """The number of its last version."""
        return len(self.versions) - 1

    def lose(self) -> None:
        """Its last version went by without being read."""
        self.versions[-1] = None


Entry = Folder | tuple[Inode, int] | None
"""None: something is there, or comes and goes, and nobody knows what."""


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

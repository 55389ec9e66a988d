"""Define a storage operation and a file at rest, as the faults of storage see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = ["OPERATIONS", "Operation", "StoredFile"]

OPERATIONS = ("open", "read", "write", "rename", "remove")
"""The operations on a file.

Each is a site, ``storage.<operation>``, and ``storage`` covers all of them.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """The payload of a visit of ``storage`` and ``storage.*``: one operation on a file.

    A fault returns a copy with ``keep``, ``rate`` and ``took_effect``.

    Attributes:
        op: One of ``OPERATIONS``.
        path: The path relative to the test's own directory, or as the filesystem writes it
            (``"bucket/key"``). For a rename or a copy, this is the destination.
        source: The source of a rename or a copy.
        keep: The point where a read file ends, as a share (a float) or a number of bytes (an int).
        rate: The bytes per second, once the operation's size is known.
        took_effect: A function that is called if bytes are missing at the end, or have passed at
            the rate.
    """

    op: str
    path: str
    source: str | None = None
    keep: float | int | None = None
    rate: float | None = None
    took_effect: Callable[[], None] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def ends_at(self, size: int, position: int = 0) -> int:
        """Return the offset at which a file of ``size`` bytes ends for a reader at ``position``."""
        if self.keep is None:
            return size
        end = min(size, int(size * self.keep) if isinstance(self.keep, float) else self.keep)
        if max(end, position) < size and self.took_effect is not None:
            self.took_effect()
        return end

    def seconds_for(self, size: int | None) -> float:
        """Return the seconds that ``size`` bytes take at the rate."""
        if not size or not self.rate:
            return 0.0
        if self.took_effect is not None:
            self.took_effect()
        return size / self.rate


@dataclasses.dataclass(frozen=True, slots=True)
class StoredFile:
    """The payload of a visit of ``storage.file``: a file at rest, before the subject reads it.

    A fault returns a copy with ``replacement``, ``absent`` or ``beside``.

    Attributes:
        path: The path relative to the test's own directory.
        location: The absolute path. Empty if the content is given.
        given: The content, if it is not in a file.
        others: The other files that the same pattern matches.
        replacement: The content that readers find instead.
        absent: True if readers find no file.
        delay: The seconds after which an absent file appears.
        beside: The name of a copy beside the file.
        took_effect: A function that is called once a reader opens the file.
    """

    path: str
    location: str = dataclasses.field(default="", compare=False, repr=False)
    given: bytes = dataclasses.field(default=b"", repr=False)
    others: tuple[StoredFile, ...] = dataclasses.field(default=(), compare=False, repr=False)
    replacement: bytes | None = dataclasses.field(default=None, repr=False)
    absent: bool = False
    delay: float | None = None
    beside: str | None = None
    took_effect: Callable[[], None] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def read(self) -> bytes:
        """Return the content, with the changes of earlier faults."""
        if self.replacement is not None:
            return self.replacement
        if not self.location:
            return self.given
        with open(self.location, "rb") as file:
            return file.read()

    @property
    def is_changed(self) -> bool:
        """Return True if a fault has changed the file."""
        return self.replacement is not None or self.absent or self.beside is not None

"""One storage operation, as the faults of storage see it."""

from __future__ import annotations

import dataclasses

__all__ = ["OPERATIONS", "Operation"]

OPERATIONS = ("open", "read", "write", "rename", "remove")
"""What can be done to a file; each is a site, ``storage.<operation>``, and ``storage`` is any of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """The payload of a visit of ``storage`` and ``storage.*``: what is about to be done, and what a fault asks of it.

    ``op`` is one of :data:`OPERATIONS`. ``path`` is relative to the test's own directory (local files), or as the filesystem writes it
    (``"bucket/key"``); of a rename or a copy it is the destination, and ``source`` is where it comes from. A fault returns a copy with

    - ``keep``: of a read, the share (a float) or the number of bytes (an int) behind which the file ends;
    - ``rate``: the bytes that pass in a second, once the operation's size is known.
    """

    op: str
    path: str
    source: str | None = None
    keep: float | int | None = None
    rate: float | None = None

    def ends_at(self, size: int) -> int:
        """The offset at which a file of so many bytes ends for its reader."""
        if self.keep is None:
            return size
        return min(size, int(size * self.keep) if isinstance(self.keep, float) else self.keep)

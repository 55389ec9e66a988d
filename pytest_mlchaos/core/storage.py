"""One storage operation, as the faults of storage see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = ["OPERATIONS", "Operation"]

OPERATIONS = ("open", "read", "write", "rename", "remove")
"""What can be done to a file; each is a site, ``storage.<operation>``, and ``storage`` is any of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """The payload of a visit of ``storage`` and ``storage.*``: what is about to be done, and what a fault asks of it.

    ``op`` is one of ``OPERATIONS``. ``path`` is relative to the test's own directory (local files), or as the filesystem writes it
    (``"bucket/key"``); of a rename or a copy it is the destination, and ``source`` is where it comes from. A fault returns a copy with

    - ``keep``: of a read, the share (a float) or the number of bytes (an int) behind which the file ends;
    - ``rate``: the bytes that pass in a second, once the operation's size is known;
    - ``took_effect``: called when something is missing at the end, or bytes have passed at the rate.
    """

    op: str
    path: str
    source: str | None = None
    keep: float | int | None = None
    rate: float | None = None
    took_effect: Callable[[], None] | None = dataclasses.field(default=None, compare=False, repr=False)

    def ends_at(self, size: int, position: int = 0) -> int:
        """The offset at which a file of so many bytes ends for its reader, who is at ``position`` and loses what is behind the end."""
        if self.keep is None:
            return size
        end = min(size, int(size * self.keep) if isinstance(self.keep, float) else self.keep)
        if max(end, position) < size and self.took_effect is not None:
            self.took_effect()
        return end

    def seconds_for(self, size: int | None) -> float:
        """How long so many bytes take at the rate."""
        if not size or not self.rate:
            return 0.0
        if self.took_effect is not None:
            self.took_effect()
        return size / self.rate

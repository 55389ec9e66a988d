"""Define faults of reads: a file that ends early."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.storage import Operation
from ...core.validation import format_value
from ...errors import BadArgument
from ..files.layouts import general_spots, spots
from .common import StorageFault, note_operation, strike_later

__all__ = ["TruncatedRead"]
LAYER = "Storage"
SPOTS = 8
"""A search tries this many places at which a read ends."""


@register
class TruncatedRead(StorageFault):
    """A read returns the beginning of the file, and then its end.

    If the content is read as a whole (``cat``, ``load_file``, ``torch.load``), the rest is missing.
    A file that is being read ends there, for as long as it is open. The file itself is complete: a
    second read returns all of it. ``at`` counts the reads that match.

    Args:
        keep: The point where the file ends: a share (0.5), or a number of bytes (100). Without it,
            a search ends the file between two parts of its format, as ``kind="cut"`` of
            ``damaged_file``, and pinned visits end it in the middle.
        spot: Without ``keep``, the number of such a place, the most telling first.
        path: A pattern of files, as for ``slow_storage``.

    Imitates: a connection that is closed early without an error, a reader that is ahead of its
    writer, a cache that holds half a file.

    Fidelity: sizes (``stat``, ``info``, a seek to the end) are those of the whole file. Memory
    maps, and libraries that read in C with a file descriptor of their own, see the whole file.

    Example: @chaos.truncated_read(path="*.parquet", keep=0.5, at=0)
    """

    site = "storage.read"
    searchable = ("spot",)
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 40}
    keep: Any = None
    path: str | None = None
    spot: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        keep = self.keep
        if self.spot is not None and not is_drawn(self.spot) and self.spot < 0:
            raise BadArgument(
                f"truncated_read: spot must be a number of 0 or more, got {format_value(self.spot)}"
            )
        if keep is None or is_drawn(keep):
            return
        share = isinstance(keep, float) and 0 <= keep < 1
        if isinstance(keep, bool) or not (share or (isinstance(keep, int) and keep >= 0)):
            raise BadArgument(
                f"truncated_read: keep must be a share below 1 (0.5) or a number of bytes (100), "
                f"got {format_value(keep)}"
            )

    @property
    def is_pinned(self) -> bool:
        """Return True if nothing is left to be drawn. Pinned visits need no spot."""
        return dataclasses.replace(self, spot=self.spot or 0)._is_pinned

    @property
    def _is_pinned(self) -> bool:
        return super().is_pinned

    def possible(self, visit: Visit) -> bool:
        """Offer a few places to the search."""
        if self.keep is None:
            visit.measure(spot=SPOTS)
        return True

    def apply(self, visit: Visit) -> Operation:
        """End the file early."""
        operation = note_operation(visit)
        keep: Any = self.keep
        if keep is None:
            keep = 0.5 if self.spot is None else self._at_spot(visit, operation.path)
        return strike_later(visit, dataclasses.replace(operation, keep=keep))

    def _at_spot(self, visit: Visit, path: str) -> Callable[[int, bytes | None], int]:
        """Return a function that finds the place once the size of the file is known."""
        details = visit.details

        def keep(size: int, content: bytes | None) -> int:
            places = general_spots(size) if content is None else spots(content, path)
            if not places:
                return size
            place = places[(self.spot or 0) % len(places)]
            details.update(offset=place.offset, size=size, place=place.text)
            return place.offset

        return keep

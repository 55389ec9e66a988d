"""Define faults of reads: a file that ends early."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.storage import Operation
from ...core.validation import format_value
from ...errors import BadArgument
from .common import check_path, file_key, note_operation, strike_later

__all__ = ["TruncatedRead"]
LAYER = "Storage"


@register
class TruncatedRead(Fault):
    """A read returns the beginning of the file, and then its end.

    If the content is read as a whole (``cat``, ``load_file``, ``torch.load``), the rest is missing.
    A file that is being read ends there, for as long as it is open. The file itself is complete: a
    second read returns all of it. ``at`` counts the reads that match.

    Args:
        keep: A share (0.5), or a number of bytes (100).
        path: A pattern of files, as for ``slow_storage``.

    Imitates: a connection that is closed early without an error, a reader that is ahead of its
    writer, a cache that holds half a file.

    Fidelity: sizes (``stat``, ``info``, a seek to the end) are those of the whole file. Memory
    maps, and libraries that read in C with a file descriptor of their own, see the whole file.

    Example: @chaos.truncated_read(path="*.parquet", keep=0.5, at=0)
    """

    site = "storage.read"
    random = False
    keep: Any = 0.5
    path: str | None = None

    def check(self) -> None:
        """Check the parameters."""
        check_path(self, self.path)
        keep = self.keep
        if is_drawn(keep):
            return
        share = isinstance(keep, float) and 0 <= keep < 1
        if isinstance(keep, bool) or not (share or (isinstance(keep, int) and keep >= 0)):
            raise BadArgument(
                f"truncated_read: keep must be a share below 1 (0.5) or a number of bytes (100), "
                f"got {format_value(keep)}"
            )

    @property
    def key(self) -> Key:
        """Count the visits of each path pattern separately."""
        return file_key(self.site, self.path)

    def apply(self, visit: Visit) -> Operation:
        """End the file early."""
        return strike_later(visit, dataclasses.replace(note_operation(visit), keep=self.keep))

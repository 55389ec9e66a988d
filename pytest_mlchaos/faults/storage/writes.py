"""Define faults of writes that take effect in part, or not at all, without an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.storage import Break, Operation
from ..files.layouts import spots
from .common import StorageFault, break_transfer, note_operation, parse_point

__all__ = ["LostWrite", "ShortWrite", "TornWrite"]
LAYER = "Storage"


@register
class ShortWrite(StorageFault):
    """A write takes effect in part, and returns the number of bytes that it has written.

    A caller of ``os.write``, or of a file without a buffer, must write the rest itself. Python's
    buffered files do that, so their callers notice nothing.

    Args:
        keep: The share of the data that is written (0.5), or a number of bytes (100).
        path: A pattern of files, as for ``slow_storage``.

    Imitates: a signal during a long write, a pipe or a network filesystem that takes less than it
    is given, a disk that is nearly full.

    Fidelity: files of fsspec take all that they are given, so only local files are struck.

    Source: https://man7.org/linux/man-pages/man2/write.2.html

    Example: @chaos.short_write(path="*.log", keep=0.5, at=0)
    """

    site = "storage.write"
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 45}
    keep: Any = 0.5
    path: str | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.keep):
            object.__setattr__(self, "keep", parse_point(self, "keep", self.keep, "0.5"))

    def possible(self, visit: Visit) -> bool:
        """Return False for an object of a remote filesystem."""
        return not visit.payload.protocols

    def apply(self, visit: Visit) -> Operation:
        """Write a part."""
        note_operation(visit)
        return break_transfer(visit, _Part(self.keep))


class _Part(Break):
    """The end of the part that one write writes."""

    def __init__(self, keep: float | int) -> None:
        super().__init__(0.0, lasts=False)
        self._keep = keep

    def passes(self, size: int, position: int = 0, length: int = 0) -> int:
        """Return the number of bytes that are written."""
        keep = int(size * self._keep) if isinstance(self._keep, float) else self._keep
        return min(size, max(1, keep))


@register
class TornWrite(StorageFault):
    """A write is cut, and the writer gets no error: the rest of the file never arrives.

    The file ends at the cut. What is written after it, until the file is closed, is lost, too. Only
    a program that reads back what it wrote can notice.

    Args:
        byte: The offset in the written data at which it is cut: a number, or a share (0.5).
        spot: Without ``byte``, the number of a place in the data, the most telling first: between
            two lines, records or row groups, 3 bytes, one byte before the end, the middle, 0. If
            the writes are searched, each place is tried.
        path: A pattern of files, as for ``slow_storage``.

    Imitates: a cache of a disk or a network filesystem that loses its last blocks, a copy that
    stops early and reports success.

    Fidelity: the program goes on, and sees the torn file. For a power loss that ends it there, use
    ``mlchaos.explore_crashes(durability="power")``. Writes that C code makes by itself are not
    reached. An upload of a local file to an object store is lost as a whole.

    Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014.

    Example: @chaos.torn_write(path="*.csv", byte=0.5, at=0)
    """

    site = "storage.write"
    searchable = ("spot",)
    byte: Any = None
    spot: int = 0
    path: str | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if self.byte is not None and not is_drawn(self.byte):
            object.__setattr__(self, "byte", parse_point(self, "byte", self.byte, "0.5"))
        if not is_drawn(self.spot) and self.spot < 0:
            from ...errors import BadArgument

            raise BadArgument(
                f"torn_write: spot must be the number of a place (0, 1, ...), got {self.spot}"
            )

    def probe(self, visit: Visit) -> None:
        """Count the places of the data."""
        data = visit.attributes.get("data")
        if data is not None and self.byte is None:
            visit.measure(spot=len(_places(data, visit.payload.path)))

    def apply(self, visit: Visit) -> Operation:
        """Cut the file."""
        operation = note_operation(visit)
        return break_transfer(visit, _Cut(self, operation.path, visit))


def _places(data: Any, path: str) -> list[int]:
    """Return the offsets at which data may be cut."""
    content = data.encode() if isinstance(data, str) else bytes(data)
    return [place.offset for place in spots(content, path) if place.offset < len(content)] or [0]


class _Cut(Break):
    """The point at which the written data ends."""

    def __init__(self, fault: TornWrite, path: str, visit: Visit) -> None:
        super().__init__(0.0, reports_all=True)
        self._fault, self._path, self._visit = fault, path, visit

    def passes(self, size: int, position: int = 0, length: int = 0) -> int:
        """Return the number of bytes before the cut."""
        byte = self._fault.byte
        if byte is None:
            places = [0] if self.data is None else _places(self.data, self._path)
            offset = places[self._fault.spot % len(places)]
        else:
            offset = int(size * byte) if isinstance(byte, float) else byte
        self._visit.details["byte"] = min(size, offset)
        return min(size, offset)


@register
class LostWrite(StorageFault):
    """A write reports success, and nothing arrives.

    An object of an fsspec filesystem keeps its old content, or does not exist. A local file stays
    as its opening left it: empty after ``"w"``, with the old content after ``"r+"`` or ``"a"``.
    What is written until the file is closed is lost, too. Only a program that reads back what it
    wrote can notice.

    Args:
        path: A pattern of files, as for ``slow_storage``.

    Imitates: a write-back cache that dies, an object store that loses an acknowledged upload, a
    cleaner that is faster than the reader.

    Fidelity: writes that C code makes by itself are not reached.

    Source: Bairavasundaram et al., An Analysis of Data Corruption in the Storage Stack, FAST 2008.

    Example: @chaos.lost_write(path="*.csv", at=0)
    """

    site = "storage.write"
    path: str | None = None

    def apply(self, visit: Visit) -> Operation:
        """Lose the write."""
        note_operation(visit)
        return break_transfer(visit, Break(0.0, reports_all=True))

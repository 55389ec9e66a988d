"""Define the fault of a disk that is full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.sites import Key, Visit
from ...core.storage import Break, Condition, Operation
from ...core.validation import format_value, parse_size
from ...errors import BadArgument
from .common import StorageFault, begin_condition, file_key, note_operation, record_once
from .error_names import storage_error

__all__ = ["DiskFull"]
LAYER = "Storage"


@register
class DiskFull(StorageFault):
    """The disk is full from one write on: ``ENOSPC``, until files are removed.

    A write takes effect up to the last free byte. ``at`` counts the writes that match. With
    ``real``, it counts the files that code other than Python writes.

    Args:
        after: The bytes that are still free at that moment: a number, or ``"64KiB"``, ``"1MiB"``.
            With ``real``, the size that each file can reach. If the writes are searched,
            ``real=True`` without it searches the sizes of the files, too.
        real: True for a limit of the kernel (``RLIMIT_FSIZE``), which also reaches C++ and Rust
            writers: Arrow, Polars, DuckDB, HDF5, ``torch.save``. False for the writes that Python
            sees. If the writes are searched and it is not given, both are tried, each if there are
            such writes. If not, it is False.
        path: A pattern of files, as for ``slow_storage``. With ``real``, it exempts files that
            Python writes. It cannot exempt those that C code writes.

    Imitates: a disk or a quota that is full, a volume that is too small.

    Fidelity: ``real`` limits each file, not their sum, so removing files does not help. The kernel
    says ``EFBIG`` (File too large) to C code instead of ``ENOSPC``, and the write stops at exactly
    this byte in both cases. A program that is started with ``exec`` is killed by SIGXFSZ there. A
    write through a memory map is not limited. Objects in an object store are written as a whole or
    not at all. A restart finds space again. A C library that crashes when its disk is full (HDF5
    does, in the middle of a file) ends the test session: use ``isolation="process"``.

    Source: https://man7.org/linux/man-pages/man2/getrlimit.2.html

    Example: ``@chaos.disk_full(path="*.pt", after="64KiB", at=0)``
    """

    searchable = ("after",)
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"real": (True, False)}
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 20}
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"real": True, "after": 0},
        {"real": False},
        {"real": False, "after": 100},
    )
    after: Any = 0
    real: bool | None = None
    path: str | None = None

    site = "storage.write"

    def check(self) -> None:
        """Convert ``after`` to bytes."""
        super().check()
        if not is_drawn(self.after) and self.after != 0:
            object.__setattr__(self, "after", parse_size(self.after, "disk_full: after"))
        if isinstance(self.after, bool):
            raise BadArgument(
                f"disk_full: after must be a number of bytes, got {format_value(self.after)}"
            )

    @property
    def key(self) -> Key:
        """Count the visits of each path pattern separately."""
        return file_key("storage.native_write" if self.real else self.site, self.path)

    def possible(self, visit: Visit) -> bool:
        """Return False for a file that Python writes, if a search tries both kinds of limits."""
        return "real" not in self._searched or not visit.attributes.get("by_python", False)

    def probe(self, visit: Visit) -> None:
        """Measure the sizes that files of native code reach."""
        size = visit.attributes.get("size", 0)
        if self.real and size and "real" not in self._searched:
            visit.measure(after=size)

    def apply(self, visit: Visit) -> Operation | None:
        """Fill the disk, up to the bytes that are left."""
        operation = note_operation(visit)
        record = record_once(visit)
        if self.real:
            limit = visit.attributes.get("limit")
            if limit is not None:
                visit.keep_until_exit(limit(self.after, self.path, record))
                return None
            return replace(operation, breaks=Break(self.after, None, stopped=record))
        disk = _Disk(self.path, self.after, record)
        begin_condition(visit, disk)
        return replace(operation, breaks=_Room(disk, operation, None))


class _Disk(Condition):
    """A disk with a number of free bytes."""

    ops = ("open", "write", "remove")

    def __init__(self, path: str | None, free: int, record: Callable[..., None]) -> None:
        self.path = path
        self.free = free
        self.record = record
        self.sizes: dict[str, int] = {}
        """The sizes of files before they were opened, because that may make them empty."""

    def meet(self, operation: Operation, file: str | None, now: float) -> Operation | None:
        """Limit a write to the free bytes. Count those that a removed file gives back."""
        if operation.op == "write":
            return replace(operation, breaks=_Room(self, operation, file))
        if file is not None:
            with contextlib.suppress(OSError):
                size = os.stat(file).st_size
                if operation.op == "open":
                    self.sizes[file] = size
                else:
                    self.free += size
                    self.sizes.pop(file, None)
        elif operation.op == "remove":
            self.free += self.sizes.pop(operation.path, 0)
        return None


class _Room(Break):
    """The point of a write at which the disk is full."""

    def __init__(self, disk: _Disk, operation: Operation, file: str | None) -> None:
        super().__init__(0.0, storage_error("ENOSPC", operation), lasts=False)
        self._disk, self._operation, self._file = disk, operation, file
        self.stopped = lambda: disk.record(self.error, path=operation.path)

    def passes(self, size: int, position: int = 0, length: int = 0) -> int:
        """Take the free bytes that the write needs, and return how many bytes it can write."""
        disk = self._disk
        if self._file is not None:
            disk.free += max(0, disk.sizes.pop(self._file, 0) - length)
        grows = max(0, position + size - length)
        taken = min(grows, disk.free)
        disk.free -= taken
        if self._file is None:
            path = self._operation.path
            disk.sizes[path] = disk.sizes.get(path, 0) + taken
        return size - grows + taken

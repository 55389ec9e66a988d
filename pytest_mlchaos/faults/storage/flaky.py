"""Define faults of storage operations that fail, at once or half-way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.storage import Break, Operation
from ...errors import BadArgument, PayloadMismatch
from ..calls import RaiseAfterwards
from .common import (
    Op,
    StorageFault,
    break_transfer,
    note_operation,
    parse_point,
)
from .error_names import check_error, storage_error

__all__ = ["FlakyStorage"]
LAYER = "Storage"


@register
class FlakyStorage(StorageFault):
    """A storage operation fails.

    A buffered file that flushes the same bytes again, as it does when it is closed, does not write
    them twice. A caller that retries does. ``at`` counts the operations that match.

    Args:
        error: The name of an errno (``"EIO"``, ``"ENOSPC"``, ``"ESTALE"``), ``"timeout"`` or
            ``"throttled"``, a built-in ``OSError`` (``"FileNotFoundError"``), a code of S3
            (``"SlowDown"``, ``"NoSuchKey"``), or an error of a client (``"httpx.ReadTimeout"``,
            ``"aiohttp.ClientPayloadError"``, ``"botocore.ReadTimeoutError"``).
        when: ``"before"``, or ``"after"``: the operation takes effect and then fails. The file is
            renamed, or written, and the caller does not know.
        after: The part of a read or a write that arrives before the error. It is a share of the
            file that is read, or of the data that is written (0.4), or an offset in the file
            (100, ``"1MiB"``). The file then fails there for as long as it is open.
        path: A pattern of files, as for ``slow_storage``.
        op: The kind of operation, as for ``slow_storage``. With ``after``, ``"read"`` or
            ``"write"``, or both without it.

    Imitates: a full or failing disk, a stale NFS handle, an object store that throttles, times out
    or loses its answer, a connection that breaks half-way. The error is an ``OSError`` of the right
    subclass with errno and path. ``"timeout"`` is a ``TimeoutError``, ``"throttled"`` the ``EBUSY``
    that S3 filesystems make of ``SlowDown``. An S3 filesystem of fsspec raises a code of S3 as it
    translates it, and other clients raise botocore's ``ClientError``.

    Fidelity: without ``after``, an operation takes effect entirely or not at all. With it, a
    content that is read or written as a whole (``cat``, ``torch.load``) fails, a download leaves
    the beginning of its local file, and an object store keeps the old object. A part of a multipart
    upload arrives as a whole or not at all. The fault strikes above a client's own retries. Files
    that C code opens by itself (memory maps, Arrow's own readers) are not reached:
    ``disk_full(real=True)`` reaches their writes. If only an audit event shows an operation
    (``os.rename`` kept in a default argument), ``"after"`` fails before it.

    Source: errno(3), https://man7.org/linux/man-pages/man3/errno.3.html

    Example: @chaos.flaky_storage(path="*.pt", op="write", error="ENOSPC", at=0)
    """

    site = "storage"
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 10}
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"op": "read", "after": 0.5},
        {"op": "write", "after": 0.5},
        {"op": "read"},
        {"op": "write"},
        {"op": "rename"},
    )
    error: str = "EIO"
    when: Literal["before", "after"] = "before"
    after: Any = None
    path: str | None = None
    op: Op | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        check_error(self, self.error)
        if self.after is None or is_drawn(self.after):
            return
        object.__setattr__(self, "after", parse_point(self, "after", self.after))
        if not is_drawn(self.op) and self.op not in (None, "read", "write"):
            raise BadArgument(
                f"flaky_storage: after={self.after!r} needs op='read' or op='write', got "
                f"op={self.op!r}. A different operation has no bytes"
            )
        if self.when == "after":
            raise BadArgument(
                f"flaky_storage: after={self.after!r} and when='after' exclude each other. Give "
                f"one of them"
            )

    def possible(self, visit: Visit) -> bool:
        """Return False for an operation without bytes, if it is to fail half-way."""
        return self.after is None or visit.payload.op in ("read", "write")

    def apply(self, visit: Visit) -> Operation | None:
        """Raise the error now, after the operation, or in the middle of it."""
        operation = note_operation(visit)
        error = storage_error(self.error, operation)
        if self.after is not None:
            if operation.op not in ("read", "write"):
                raise PayloadMismatch(
                    f"flaky_storage: after={self.after!r} needs a read or a write, got "
                    f"{operation.op} of {operation.path}"
                )
            return break_transfer(visit, Break(self.after, error))
        if self.when == "before":
            visit.fail(error)
        visit.keep_open(RaiseAfterwards(visit, error))
        return None

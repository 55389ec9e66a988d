"""Define faults of storage that last: an outage, a lost permission, too many open files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.storage import Condition, Operation
from ...core.validation import format_value, index, parse_positive_duration
from ...errors import BadArgument
from .common import (
    Op,
    StorageFault,
    begin_condition,
    injected,
    note_operation,
    record_once,
)
from .error_names import check_error, storage_error

__all__ = ["PermissionLost", "StorageOutage", "TooManyFiles"]
LAYER = "Storage"


@register
class StorageOutage(StorageFault):
    """All storage operations fail, or hang, for some time. Then they work again.

    The outage begins at the operation that ``at`` counts. It ends by the trial's clock, so
    back-offs and time-outs decide if a program survives it.

    Args:
        duration: Seconds, or ``"30s"``, ``"10m"``, ``"1h"``.
        how: ``"fails"``, or ``"hangs"``: an operation waits for the end of the outage, and then
            works.
        error: The error, as for ``flaky_storage``.
        path: A pattern of files, as for ``slow_storage``. Without it, all files.
        op: The kind of operation at which it begins, as for ``slow_storage``. It then affects all.

    Imitates: an object store or a network filesystem that is down for minutes (fails), a hard NFS
    mount whose server is gone (hangs).

    Fidelity: files that C code opens by itself are not reached. Time passes only if the program
    waits. A process that was forked before the outage began does not see it. Only the first
    operation that fails is in the journal.

    Source: https://man7.org/linux/man-pages/man5/nfs.5.html

    Example: @chaos.storage_outage(duration="10m", path="*.pt", at=0)
    """

    site = "storage"
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 30}
    # A program that removes half a file after an error cannot do so in an outage that begins there.
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({"op": "open"}, {"op": "read"})
    duration: Any = "10m"
    how: Literal["fails", "hangs"] = "fails"
    error: str = "timeout"
    path: str | None = None
    op: Op | None = None

    def check(self) -> None:
        """Convert ``duration`` to seconds."""
        super().check()
        check_error(self, self.error)
        if not is_drawn(self.duration):
            seconds = parse_positive_duration(self.duration, f"{self.name}: duration")
            object.__setattr__(self, "duration", seconds)

    def apply(self, visit: Visit) -> None:
        """Begin the outage with this operation."""
        operation = note_operation(visit)
        conditions = operation.conditions
        if conditions is not None:
            begin_condition(visit, _Outage(self, conditions.now() + self.duration))
        if self.how == "hangs":
            visit.sleep(self.duration)
        else:
            visit.fail(self._error(operation))

    def _error(self, operation: Operation) -> BaseException:
        return storage_error(self.error, operation)


class _Outage(Condition):
    """An outage until a time of the trial's clock."""

    def __init__(self, fault: StorageOutage, until: float) -> None:
        self.path = fault.path
        self._fault, self._until = fault, until

    def meet(self, operation: Operation, file: str | None, now: float) -> float | None:
        """Fail or wait until the end of the outage."""
        if now >= self._until:
            return None
        if self._fault.how == "hangs":
            return self._until - now
        raise injected(self._fault._error(operation))


@register
class PermissionLost(StorageFault):
    """The permission to use files is lost from one operation on: ``EACCES``.

    Local files that are open already stay usable, as on any POSIX system. On an fsspec filesystem,
    each request fails.

    Args:
        path: A pattern of files, as for ``slow_storage``. Without it, all files.

    Imitates: a token that expires, a role that is changed, a mount that another user has taken.

    Fidelity: the modes of the files are unchanged, so ``os.access`` still returns True. Files that
    C code opens by itself are not reached. A restart has the permission again.

    Source: errno(3), https://man7.org/linux/man-pages/man3/errno.3.html

    Example: @chaos.permission_lost(path="*.pt", at=0)
    """

    site = "storage"
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 50}
    path: str | None = None

    def possible(self, visit: Visit) -> bool:
        """Return False for an operation that needs no permission any more."""
        return _needs_permission(visit.payload)

    def apply(self, visit: Visit) -> None:
        """Lose the permission with this operation, or with the next one that needs it."""
        operation = note_operation(visit)
        if _needs_permission(operation):
            begin_condition(visit, _Lost(self, injected))
            visit.fail(storage_error("EACCES", operation))
        begin_condition(visit, _Lost(self, record_once(visit)))


def _needs_permission(operation: Operation) -> bool:
    is_local = not operation.protocols
    return operation.op in ("open", "rename", "remove") if is_local else True


class _Lost(Condition):
    """A permission that is lost."""

    def __init__(self, fault: PermissionLost, record: Callable[[BaseException], object]) -> None:
        self.path = fault.path
        self._record = record

    def meet(self, operation: Operation, file: str | None, now: float) -> None:
        """Fail all that needs the permission."""
        if _needs_permission(operation):
            error = storage_error("EACCES", operation)
            self._record(error)
            raise error


@register
class TooManyFiles(StorageFault):
    """The process may not open more files: ``EMFILE``, from one open on.

    An open works again as soon as the process has fewer descriptors than at that moment. So a
    program that leaks files, or keeps all of them open, cannot go on.

    Args:
        spare: The number of further descriptors that are left at that moment.
        path: A pattern of files, as for ``slow_storage``. Without it, all files.

    Imitates: ``ulimit -n`` that is reached, a leak of file descriptors.

    Fidelity: the descriptors of the whole process count, and only opens in Python fail. Sockets,
    pipes and files that C code opens are not refused. A restart begins without the limit.

    Source: https://man7.org/linux/man-pages/man2/getrlimit.2.html

    Example: @chaos.too_many_files(path="*.pt", at=0)
    """

    site = "storage.open"
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 60}
    spare: int = 0
    path: str | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.spare) and (index(self.spare) is None or self.spare < 0):
            raise BadArgument(
                f"{self.name}: spare must be a number of descriptors (0, 1, ...), got "
                f"{format_value(self.spare)}"
            )

    def apply(self, visit: Visit) -> None:
        """Begin the limit with this open."""
        operation = note_operation(visit)
        most = _descriptors() + self.spare
        if not self.spare:
            begin_condition(visit, _Limit(self, most, injected))
            visit.fail(storage_error("EMFILE", operation))
        begin_condition(visit, _Limit(self, most, record_once(visit)))


class _Limit(Condition):
    """A limit of open descriptors."""

    ops = ("open",)

    def __init__(
        self, fault: TooManyFiles, most: int, record: Callable[[BaseException], object]
    ) -> None:
        self.path = fault.path
        self._most, self._record = most, record

    def meet(self, operation: Operation, file: str | None, now: float) -> None:
        """Fail if there are as many descriptors as the limit allows."""
        if _descriptors() >= self._most:
            error = storage_error("EMFILE", operation)
            self._record(error)
            raise error


def _descriptors() -> int:
    """Return the number of open descriptors of this process."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return len(os.listdir("/dev/fd"))

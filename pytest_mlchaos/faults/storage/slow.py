"""Define faults of storage that is slow."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.storage import Condition, Operation
from ...core.validation import format_value, parse_duration, parse_positive_duration, parse_size
from ...errors import BadArgument
from .common import (
    Op,
    StorageFault,
    begin_condition,
    note_operation,
    record_once,
    strike_later,
)

__all__ = ["BusyDisk", "SlowDisk", "SlowStorage"]
LAYER = "Storage"

LOAD_SECONDS = 1.0
"""The time in which operations count as load."""


@register
class SlowStorage(StorageFault):
    """A storage operation takes longer.

    A read or a write is one of the file below the buffers, one of ``torch.save`` and its kind, or
    one request of an fsspec filesystem. Coroutines await their delay. ``at`` counts the operations
    that match.

    Args:
        delay: Seconds, or ``"150ms"``, ``"2s"``. It is 1 s if neither it nor ``bandwidth`` is
            given.
        bandwidth: Bytes in a second, or ``"10MB/s"``, ``"64KiB/s"``.
        path: A pattern (``"*.pt"``, ``"ckpt/*"``, ``"s3://bucket/*"``) that must match the path
            below the test's own directory (or the current one), its last part, or, if the pattern
            is absolute, the whole path. Without it, any path.
        op: ``"open"``, ``"read"``, ``"write"``, ``"rename"`` or ``"remove"``. Without it, any of
            them.

    Imitates: a saturated network filesystem, a cold object store, a disk that is busy with others.

    Fidelity: the delay passes before the operation, and the time for its bytes after it. Each
    operation is slow by itself: files that are read at the same time do not share the bandwidth
    (``slow_disk`` makes them share it). Timeouts inside a client do not see it.

    Example: @chaos.slow_storage(path="*.pt", op="write", delay="5s", at=0)
    """

    site = "storage"
    delay: Any = None
    bandwidth: Any = None
    path: str | None = None
    op: Op | None = None

    def check(self) -> None:
        """Convert ``delay`` to seconds, and ``bandwidth`` to bytes per second."""
        super().check()
        if self.delay is not None and not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))
        if self.bandwidth is not None and not is_drawn(self.bandwidth):
            object.__setattr__(self, "bandwidth", _rate(self.name, self.bandwidth))

    def apply(self, visit: Visit) -> Operation | None:
        """Delay the operation and its bytes."""
        operation = note_operation(visit)
        if self.delay is not None or self.bandwidth is None:
            visit.sleep(1.0 if self.delay is None else self.delay)
        if self.bandwidth is None:
            return None
        slower = dataclasses.replace(
            operation, rate=min(self.bandwidth, operation.rate or self.bandwidth)
        )
        return slower if self.delay else strike_later(visit, slower)


@register
class SlowDisk(StorageFault):
    """The disk has little bandwidth from one operation on, and all transfers share it.

    Reads and writes wait in one queue. So files that are read at the same time, and a writer beside
    a reader, slow each other down.

    Args:
        bandwidth: Bytes in a second, or ``"10MB/s"``, ``"64KiB/s"``.
        path: A pattern of files, as for ``slow_storage``. Without it, all files.

    Imitates: a disk or a network volume whose bandwidth is throttled, a noisy neighbour.

    Fidelity: the time for the bytes of an operation passes after it. Files that C code opens by
    itself are not slowed down, and do not take any bandwidth. Forked processes have a bandwidth of
    their own.

    Example: @chaos.slow_disk(bandwidth="1MB/s", at=0)
    """

    site = "storage"
    bandwidth: Any = "1MB/s"
    path: str | None = None

    def check(self) -> None:
        """Convert ``bandwidth`` to bytes per second."""
        super().check()
        if not is_drawn(self.bandwidth):
            object.__setattr__(self, "bandwidth", _rate(self.name, self.bandwidth))

    def possible(self, visit: Visit) -> bool:
        """Return False for an operation without bytes."""
        return visit.payload.op in ("read", "write")

    def apply(self, visit: Visit) -> Operation:
        """Limit the bandwidth from this operation on."""
        operation = note_operation(visit)
        disk = _SharedDisk(self, operation, record_once(visit))
        begin_condition(visit, disk)
        return dataclasses.replace(operation, pace=disk.pace)


class _SharedDisk(Condition):
    """A queue of bytes."""

    ops = ("read", "write")

    def __init__(self, fault: SlowDisk, operation: Operation, record: Callable[[], None]) -> None:
        self.path = fault.path
        self._bandwidth, self._record = fault.bandwidth, record
        self._now = operation.conditions.now if operation.conditions is not None else float
        self._free_at = 0.0

    def meet(self, operation: Operation, file: str | None, now: float) -> Operation:
        """Let the bytes of the operation wait for those before them."""
        return dataclasses.replace(operation, pace=self.pace)

    def pace(self, size: int) -> float:
        """Return the seconds until ``size`` more bytes have passed."""
        self._record()
        now = self._now()
        self._free_at = max(now, self._free_at) + size / self._bandwidth
        return self._free_at - now


@register
class BusyDisk(StorageFault):
    """The disk is busy from one operation on: each operation waits longer, the more there are.

    An operation waits ``latency`` for each operation that has begun in the last second, itself
    included. So a program that makes few large operations is fast, and one that makes many small
    ones, or retries at once, gets slower and slower.

    Args:
        latency: Seconds, or ``"5ms"``.
        path: A pattern of files, as for ``slow_storage``. Without it, all files.

    Imitates: a disk or a metadata server that many jobs use, an object store near its request rate.

    Fidelity: each Python read or write below the buffers counts, whatever its size. Files that C
    code opens by itself neither wait nor count. Forked processes count for themselves.

    Example: @chaos.busy_disk(latency="5ms", at=0)
    """

    site = "storage"
    latency: Any = "5ms"
    path: str | None = None

    def check(self) -> None:
        """Convert ``latency`` to seconds."""
        super().check()
        if not is_drawn(self.latency):
            seconds = parse_positive_duration(self.latency, f"{self.name}: latency")
            object.__setattr__(self, "latency", seconds)

    def apply(self, visit: Visit) -> None:
        """Make the disk busy from this operation on."""
        operation = note_operation(visit)
        load = _Load(self)
        begin_condition(visit, load)
        if operation.conditions is not None:
            load.begun.append(operation.conditions.now())
        visit.sleep(self.latency)


class _Load(Condition):
    """The operations of the last second."""

    def __init__(self, fault: BusyDisk) -> None:
        self.path = fault.path
        self.begun: collections.deque[float] = collections.deque()
        self._latency = fault.latency

    def meet(self, operation: Operation, file: str | None, now: float) -> float:
        """Wait for each operation of the last second."""
        while self.begun and self.begun[0] < now - LOAD_SECONDS:
            self.begun.popleft()
        self.begun.append(now)
        seconds: float = self._latency * len(self.begun)
        return seconds


def _rate(owner: str, value: object) -> float:
    """Return bytes per second for ``1e6``, ``"10MB/s"`` or ``"64KiB/s"``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**63:
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(BadArgument):  # its error would mention a size
            return float(parse_size(value.strip().removesuffix("/s")))
    forms = "bytes per second or a text such as '10MB/s' or '64KiB/s'"
    raise BadArgument(f"{owner}: bandwidth must be {forms}, got {format_value(value)}")

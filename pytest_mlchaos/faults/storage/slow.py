"""Define faults of storage that is slow."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.storage import Operation
from ...core.validation import format_value, parse_duration, parse_size
from ...errors import BadArgument
from .common import Op, check_path, file_key, note_operation, strike_later

__all__ = ["SlowStorage"]
LAYER = "Storage"


@register
class SlowStorage(Fault):
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
    operation is slow by itself: files that are read at the same time do not share the bandwidth.
    Timeouts inside a client do not see it.

    Example: @chaos.slow_storage(path="*.pt", op="write", delay="5s", at=0)
    """

    site = "storage"
    random = False
    delay: Any = None
    bandwidth: Any = None
    path: str | None = None
    op: Op | None = None

    def check(self) -> None:
        """Convert ``delay`` to seconds, and ``bandwidth`` to bytes per second."""
        check_path(self, self.path)
        if self.delay is not None and not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))
        if self.bandwidth is not None and not is_drawn(self.bandwidth):
            object.__setattr__(self, "bandwidth", _rate(self.bandwidth))

    @property
    def key(self) -> Key:
        """Count the visits of each path pattern separately."""
        return file_key(self.site if self.op is None else f"storage.{self.op}", self.path)

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


def _rate(value: object) -> float:
    """Return bytes per second for ``1e6``, ``"10MB/s"`` or ``"64KiB/s"``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**63:
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(BadArgument):  # its error would mention a size
            return float(parse_size(value.strip().removesuffix("/s")))
    forms = "bytes per second or a text such as '10MB/s' or '64KiB/s'"
    raise BadArgument(f"slow_storage: bandwidth must be {forms}, got {format_value(value)}")

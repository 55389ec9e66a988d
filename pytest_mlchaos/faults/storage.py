"""Define faults of storage: slow, failing and truncated operations.

They strike local files, the files of torch and safetensors, and filesystems of fsspec.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.util
import os
import re
from typing import Any, Literal

from ..core.faults import Fault, is_drawn, register
from ..core.sites import Key, Visit
from ..core.storage import Operation
from ..core.validation import did_you_mean, format_value, parse_duration, parse_size
from ..errors import BadArgument, MissingExtra
from .calls import RaiseAfterwards

__all__ = ["FlakyStorage", "SlowStorage", "TruncatedRead"]
LAYER = "Storage"

Op = Literal["open", "read", "write", "rename", "remove"]
WORDS = {"timeout": errno.ETIMEDOUT, "throttled": errno.EBUSY}
COMMON = (
    "EIO",
    "ENOSPC",
    "EDQUOT",
    "EACCES",
    "EROFS",
    "ENOENT",
    "ESTALE",
    "EBUSY",
    "EAGAIN",
    "ECONNRESET",
    "EXDEV",
)
ERRNOS = {name: number for number, name in errno.errorcode.items()} | WORDS


def _key(site: str, path: Any) -> Key:
    return site if path is None else (site, path)


def _check_path(fault: Fault, path: Any) -> None:
    """Refuse an empty pattern, and a protocol that cannot be opened here."""
    if path is None or is_drawn(path):
        return
    if not path.strip():
        raise BadArgument(
            f"{fault.name}: path must be a pattern such as '*.pt', got {format_value(path)}"
        )
    protocol, colon, _ = path.partition("://")
    if not colon or re.search(r"[*?\[]", protocol):
        return
    if importlib.util.find_spec("fsspec") is None:
        raise MissingExtra(f"{fault.name}(path={path!r})", "fsspec", "storage")
    from fsspec.registry import known_implementations, registry

    if protocol in registry:
        return
    if protocol not in known_implementations:
        raise BadArgument(
            f"{fault.name}: fsspec does not know the protocol {protocol!r} in path={path!r}. "
            f"Register it first, or match the path alone"
        )
    package = known_implementations[protocol]["class"].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"{fault.name}(path={path!r})", package, None)


def _note(visit: Visit) -> Operation:
    """Note in the journal what is struck."""
    operation: Operation = visit.payload
    visit.note(op=operation.op, path=operation.path)
    return operation


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
        _check_path(self, self.path)
        if self.delay is not None and not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))
        if self.bandwidth is not None and not is_drawn(self.bandwidth):
            object.__setattr__(self, "bandwidth", _rate(self.bandwidth))

    @property
    def key(self) -> Key:
        """Count the visits of each path pattern separately."""
        return _key(self.site if self.op is None else f"storage.{self.op}", self.path)

    def apply(self, visit: Visit) -> Operation | None:
        """Delay the operation and its bytes."""
        operation = _note(visit)
        if self.delay is not None or self.bandwidth is None:
            visit.sleep(1.0 if self.delay is None else self.delay)
        if self.bandwidth is None:
            return None
        slower = dataclasses.replace(
            operation, rate=min(self.bandwidth, operation.rate or self.bandwidth)
        )
        return slower if self.delay else _striking_later(visit, slower)


@register
class FlakyStorage(Fault):
    """A storage operation fails.

    A buffered file that flushes the same bytes again, as it does when it is closed, does not write
    them twice. A caller that retries does. ``at`` counts the operations that match.

    Args:
        error: The name of an errno (``"EIO"``, ``"ENOSPC"``, ``"ESTALE"``), ``"timeout"`` or
            ``"throttled"``.
        when: ``"before"``, or ``"after"``: the operation takes effect and then fails. The file is
            renamed, or written, and the caller does not know.
        path: A pattern of files, as for ``slow_storage``.
        op: The kind of operation, as for ``slow_storage``.

    Imitates: a full or failing disk, a stale NFS handle, an object store that throttles, times out
    or loses its answer. The error is an ``OSError`` of the right subclass with errno and path;
    ``"timeout"`` is a ``TimeoutError``, ``"throttled"`` the ``EBUSY`` that S3 filesystems make of
    ``SlowDown``.

    Fidelity: an operation takes effect entirely or not at all. A write that fails half-way is one
    of a file's several writes. The fault strikes above a client's own retries. ``torch.save`` with
    a path leaves an empty file or the whole one. Files that C code opens by itself (memory maps,
    Arrow's own readers) are not reached. If only an audit event shows an operation (``os.rename``
    kept in a default argument), ``"after"`` fails before it.

    Source: errno(3), https://man7.org/linux/man-pages/man3/errno.3.html

    Example: @chaos.flaky_storage(path="*.pt", op="write", error="ENOSPC", at=0)
    """

    site = "storage"
    random = False
    error: str = "EIO"
    when: Literal["before", "after"] = "before"
    path: str | None = None
    op: Op | None = None

    def check(self) -> None:
        """Check the parameters."""
        _check_path(self, self.path)
        if not is_drawn(self.error) and self.error not in ERRNOS:
            known = f"{', '.join(map(repr, WORDS))} or an errno's name ({', '.join(COMMON)} or a different one of Python's errno module)"
            raise BadArgument(
                f"flaky_storage: error must be {known}, got "
                f"{format_value(self.error)}{did_you_mean(self.error, ERRNOS)}"
            )

    @property
    def key(self) -> Key:
        """Count the visits of each path pattern separately."""
        return _key(self.site if self.op is None else f"storage.{self.op}", self.path)

    def apply(self, visit: Visit) -> None:
        """Raise the error now, or after the operation."""
        error = _error(self.error, _note(visit))
        if self.when == "before":
            visit.fail(error)
        visit.keep_open(RaiseAfterwards(visit, error))


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
        _check_path(self, self.path)
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
        return _key(self.site, self.path)

    def apply(self, visit: Visit) -> Operation:
        """End the file early."""
        return _striking_later(visit, dataclasses.replace(_note(visit), keep=self.keep))


def _striking_later(visit: Visit, operation: Operation) -> Operation:
    """Record the strike when the operation has an effect.

    Only then the size of the file and the position of its reader are known.
    """
    before, struck = operation.took_effect, False

    def took_effect() -> None:
        nonlocal struck
        if before is not None:
            before()
        if not struck:
            struck = True
            visit.record_injection()

    visit.skip()
    return dataclasses.replace(operation, took_effect=took_effect)


def _error(name: str, operation: Operation) -> OSError:
    number = ERRNOS[name]
    text = (
        "SlowDown: please reduce your request rate" if name == "throttled" else os.strerror(number)
    )
    message = f"{text} (injected by mlchaos)"
    if operation.source is None:
        return OSError(number, message, operation.path)
    return OSError(number, message, operation.source, None, operation.path)


def _rate(value: object) -> float:
    """Return bytes per second for ``1e6``, ``"10MB/s"`` or ``"64KiB/s"``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**63:
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(BadArgument):  # its error would mention a size
            return float(parse_size(value.strip().removesuffix("/s")))
    forms = "bytes per second or a text such as '10MB/s' or '64KiB/s'"
    raise BadArgument(f"slow_storage: bandwidth must be {forms}, got {format_value(value)}")

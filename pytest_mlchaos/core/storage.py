"""Define a storage operation and a file at rest, as the faults of storage see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

__all__ = ["OPERATIONS", "Break", "Condition", "Conditions", "Operation", "StoredFile"]

MAX_READ_BYTES = 1 << 28
"""A file up to this size is read to find where its parts end."""
OPERATIONS = ("open", "read", "write", "rename", "remove")
"""The operations on a file.

Each is a site, ``storage.<operation>``, and ``storage`` covers all of them.
"""


@dataclasses.dataclass(slots=True)
class Break:
    """The point at which a transfer stops.

    Attributes:
        after: The share (a float) of a read file or of a write, or the offset in the file (an int).
        error: The exception that is raised there. Without it, the operation returns there.
        lasts: True if nothing passes this point for as long as the file is open.
        reports_all: True if the caller gets no sign that bytes are missing.
        stopped: A function that is called when the transfer stops there.
        data: The bytes of a write, if they are known.
    """

    after: float | int
    error: BaseException | None = None
    lasts: bool = True
    reports_all: bool = False
    stopped: Callable[[], None] = dataclasses.field(default=lambda: None, compare=False, repr=False)
    data: Any = dataclasses.field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return Break, (self.after, None, self.lasts, self.reports_all)

    def offset(self, size: int, position: int = 0) -> int:
        """Return the offset of the point, for ``size`` bytes that begin at ``position``."""
        return position + int(size * self.after) if isinstance(self.after, float) else self.after

    def passes(self, size: int, position: int = 0, length: int = 0) -> int:
        """Return how many of ``size`` bytes pass that are written at ``position``.

        Args:
            size: The number of bytes.
            position: The offset at which they are written.
            length: The length of the file before.
        """
        return max(0, min(size, self.offset(size, position) - position))

    def reach(self, size: int, position: int, length: int) -> int:
        """Return the offset in a written file that writes from now on do not pass.

        The arguments are those of ``passes``.
        """
        if isinstance(self.after, float):
            return position + self.passes(size, position, length)
        return self.after

    def stop(self) -> None:
        """Record that the transfer stops here, and raise the error."""
        self.stopped()
        if self.error is not None:
            raise self.error.with_traceback(None)


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """The payload of a visit of ``storage`` and ``storage.*``: one operation on a file.

    A fault returns a copy with ``keep``, ``breaks``, ``rate`` and ``took_effect``.

    Attributes:
        op: One of ``OPERATIONS``.
        path: The path relative to the test's own directory, or as the filesystem writes it
            (``"bucket/key"``). For a rename or a copy, this is the destination.
        source: The source of a rename or a copy.
        protocols: The protocols of an fsspec filesystem (``("s3", "s3a")``). Empty for local files.
        keep: The point where a read file ends, as a share (a float) or a number of bytes (an int),
            or a function of the size and of the content. The content is None if it is unknown.
        breaks: The point at which the transfer of the bytes stops.
        rate: The bytes per second, once the operation's size is known.
        pace: A function that returns the seconds that a number of bytes waits, if transfers share
            their bandwidth.
        took_effect: A function that is called if bytes are missing at the end, or have passed at
            the rate.
        file: The absolute path of a local file.
        conditions: The lasting conditions of the trial's storage. A fault may add one. None in a
            visit by hand.
    """

    op: str
    path: str
    source: str | None = None
    keep: float | int | Callable[[int, bytes | None], int] | None = None
    breaks: Break | None = None
    rate: float | None = None
    pace: Callable[[int], float] | None = dataclasses.field(default=None, compare=False, repr=False)
    protocols: tuple[str, ...] = ()
    took_effect: Callable[[], None] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )
    conditions: Conditions | None = dataclasses.field(default=None, compare=False, repr=False)
    file: str | None = dataclasses.field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return Operation, (self.op, self.path, self.source, self.keep, self.breaks, self.rate)

    def ends_at(self, size: int, position: int = 0, content: object = None) -> int:
        """Return the offset at which a file of ``size`` bytes ends for a reader at ``position``.

        ``content`` is the whole content, if the caller has it.
        """
        if self.keep is None:
            return size
        if callable(self.keep):
            known = content if isinstance(content, bytes) else self._content(size)
            end = min(size, self.keep(size, known))
        else:
            end = min(size, int(size * self.keep) if isinstance(self.keep, float) else self.keep)
        if max(end, position) < size and self.took_effect is not None:
            self.took_effect()
        return end

    def _content(self, size: int) -> bytes | None:
        if self.file is None or size > MAX_READ_BYTES:
            return None
        try:
            with open(self.file, "rb") as file:
                found = file.read()
        except OSError:
            return None
        return found if len(found) == size else None

    def seconds_for(self, size: int | None) -> float:
        """Return the seconds that ``size`` bytes take at the rate, and wait for others."""
        shared = self.pace(size) if size and self.pace is not None else 0.0
        if not size or not self.rate:
            return shared
        if self.took_effect is not None:
            self.took_effect()
        return size / self.rate + shared


@dataclasses.dataclass(frozen=True, slots=True)
class StoredFile:
    """The payload of a visit of ``storage.file``: a file at rest, before the subject reads it.

    A fault returns a copy with ``replacement``, ``absent`` or ``beside``.

    Attributes:
        path: The path relative to the test's own directory.
        location: The absolute path. Empty if the content is given.
        given: The content, if it is not in a file.
        group: The files that the same pattern matches, with this one.
        replacement: The content that readers find instead.
        absent: True if readers find no file.
        delay: The seconds after which an absent file appears.
        beside: The name of a copy beside the file.
        took_effect: A function that is called once a reader opens the file.
    """

    path: str
    location: str = dataclasses.field(default="", compare=False, repr=False)
    given: bytes = dataclasses.field(default=b"", repr=False)
    group: tuple[StoredFile, ...] = dataclasses.field(default=(), compare=False, repr=False)
    replacement: bytes | None = dataclasses.field(default=None, repr=False)
    absent: bool = False
    delay: float | None = None
    beside: str | None = None
    took_effect: Callable[[], None] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def read(self) -> bytes:
        """Return the content, with the changes of earlier faults."""
        if self.replacement is not None:
            return self.replacement
        if not self.location:
            return self.given
        with open(self.location, "rb") as file:
            return file.read()

    @property
    def is_changed(self) -> bool:
        """Return True if a fault has changed the file."""
        return self.replacement is not None or self.absent or self.beside is not None


class Condition:
    """A condition of the storage that lasts: an outage, a full disk, a lost permission.

    Attributes:
        ops: The operations that it affects.
        path: The pattern of the files that it affects, or None for all.
    """

    ops: tuple[str, ...] = OPERATIONS
    path: str | None = None

    def meet(self, operation: Operation, file: str | None, now: float) -> Operation | float | None:
        """Return what an operation under this condition becomes.

        Raise the error with which it fails, or return a changed operation, or the seconds that it
        waits, or None.

        Args:
            operation: The operation, about to begin.
            file: The absolute path of a local file.
            now: The time on the trial's clock.
        """
        raise NotImplementedError(f"{type(self).__name__} must define meet()")


class Conditions(list[Condition]):
    """The lasting conditions of a trial's storage.

    Attributes:
        now: A function that returns the time on the trial's clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.now = now


@dataclasses.dataclass(frozen=True, slots=True)
class Reread:
    """The payload of a visit of ``storage.reread``: a read of a file that was overwritten.

    Attributes:
        path: The path, as in an ``Operation``.
        previous: The content before the last change.
        replacement: The content that the reader finds instead, set by a fault.
    """

    path: str
    previous: bytes = dataclasses.field(repr=False)
    replacement: bytes | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """The payload of a visit of ``storage.list``: names in a folder.

    Attributes:
        path: The path of the folder.
        new: The listed names that appeared in this trial.
        gone: The names that were removed in this trial.
        hidden: Those of ``new`` that are not shown, set by a fault.
        shown: Those of ``gone`` that are still shown, set by a fault.
    """

    path: str
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

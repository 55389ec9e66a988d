"""Share what the faults of storage have in common: patterns of files, points, and strikes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from ...core.faults import Fault, is_drawn
from ...core.sites import Key, Visit
from ...core.storage import Break, Condition, Operation
from ...core.validation import format_value, parse_size
from ...engine.error_origin import mark
from ...errors import BadArgument, MissingExtra

__all__ = [
    "Op",
    "StorageFault",
    "begin_condition",
    "break_transfer",
    "check_path",
    "file_key",
    "injected",
    "note_operation",
    "parse_point",
    "record_once",
    "strike_later",
]

Op = Literal["open", "read", "write", "rename", "remove"]


def file_key(site: str, path: Any) -> Key:
    """Return the key that counts the visits of a path pattern."""
    return site if path is None else (site, path)


def check_path(fault: Fault, path: Any) -> None:
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


class StorageFault(Fault):
    """A fault of storage operations. It declares ``path``, a pattern of files, and maybe ``op``."""

    random = False
    if TYPE_CHECKING:
        path: str | None

    def check(self) -> None:
        """Check the pattern."""
        check_path(self, self.path)

    @property
    def key(self) -> Key:
        """Count the visits of each path pattern separately."""
        op = getattr(self, "op", None)
        return file_key(self.site if op is None else f"storage.{op}", self.path)


def note_operation(visit: Visit) -> Operation:
    """Note in the journal what is struck."""
    operation: Operation = visit.payload
    visit.note(op=operation.op, path=operation.path)
    return operation


def parse_point(fault: Fault, name: str, value: object, example: str = "0.4") -> float | int:
    """Return a share below 1 as a float, or a number of bytes as an int."""
    if isinstance(value, float) and 0 <= value < 1:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str):
        with contextlib.suppress(BadArgument):  # its error would mention a size alone
            return parse_size(value)
    raise BadArgument(
        f"{fault.name}: {name} must be a share below 1 ({example}) or a number of bytes (100, "
        f"'1MiB'), got {format_value(value)}"
    )


def break_transfer(visit: Visit, point: Break) -> Operation:
    """Return the operation of a visit, with a point at which its transfer stops.

    The strike is recorded when the transfer stops there.
    """
    record = record_once(visit)
    point.stopped = lambda: record(point.error)
    operation: Operation = visit.payload
    return dataclasses.replace(operation, breaks=point)


def injected(error: BaseException) -> BaseException:
    """Return the error, marked as injected."""
    mark(error)
    return error


def record_once(visit: Visit) -> Callable[..., None]:
    """Return a function that records the strike of the visit, the first time that it is called.

    Later calls mark their error as injected. The visit does not count as a strike by itself.
    """
    visit.skip()
    recorder, details, struck = visit.recorder, visit.details, False

    def record(error: BaseException | None = None, **more: object) -> None:
        nonlocal struck
        if struck:
            if error is not None:
                mark(error)
            return
        struck, visit.error = True, error
        details.update(more)
        if recorder is not None:
            recorder(details)

    return record


def begin_condition(visit: Visit, condition: Condition) -> None:
    """Let a condition hold until the process ends.

    The operation at this visit is the fault's own matter.
    """
    conditions = visit.payload.conditions
    if conditions is None:
        return

    @contextlib.contextmanager
    def holding() -> Iterator[None]:
        conditions.append(condition)
        try:
            yield
        finally:
            if condition in conditions:
                conditions.remove(condition)

    visit.keep_until_exit(holding())


def strike_later(visit: Visit, operation: Operation) -> Operation:
    """Record the strike when the operation has an effect.

    Only then the size of the file and the position of its reader are known.
    """
    before, record = operation.took_effect, record_once(visit)

    def took_effect() -> None:
        if before is not None:
            before()
        record()

    return dataclasses.replace(operation, took_effect=took_effect)

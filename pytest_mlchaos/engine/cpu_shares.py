"""Hold the share of the CPU that the process gets, for service times on the virtual clock.

Computation takes no virtual time, so a starved CPU stretches the times that a test has declared.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from ..core.clock import Clock

__all__ = ["are_declared", "declared_times", "reduced_cpu", "stretched"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Share:
    share: float
    clock: Clock
    until: float | None


_shares: list[_Share] = []
_declared: list[object] = []


@contextlib.contextmanager
def declared_times() -> Iterator[None]:
    """Note that service times are declared while the context is open."""
    mark = object()
    _declared.append(mark)
    try:
        yield
    finally:
        _declared.remove(mark)


def are_declared() -> bool:
    """Return True if the test has declared service times."""
    return bool(_declared)


@contextlib.contextmanager
def reduced_cpu(share: float, clock: Clock, until: float | None) -> Iterator[None]:
    """Give the process a share of the CPU, until a time of the clock or the end of the context."""
    one = _Share(share, clock, until)
    _shares.append(one)
    try:
        yield
    finally:
        _shares.remove(one)


def stretched(seconds: float) -> float:
    """Return the time that a computation of ``seconds`` takes now."""
    for one in _shares:
        if one.until is None or one.clock.now() < one.until:
            seconds /= one.share
    return seconds

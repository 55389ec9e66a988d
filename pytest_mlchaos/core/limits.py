"""Hold the limits of the runs in fresh processes while a test runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .interrupts import uninterruptible
from .settings import Settings

__all__ = ["NO_LIMITS", "Limits", "current_limits", "limited_by"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one run may use, with all processes that it starts.

    Attributes:
        memory: The memory in bytes, or None.
        cpu: The processor time in seconds, or None.
        disk: The size of its work directory in bytes, or None.
    """

    memory: int | None = None
    cpu: float | None = None
    disk: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that the settings of a test name."""
        return cls(memory=settings.memory, cpu=settings.cpu, disk=settings.disk)

    @property
    def names(self) -> str:
        """Return the settings that limit something, or an empty text."""
        return ", ".join(f"{name}=" for name, value in dataclasses.asdict(self).items() if value)


NO_LIMITS = Limits()
_limits = NO_LIMITS


def current_limits() -> Limits:
    """Return the limits of the running test."""
    return _limits


@uninterruptible
def limited_by(limits: Limits) -> Iterator[None]:
    """Use these limits until the end of the context."""
    global _limits
    before, _limits = _limits, limits
    try:
        yield
    finally:
        _limits = before

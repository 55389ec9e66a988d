"""Record when counted targets and sites are visited, and for which request."""

from __future__ import annotations

from collections.abc import Callable

from ..core.replies import CallMade
from .attribution import about

__all__ = ["CallTimes"]


class CallTimes:
    """The visits of one key: their times on the trial's clock, and their requests."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.made: list[CallMade] = []

    def recording(self, count: Callable[[], int]) -> Callable[[], int]:
        """Return ``count``, which also records the visit."""

        def advance() -> int:
            self.made.append(CallMade(self._now(), about().get("request")))
            return count()

        return advance

    def since(self, number: int, start: float) -> tuple[CallMade, ...]:
        """Return the visits after the first ``number``, with times since ``start``."""
        return tuple(call._replace(time=call.time - start) for call in self.made[number:])

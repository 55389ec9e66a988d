"""Read from the journal which points of the program no trial has reached."""

from __future__ import annotations

import dataclasses

from ..core.entries import Point
from .journal_reader import SessionLog

__all__ = ["MissedPoint", "missed_points"]


@dataclasses.dataclass(frozen=True, slots=True)
class MissedPoint:
    """A point that no trial reached, or a condition that was true in none.

    Attributes:
        name: Its name.
        condition: True for ``sometimes``.
        places: Its lines, as ``train.py:12``.
        reached: How often it was reached. 0 for ``reachable``.
    """

    name: str
    condition: bool
    places: tuple[str, ...]
    reached: int

    def __str__(self) -> str:
        places = ", ".join(self.places)
        if not self.condition:
            return f"no trial reached {self.name!r} ({places})"
        if not self.reached:
            return f"no trial reached the condition {self.name!r} ({places})"
        times = f"{self.reached} time{'' if self.reached == 1 else 's'}"
        return f"{self.name!r} was never true ({places}), checked {times}"


def missed_points(session: SessionLog) -> list[MissedPoint]:
    """Return the points that were missed in all trials of a session, by name.

    Points with one name are one point, wherever they are.
    """
    points: dict[tuple[str, bool], list[Point]] = {}
    for line in session.lines():
        if isinstance(line.entry, Point):
            points.setdefault((line.entry.name, line.entry.condition), []).append(line.entry)
    return [
        MissedPoint(
            name,
            condition,
            tuple(sorted({one.place for one in found})),
            sum(one.reached for one in found),
        )
        for (name, condition), found in sorted(points.items())
        if not any(one.held for one in found)
    ]

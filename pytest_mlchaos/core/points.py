"""Define ``reachable`` and ``sometimes``: points of a program that some trial must reach.

Product code may import this module, so it loads little, and a call outside of a trial costs one
comparison.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from .entries import Point

__all__ = ["Points", "listen", "reachable", "sometimes", "stop_listening"]

HIDDEN = "<name>"
"""Stands for a name that is not a constant of the code: it may hold the user's data."""

_listeners: list[Points] = []
"""The points of the running trials. The last one listens. Sessions inside a test are nested."""


def reachable(name: str) -> None:
    """Mark a line that some trial of the session must reach.

    Write it where a test must come by at least once: in a fallback, in the branch that resumes.
    If no trial of a session reaches it, the summary says so. Outside of a chaos test it does
    nothing, so it may stay in production code.

    Args:
        name: The name of the point. Write it as a constant: only such a name is known before the
            line is reached.
    """
    if _listeners:
        _listeners[-1].note(name, sys._getframe(1), is_condition=False, held=True)


def sometimes(condition: object, name: str) -> None:
    """Mark a condition that must be true in some trial of the session.

    It need not be true each time: ``sometimes(attempt > 1, "the second attempt is made")``. If it
    is true in no trial of a session, the summary says so. Outside of a chaos test it does nothing.

    Args:
        condition: The condition.
        name: The name of the point, as a constant.
    """
    if _listeners:
        _listeners[-1].note(name, sys._getframe(1), is_condition=True, held=bool(condition))


def listen(points: Points) -> None:
    """Let these points receive what is reached from now on."""
    _listeners.append(points)


def stop_listening(points: Points) -> None:
    """Undo ``listen``."""
    if points in _listeners:
        _listeners.remove(points)


class Points:
    """The points that a process of a trial has reached.

    Args:
        tell: Reports to the process of the trial, if this is a different one: the name, whether
            it is a condition, the place, and how often it was reached and held since the last
            report.
    """

    def __init__(self, tell: Callable[[str, bool, str, int, int], object] | None = None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, bool, str], list[int]] = {}
        self._told: dict[tuple[str, bool, str], tuple[int, int]] = {}

    def note(self, name: str, frame: types.FrameType, *, is_condition: bool, held: bool) -> None:
        """Count that a line was reached."""
        # Not at the top of the file, because product code imports it.
        from ..errors import BadArgument
        from .privacy import is_name, kind_text, shows_values

        what = "sometimes" if is_condition else "reachable"
        if not isinstance(name, str):
            raise BadArgument(f"mlchaos.{what}: name must be a text, got {kind_text(name)}")
        place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        constant = name in frame.f_code.co_consts or is_name(name) or shows_values()
        self.add(name if constant else HIDDEN, is_condition, place, 1, int(held))

    def add(self, name: str, is_condition: bool, place: str, reached: int, held: int) -> None:
        """Add to the counts of a point."""
        key = (name, is_condition, place)
        with self._lock:
            counts = self._counts.setdefault(key, [0, 0])
            counts[0] += reached
            counts[1] += held
            news = self._news(key, *counts)
        if news is not None and self._tell is not None:
            self._tell(*key, *news)

    def _news(self, key: tuple[str, bool, str], reached: int, held: int) -> tuple[int, int] | None:
        """Return what to report now.

        The first times are reported at once. Later ones are reported each time that their number
        has doubled, because a message costs more than a line of a loop.
        """
        if self._tell is None:
            return None
        before = self._told.get(key, (0, 0))
        if reached < 2 * before[0] and (before[1] or not held):
            return None
        self._told[key] = (reached, held)
        return reached - before[0], held - before[1]

    def entries(self) -> list[Point]:
        """Return the entries of the journal, in a fixed order."""
        from .entries import Point

        with self._lock:
            counts = sorted(self._counts.items())
        return [
            Point(name=name, condition=is_condition, place=place, reached=reached, held=held)
            for (name, is_condition, place), (reached, held) in counts
        ]

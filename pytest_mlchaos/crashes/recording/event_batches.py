"""Interpret events that were read together. The meaning of one may depend on later ones."""

from __future__ import annotations

from collections.abc import Sequence

from ...engine import inotify
from ...engine.inotify import Event

__all__ = ["READ_ONLY_EVENTS", "ahead", "all_quiet"]

READ_ONLY_EVENTS = inotify.OPEN | inotify.CLOSE_NOWRITE | inotify.IGNORED
"""Events that change nothing."""


def all_quiet(events: Sequence[Event]) -> bool:
    """Return True if the events change nothing."""
    return all(event.mask & READ_ONLY_EVENTS for event in events)


def ahead(events: Sequence[Event]) -> tuple[list[bool], list[int], int]:
    """Look ahead in the events.

    Returns:
        For each event, True if its name is modified later. For each event, the mask of the next
        event of its name, or 0. The index of the last event that changes something, or -1.
    """
    written, following, busy = [False] * len(events), [0] * len(events), -1
    seen: dict[tuple[int, str], tuple[bool, int]] = {}
    for index in range(len(events) - 1, -1, -1):
        event = events[index]
        key = event.watch, event.name
        written[index], following[index] = seen.get(key, (False, 0))
        seen[key] = written[index] or bool(event.mask & inotify.MODIFY), event.mask
        if busy < 0 and not event.mask & READ_ONLY_EVENTS:
            busy = index
    return written, following, busy

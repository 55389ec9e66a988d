"""Events that were read together: what one of them means may depend on those behind it."""

from __future__ import annotations

from collections.abc import Sequence

from . import inotify
from .inotify import Event

__all__ = ["READ_ONLY_EVENTS", "ahead", "all_quiet"]

READ_ONLY_EVENTS = inotify.OPEN | inotify.CLOSE_NOWRITE | inotify.IGNORED
"""What changes nothing."""


def all_quiet(events: Sequence[Event]) -> bool:
    """Whether nothing has changed."""
    return all(event.mask & READ_ONLY_EVENTS for event in events)


def ahead(events: Sequence[Event]) -> tuple[list[bool], list[int], int]:
    """For each event: whether its name is written to later on, and the mask of its next event; and the place of the last that matters."""
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

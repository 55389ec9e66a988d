"""Derive from what an alert did when it saw each fault. Pure data, so it is tested without a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from ..core.sites import Key

__all__ = ["Change", "Moment", "Seen", "Struck", "Timeline"]


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a trial.

    Attributes:
        time: The seconds on the trial's clock.
        passed: The number of visits so far, by key.
    """

    time: float
    passed: Mapping[Key, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Struck:
    """A strike.

    Attributes:
        fault: The fault, as it prints.
        kind: The fault and its kind, without its other parameters.
        key: The key by which its visits are counted.
        visit: The number of the visit.
        moment: The moment.
    """

    fault: str
    kind: str
    key: Key
    visit: int
    moment: Moment


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """The alert fired, or was switched off.

    Attributes:
        on: True if it fired.
        moment: The moment.
    """

    on: bool
    moment: Moment


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Hold what an alert made of one fault.

    Attributes:
        fault: The fault, as it prints.
        kind: The fault and its kind, without its other parameters.
        visit: The visit of its first strike.
        detected: True if the alert was on at that time or later.
        visits: The further visits of that site before the alert fired. None if it did not.
        seconds: The seconds from the first strike until it fired, on the trial's clock.
        room: The further visits of that site until the end.
        room_seconds: The seconds until the end.
    """

    fault: str
    kind: str
    visit: int
    detected: bool
    visits: int | None
    seconds: float | None
    room: int
    room_seconds: float


Within = tuple[Literal["visits", "seconds"], float]


@dataclasses.dataclass
class Timeline:
    """The strikes and the changes of an alert, in the order in which they happened.

    Attributes:
        lasts: True if the alert stays on until it is switched off. False for single events, such as
            a line of a log.
    """

    lasts: bool = True
    events: list[Struck | Change] = dataclasses.field(default_factory=list)
    end: Moment | None = None

    @property
    def fired(self) -> bool:
        """Return True if the alert fired at all."""
        return any(isinstance(event, Change) and event.on for event in self.events)

    @property
    def first_strike(self) -> Struck | None:
        """Return the first strike, or None."""
        return next((event for event in self.events if isinstance(event, Struck)), None)

    def before_faults(self) -> Sequence[Change]:
        """Return how often the alert fired before any fault had struck."""
        found = []
        for event in self.events:
            if isinstance(event, Struck):
                break
            if event.on:
                found.append(event)
        return found

    def seen(self) -> list[Seen]:
        """Return what the alert made of each fault, from its first strike on."""
        first: dict[str, int] = {}
        for place, event in enumerate(self.events):
            if isinstance(event, Struck):
                first.setdefault(event.fault, place)
        return [self._seen(place) for place in first.values()]

    def _seen(self, place: int) -> Seen:
        struck = self.events[place]
        assert isinstance(struck, Struck)
        end = self.end or self.events[-1].moment
        fired = self._fired_from(place)
        visits = None if fired is None else max(0, _further(struck, fired))
        return Seen(
            struck.fault,
            struck.kind,
            struck.visit,
            fired is not None,
            visits,
            None if fired is None else max(0.0, fired.time - struck.moment.time),
            max(0, _further(struck, end)),
            max(0.0, end.time - struck.moment.time),
        )

    def _fired_from(self, place: int) -> Moment | None:
        """Return the moment from which the alert was on, at or after an event."""
        before = [event for event in self.events[:place] if isinstance(event, Change)]
        if self.lasts and before and before[-1].on:
            return self.events[place].moment
        return next(
            (
                event.moment
                for event in self.events[place:]
                if isinstance(event, Change) and event.on
            ),
            None,
        )

    def resolved_after(self) -> float | None:
        """Return the seconds from the last strike until the alert was off for good, or None."""
        strikes = [event for event in self.events if isinstance(event, Struck)]
        changes = [event for event in self.events if isinstance(event, Change)]
        if not self.lasts or not strikes or not changes or changes[-1].on:
            return None
        return max(0.0, changes[-1].moment.time - strikes[-1].moment.time)


def _further(struck: Struck, moment: Moment) -> int:
    """Return the visits of the struck site that began after the struck one."""
    return moment.passed.get(struck.key, 0) - 1 - struck.visit


def is_in_time(seen: Seen, within: Within | None) -> bool | None:
    """Return True if a fault was seen in time, and None if the run ended too early to say."""
    if within is None:
        return seen.detected
    unit, limit = within
    took, room = (seen.visits, seen.room) if unit == "visits" else (seen.seconds, seen.room_seconds)
    if took is not None:
        return took <= limit
    return False if room >= limit else None

"""Define faults of streams of events: their order, their number, and their time."""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import check_share, format_value, index, parse_duration
from ...engine.changes import alike
from ...engine.controller import current_clock
from ...errors import BadArgument, PayloadMismatch
from ..data_fault import DataFault
from ..tables.times import kind_of_times
from .base import copy_payload
from .pytree import describe
from .records import fields_of_record, is_sequence

__all__ = ["DelayedDelivery", "DuplicateEvents", "OutOfOrderEvents"]
LAYER = "Batches"
DISTANCES = (1, 2, 3, 10, 30)
TIMES = ("time", "timestamp", "ts", "date", "seq", "sequence", "offset", "version")
"""The last words of the names of fields that order events."""
IDENTITIES = ("id", "uuid", "guid", "key", *TIMES)
"""The last words of the names of fields that tell events apart."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class EventFault(DataFault):
    """A fault of the events that a stream or a call delivers."""

    site = "data.batch"
    told_by: ClassVar[tuple[str, ...]] = TIMES
    """The names of fields by which a sound program notices the fault."""

    def possible(self, visit: Visit) -> bool:
        """Let a composite fault strike only events that a sound program can order or tell apart."""
        if not self._composite:
            return True
        events = visit.payload
        first = events[0] if is_sequence(events) and events else events
        return self.target is not None and _has_field(first, self.told_by)

    def check(self) -> None:
        """Check the parameters."""
        for name in ("behind", "after"):
            value = getattr(self, name, None)
            if value is not None and not is_drawn(value) and not index(value):
                raise BadArgument(
                    f"{self.name}: {name} must be 1 or more, got {format_value(value)}"
                )
        fraction = getattr(self, "fraction", None)
        if fraction is not None and not is_drawn(fraction):
            check_share(self.name, "fraction", fraction)

    def apply(self, visit: Visit) -> Any:
        """Change the stream, or the list of events."""
        if visit.source is not None:
            return self.in_stream(visit)
        events = visit.payload
        if is_sequence(events):
            return self._in_sequence(events, visit)
        if isinstance(events, Iterator) and _is_plain(events):
            return self.in_iterator(events, visit)
        raise PayloadMismatch(
            f"{self.name}: what {self.target} returns must be a list of events or an iterator, got "
            f"{describe(events)}. Give target= a function that returns one, or a generator function"
        )

    def _in_sequence(self, events: Any, visit: Visit) -> Any:
        import numpy as np

        if not len(events):
            visit.skip()
            return None
        fresh = self.in_list(list(events), np.random.default_rng(visit.seed), visit)
        if fresh is None or alike(fresh, list(events)):
            visit.skip()
            return None
        return fresh if type(events) is list else type(events)(fresh)

    def in_stream(self, visit: Visit) -> Any:
        """Return what comes in the place of the event."""
        raise NotImplementedError

    def in_list(self, events: list[Any], rng: Any, visit: Visit) -> list[Any] | None:
        """Return the events as they come."""
        raise NotImplementedError

    def in_iterator(self, events: Iterator[Any], visit: Visit) -> Any:
        """Return an iterator of the events as they come."""
        raise NotImplementedError


def _has_field(event: Any, words: tuple[str, ...]) -> bool:
    """Return True if a record has a field with a time, or with one of these words as its last."""
    names = tuple(event) if isinstance(event, Mapping) else fields_of_record(event) or ()
    for name in filter(lambda name: isinstance(name, str), names):
        value = event[name] if isinstance(event, Mapping) else getattr(event, name, None)
        last = ["", *re.findall("[A-Z]?[a-z]+|[A-Z]+", name)][-1].lower()
        if kind_of_times([value]) or last in words:
            return True
    return False


def _is_plain(events: object) -> bool:
    """Return True for an iterator without further methods, for which another can stand."""
    return isinstance(events, types.GeneratorType) or type(events).__module__ in (
        "builtins",
        "itertools",
    )


def _hit(fault: EventFault, count: int, rng: Any) -> set[int]:
    """Return the indices of the events that are hit."""
    share = max(1, round(fault.scaled("fraction") * count))
    return set(rng.choice(count, min(count, share), replace=False).tolist())


@register
class OutOfOrderEvents(EventFault):
    """An event comes after events that follow it.

    In a stream (a generator, a loader, ``mlchaos.batches``), ``at`` counts the events, and the
    event of the strike comes late. If a call returns a list, ``at`` counts the calls, and a share
    of the events comes late. If a call returns an iterator, its first event comes late.

    Args:
        behind: The number of events that overtake it. At the end of a stream there may be fewer.
        fraction: In a list, the share of the events that is late, at least one.

    Imitates: partitions of a queue that are read in turns, mobile clients, retries of a producer.

    Fidelity: events are counted, not timed. ``delayed_delivery`` counts time. The last event of a
    stream cannot be late, and equal events cannot be told apart, so no strike counts there.

    Source: Akidau et al., The Dataflow Model, VLDB 2015.

    Example: ``@chaos.out_of_order_events(behind=3, at=1)``
    """

    member_of: ClassVar[Mapping[str, int]] = {"bad_data": 14}
    scales: ClassVar = {"behind": DISTANCES}
    behind: int = 3
    fraction: float = 0.1

    def in_stream(self, visit: Visit) -> Any:
        """Take the next events first."""
        overtaking: list[Any] = []
        try:
            while len(overtaking) < self.scaled("behind"):
                overtaking.append(visit.stream.pull())
        except StopIteration:
            visit.stream.end()
        except Exception as error:  # noqa: BLE001
            # The source may raise anything. Raise it after these events.
            visit.stream.end(error)
        if all(alike(one, visit.payload) for one in overtaking):
            visit.stream.push(*overtaking)
            visit.skip()
            return None
        visit.note(overtaken_by=len(overtaking))
        visit.stream.push(*overtaking[1:], visit.payload)
        return overtaking[0]

    def in_list(self, events: list[Any], rng: Any, visit: Visit) -> list[Any] | None:
        """Move some events back."""
        if len(events) < 2:
            return None
        hit = _hit(self, len(events) - 1, rng)
        behind = self.scaled("behind")
        order = sorted(
            range(len(events)), key=lambda place: place + (behind + 0.5 if place in hit else 0)
        )
        visit.note(events=len(hit), of=len(events))
        return [events[place] for place in order]

    def in_iterator(self, events: Iterator[Any], visit: Visit) -> Any:
        """Move the first event back."""
        first = list(itertools.islice(events, self.scaled("behind") + 1))
        fresh = [*first[1:], *first[:1]]
        if alike(first, fresh):
            visit.skip()
        visit.note(overtaken_by=max(0, len(first) - 1))
        return itertools.chain(fresh, events)


@register
class DuplicateEvents(EventFault):
    """An event is delivered again, after events that follow it.

    In a stream, ``at`` counts the events, and the event of the strike comes again. If a call
    returns a list, ``at`` counts the calls, and a share of the events comes again. If a call
    returns an iterator, its first event comes again.

    Args:
        after: The number of events between the two. At the end of a stream there may be fewer.
        fraction: In a list, the share of the events that comes again, at least one.

    Imitates: at-least-once delivery: a lost acknowledgement, a consumer that restarts from its last
    committed offset, a retry of a producer.

    Fidelity: an exact copy. Real deliveries differ in an id, a time or a number of attempts, and a
    restarted consumer gets a whole stretch again.

    Example: ``@chaos.duplicate_events(after=2, at=1)``
    """

    random = True
    member_of: ClassVar[Mapping[str, int]] = {"bad_data": 12}
    told_by: ClassVar[tuple[str, ...]] = IDENTITIES
    scales: ClassVar = {"after": DISTANCES}
    after: int = 1
    fraction: float = 0.1

    def in_stream(self, visit: Visit) -> None:
        """Put a copy behind the next events."""
        following: list[Any] = []
        try:
            while len(following) < self.scaled("after"):
                following.append(visit.stream.pull())
        except StopIteration:
            visit.stream.end()
        except Exception as error:  # noqa: BLE001
            # The source may raise anything. Raise it after these events.
            visit.stream.end(error)
        visit.note(after=len(following))
        visit.stream.push(*following, copy_payload(visit.payload))

    def in_list(self, events: list[Any], rng: Any, visit: Visit) -> list[Any] | None:
        """Insert copies of some events."""
        hit = _hit(self, len(events), rng)
        placed = [(float(place), event) for place, event in enumerate(events)]
        placed += [
            (place + self.scaled("after") + 0.5, copy_payload(events[place]))
            for place in sorted(hit)
        ]
        visit.note(events=len(hit), of=len(events))
        return [event for _, event in sorted(placed, key=lambda one: one[0])]

    def in_iterator(self, events: Iterator[Any], visit: Visit) -> Any:
        """Insert a copy of the first event."""
        first = list(itertools.islice(events, self.scaled("after") + 1))
        if not first:
            visit.skip()
        return itertools.chain(first, [copy_payload(one) for one in first[:1]], events)


@register
class DelayedDelivery(EventFault):
    """An event of a stream is delivered later in time. Others overtake it meanwhile.

    The event comes as soon as ``by`` has passed on the trial's clock. At the end of the stream, its
    consumer waits for it. ``at`` counts the events.

    Args:
        by: Seconds, or ``"5m"``, ``"2h"``.

    Imitates: a client that was offline, a partition that lags behind, an event beyond the
    watermark.

    Fidelity: only waiting advances a virtual clock. So a consumer that does not wait between events
    gets the event at the end. If a call returns a list, use ``late_rows`` with ``target=``.

    Source: Akidau et al., The Dataflow Model, VLDB 2015.

    Example: ``@chaos.delayed_delivery(by="5m", at=1)``
    """

    random = False
    scales: ClassVar = {"by": (1.0, 10.0, 60.0, 600.0, 3600.0)}
    by: Any = "5m"

    def check(self) -> None:
        """Convert ``by`` to seconds."""
        super().check()
        if is_drawn(self.by):
            return
        seconds = parse_duration(self.by, f"{self.name}: by")
        if not seconds:
            raise BadArgument(f"{self.name}: by must be longer than 0 s, got {self.by!r}")
        object.__setattr__(self, "by", seconds)

    def in_stream(self, visit: Visit) -> Any:
        """Hold the event back, and return the next one."""
        by = self.scaled("by")
        due, event = current_clock().now() + by, visit.payload
        try:
            following = visit.stream.pull()
        except StopIteration:
            visit.sleep(by)
            return None
        visit.stream.postpone(
            event,
            lambda: current_clock().now() >= due,
            lambda: _wait(max(0.0, due - current_clock().now())),
        )
        visit.note(by=by)
        return following

    def in_list(self, events: list[Any], rng: Any, visit: Visit) -> list[Any] | None:
        """Refuse: a list has no time between its events."""
        raise PayloadMismatch(
            f"{self.name}: what {self.target} returns must be a stream, got a list of events. Use "
            f"late_rows with target=, or give target= a generator function"
        )

    def in_iterator(self, events: Iterator[Any], visit: Visit) -> Any:
        """Hold the first event back."""
        by = self.scaled("by")
        return _late_first(events, by)


def _late_first(events: Iterator[Any], by: float) -> Iterator[Any]:
    """Yield the first event once its delay has passed."""
    for event in events:
        due = current_clock().now() + by
        for other in events:
            yield other
            if current_clock().now() >= due:
                break
        _wait(max(0.0, due - current_clock().now()))
        yield event
        yield from events


def _wait(seconds: float) -> None:
    current_clock().sleep(seconds)

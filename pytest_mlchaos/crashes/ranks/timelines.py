"""Order what the ranks of a world did: its changes of the directory, and what had to happen before.

This is pure data, so it is tested without a run.

A *cut* has for each rank the number of its events that have happened. A crash can leave a cut only
if it is consistent: whatever an event depends on has happened, too. An event depends on

- the events of its own rank before it,
- for a collective of its rank before it, the launches of that collective in the ranks that it
  waits for,
- changes of paths that its rank had looked at, or that it changes itself, by other ranks before.

Where the order of two such events is unknown, each depends on the other. So a cut may be missing,
but none is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ...core.collectives import CollectiveRecord
from ..model import Kind, Node

__all__ = ["Cut", "Event", "Launch", "Look", "Meeting", "Op", "Timeline", "requirements"]

Cut = tuple[int, ...]
"""For each rank the number of its events that have happened."""

_WAITS_FOR_ALL = frozenset(
    {
        "all_reduce",
        "reduce_scatter",
        "all_gather",
        "all_to_all",
        "barrier",
        "monitored_barrier",
    }
)
_ROOT_WAITS = frozenset({"reduce", "gather"})
_OTHERS_WAIT = frozenset({"broadcast", "scatter"})


@dataclasses.dataclass(frozen=True, slots=True)
class Op:
    """A change of the directory by one rank.

    Attributes:
        kind: What happened.
        path: The path that changed.
        step: The number of steps that the rank had completed.
        sets: The entries that it left, by path, or None for a content that was not seen.
        removes: The paths that it removed, with all below them.
        source: For a file or directory that ``moved``, its path before.
        start: For a file that ``grew``, its length before.
        writes: The largest number of writes by which it grew, or 0 if this is unknown.
        unsynced: The paths whose data a power loss may still take.
        loose: The paths whose directory entries a power loss may still take.
        window: The times between which it happened.
    """

    kind: Kind
    path: str
    step: int
    sets: Mapping[str, Node | None] = dataclasses.field(default_factory=dict)
    removes: tuple[str, ...] = ()
    source: str | None = None
    start: int = 0
    writes: int = 0
    unsynced: frozenset[str] = frozenset()
    loose: frozenset[str] = frozenset()
    window: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Launch:
    """A collective, at the moment when a rank launches it."""

    record: CollectiveRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Meeting:
    """A call that returns only when all ranks have made it, for example of ``new_group``."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Hold what a rank saw of the files of others: a path, or the names in a directory.

    ``until`` is the time when it had seen it.
    """

    path: str
    listing: bool
    until: float


Event = Op | Launch | Meeting | Look


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """The events of one rank, in its own order."""

    rank: int
    events: Sequence[Event]

    def ops(self) -> Iterator[tuple[int, Op]]:
        """Yield the changes with their places."""
        for place, event in enumerate(self.events):
            if isinstance(event, Op):
                yield place, event


_Edges = dict[tuple[int, int], list[tuple[int, int]]]
"""For an event, those that must have happened before."""


def requirements(timelines: Sequence[Timeline]) -> list[list[Cut]]:
    """Return for each event of each rank the smallest consistent cut that has it."""
    edges: _Edges = {}
    _after_collectives(timelines, edges)
    _after_changes(timelines, edges)
    needs = [
        [
            tuple(place + 1 if rank == mine else 0 for rank in range(len(timelines)))
            for place in range(len(timeline.events))
        ]
        for mine, timeline in enumerate(timelines)
    ]
    changed = True
    while changed:  # events that depend on each other need several rounds
        changed = False
        for mine, cuts in enumerate(needs):
            for place, cut in enumerate(cuts):
                before = [cuts[place - 1]] if place else []
                before += [needs[rank][at] for rank, at in edges.get((mine, place), ())]
                whole = cut
                for one in before:
                    whole = tuple(map(max, whole, one))
                # The cut may have grown past this event's own rank's later events.
                for rank, count in enumerate(whole):
                    if count and rank != mine:
                        whole = tuple(map(max, whole, needs[rank][count - 1]))
                if whole[mine] > place + 1:
                    whole = tuple(map(max, whole, cuts[whole[mine] - 1]))
                if whole != cut:
                    cuts[place] = whole
                    changed = True
    return needs


# -- collectives -----------------------------------------------------------------------------------


def _after_collectives(timelines: Sequence[Timeline], edges: _Edges) -> None:
    """Let what follows a launch depend on the launches in the ranks that the collective waits for."""
    places: dict[tuple[object, ...], dict[int, int]] = {}
    for mine, timeline in enumerate(timelines):
        seen: dict[tuple[object, ...], int] = {}
        for place, event in enumerate(timeline.events):
            key = _key(event, timeline.rank)
            if key is not None:
                number = seen[key] = seen.get(key, -1) + 1
                places.setdefault((*key, number), {})[mine] = place
    _after_any_message(timelines, edges)
    ranks = [timeline.rank for timeline in timelines]
    for key, launches in places.items():
        for mine, place in launches.items():
            if place + 1 >= len(timelines[mine].events):
                continue
            for other, at in launches.items():
                if other != mine and _waits(key, ranks[mine], ranks[other]):
                    edges.setdefault((mine, place + 1), []).append((other, at))


def _key(event: Event, rank: int) -> tuple[object, ...] | None:
    """Return a key that is equal in the ranks that take part, and the same number of times."""
    if isinstance(event, Meeting):
        return ("meeting", event.name, None)
    if not isinstance(event, Launch):
        return None
    record = event.record
    if record.op == "send":
        return ("message", rank, record.peer, record.group, record.name, record.tag)
    if record.op == "recv":
        return ("message", record.peer, rank, record.group, record.name, record.tag)
    return (record.op, record.peer, record.group, record.name, record.sequence)


def _after_any_message(timelines: Sequence[Timeline], edges: _Edges) -> None:
    """A receive from any rank depends on the last message that was sent to its rank.

    The sender is not known, so this is more than it may need.
    """
    for mine, timeline in enumerate(timelines):
        for place, event in enumerate(timeline.events[:-1]):
            if not isinstance(event, Launch):
                continue
            if event.record.op == "recv" and event.record.peer is None:
                for other, theirs in enumerate(timelines):
                    sent = [at for at, one in enumerate(theirs.events) if _sends(one, timeline)]
                    if sent and other != mine:
                        edges.setdefault((mine, place + 1), []).append((other, sent[-1]))


def _sends(event: Event, to: Timeline) -> bool:
    if not isinstance(event, Launch):
        return False
    return event.record.op == "send" and event.record.peer == to.rank


def _waits(key: tuple[object, ...], mine: int, other: int) -> bool:
    """Return True if a collective in one rank ends only after its launch in the other."""
    op, root = key[0], key[1]
    if op == "message":
        return key[2] == mine  # the receiver waits for the sender
    if op in _ROOT_WAITS:
        return mine == root
    if op in _OTHERS_WAIT:
        return other == root
    return op == "meeting" or op in _WAITS_FOR_ALL


# -- files -----------------------------------------------------------------------------------------


def _after_changes(timelines: Sequence[Timeline], edges: _Edges) -> None:
    """A look or a change depends on the changes of others that may have come before it."""
    known = _Paths()
    for mine, timeline in enumerate(timelines):
        for place, op in timeline.ops():
            known.add(mine, place, op)
    for mine, timeline in enumerate(timelines):
        for place, event in enumerate(timeline.events):
            if isinstance(event, Op):
                # The order matters of what follows, too: the change itself is the one that waits.
                _depend(edges, mine, place, event.window[1], known.at(event))
            elif isinstance(event, Look) and place + 1 < len(timeline.events):
                _depend(edges, mine, place + 1, event.until, known.seen(event))


def _depend(
    edges: _Edges,
    mine: int,
    place: int,
    until: float,
    changes: Iterator[tuple[int, int, Op]],
) -> None:
    """Depend on the last change of each other rank that may have happened by that time."""
    last: dict[int, int] = {}
    for rank, at, op in changes:
        if rank != mine and op.window[0] <= until:
            last[rank] = max(at, last.get(rank, -1))
    edges.setdefault((mine, place), []).extend(last.items())


class _Paths:
    """The changes by path."""

    def __init__(self) -> None:
        self._at: dict[str, list[tuple[int, int, Op]]] = {}
        self._whole: dict[str, list[tuple[int, int, Op]]] = {}
        self._inside: dict[str, list[tuple[int, int, Op]]] = {}

    def add(self, rank: int, place: int, op: Op) -> None:
        """Add a change."""
        one = (rank, place, op)
        for path in _paths(op):
            self._at.setdefault(path, []).append(one)
            if _is_of_names(op):
                self._whole.setdefault(path, []).append(one)
                self._inside.setdefault(_above(path), []).append(one)

    def at(self, op: Op) -> Iterator[tuple[int, int, Op]]:
        """Yield the changes whose order with this one matters."""
        for path in _paths(op):
            yield from self._at.get(path, ())
            for above in _folders(path):
                yield from self._whole.get(above, ())
            if _is_of_names(op) and (op.kind in ("moved", "removed", "arrived")):
                for other, found in self._at.items():
                    if other.startswith(f"{path}/"):
                        yield from found

    def seen(self, look: Look) -> Iterator[tuple[int, int, Op]]:
        """Yield the changes that a look may show."""
        yield from self._at.get(look.path, ())
        for above in _folders(look.path):
            yield from self._whole.get(above, ())
        if look.listing:
            yield from self._inside.get(look.path, ())


def _paths(op: Op) -> set[str]:
    found = {op.path, *op.sets, *op.removes}
    return found if op.source is None else {*found, op.source}


def _is_of_names(op: Op) -> bool:
    """Return True if it changes which names there are, not only a content."""
    return op.kind not in ("grew", "truncated", "rewritten", "closed", "synced")


def _above(path: str) -> str:
    return path.rpartition("/")[0] if path else "\0"


def _folders(path: str) -> Iterator[str]:
    """Yield the directories above a path, with the root."""
    while path:
        path = _above(path)
        yield path

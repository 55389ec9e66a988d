"""Order what the ranks of a world did: its changes of the directory, and what had to happen before.

This is pure data, so it is tested without a run.

A *cut* has for each rank the number of its events that have happened. A crash can leave a cut only
if it is consistent: whatever an event depends on has happened, too. An event depends on

- the events of its own rank before it,
- for a collective that its rank has waited for, the launches of that collective in the ranks that
  it waits for,
- for a value that its rank has read from a store, the accesses that may have written it,
- changes of paths that its rank had looked at, or that it changes itself, by other ranks before.

Where the order of two such events is unknown, each depends on the other. So a cut may be missing,
but none is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ...core.collectives import CollectiveRecord
from ..model import Kind, Node

__all__ = [
    "Access",
    "Cut",
    "Event",
    "Launch",
    "Look",
    "Meeting",
    "Op",
    "StoreRead",
    "StoreWrite",
    "Timeline",
    "Waited",
    "requirements",
]

Cut = tuple[int, ...]
"""For each rank the number of its events that have happened."""

_ROOTED = frozenset({"gather", "scatter"})
"""In these, each rank waits for the root, and the root for each rank. In all other collectives, each
may wait for each: gloo passes a broadcast and a reduction through a tree of ranks, and no rank gets
rid of its data before the next one asks for it."""

_NEW_COUNTER = b"0"
"""A store takes a missing value for this when something is added."""


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
    """A collective, at the moment when a rank launches it.

    ``number`` is that of the launch in its rank, and ``at`` its time.
    """

    record: CollectiveRecord
    number: int = 0
    at: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Waited:
    """The moment when a rank has first learned that the collective of a launch is finished."""

    number: int
    at: float = float("inf")


@dataclasses.dataclass(frozen=True, slots=True)
class Meeting:
    """A call that returns only when some ranks have made it, for example of ``new_group``.

    ``ranks`` is None if all ranks make it.
    """

    name: str
    ranks: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """An access to a store of ``torch.distributed``.

    Attributes:
        keys: Its keys. Empty: it is about all keys.
        start: The time before it.
        end: The time after it, or infinity if it failed.
        saw: The value that it found, or None if this is unknown.
        wrote: The value that it left, or None if this is unknown.
    """

    keys: frozenset[str]
    start: float
    end: float = float("inf")
    saw: bytes | None = None
    wrote: bytes | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StoreWrite:
    """The beginning of an access that changes a value. Other ranks may see it from here on."""

    access: Access


@dataclasses.dataclass(frozen=True, slots=True)
class StoreRead:
    """The end of an access that has read a value, or waited for it."""

    access: Access


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Hold what a rank saw of the files of others: a path, or the names in a directory.

    ``until`` is the time when it had seen it.
    """

    path: str
    listing: bool
    until: float


Event = Op | Launch | Waited | Meeting | StoreWrite | StoreRead | Look


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
    _after_stores(timelines, edges)
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
    """Let what follows a collective depend on the launches in the ranks that it waits for."""
    ends = [_ends(timeline) for timeline in timelines]
    places: dict[tuple[object, ...], dict[int, int]] = {}
    for mine, timeline in enumerate(timelines):
        seen: dict[tuple[object, ...], int] = {}
        for place, event in enumerate(timeline.events):
            key = _key(event, timeline.rank)
            if key is not None:
                number = seen[key] = seen.get(key, -1) + 1
                places.setdefault((*key, number), {})[mine] = place
    unsure = _after_any_message(timelines, ends, edges)
    ranks = [timeline.rank for timeline in timelines]
    for key, launches in places.items():
        if key[0] == "message" and key[2] in unsure:
            continue
        for mine, place in launches.items():
            end = place if isinstance(timelines[mine].events[place], Meeting) else None
            if place in ends[mine]:
                end = ends[mine][place][0]
            if end is None or end + 1 >= len(timelines[mine].events):
                continue
            for other, at in launches.items():
                if other != mine and _waits(key, ranks[mine], ranks[other]):
                    edges.setdefault((mine, end + 1), []).append((other, at))


def _ends(timeline: Timeline) -> dict[int, tuple[int, float]]:
    """Return for each launch the place where its rank knows that it is finished, and the time.

    This is the launch itself if its rank waits at once, or if C++ code may do so unseen. A send that
    no code waits for is left out.
    """
    waited: dict[int, tuple[int, float]] = {}
    for place, event in enumerate(timeline.events):
        if isinstance(event, Waited):
            waited.setdefault(event.number, (place, event.at))
    found = {}
    for place, event in enumerate(timeline.events):
        if isinstance(event, Launch):
            if event.record.op == "send" and event.number not in waited:
                continue
            end, at = waited.get(event.number, (place, float("inf")))
            found[place] = (place, at) if event.record.waits else (max(place, end), at)
    return found


def _key(event: Event, rank: int) -> tuple[object, ...] | None:
    """Return a key that is equal in the ranks that take part, and the same number of times."""
    if isinstance(event, Meeting):
        return ("meeting", event.name, event.ranks)
    if not isinstance(event, Launch):
        return None
    record = event.record
    if record.op == "send":
        return ("message", rank, record.peer, record.group, record.name, record.tag)
    if record.op == "recv":
        return ("message", record.peer, rank, record.group, record.name, record.tag)
    return (record.op, record.peer, record.group, record.name, record.sequence)


def _after_any_message(
    timelines: Sequence[Timeline], ends: Sequence[dict[int, tuple[int, float]]], edges: _Edges
) -> set[int]:
    """Let the receives of a rank, if one is from any rank, and the sends to it depend on each other.

    It is unknown which of them met, so each depends on the last one that was launched before it
    was finished. Return these ranks.
    """
    unsure = set()
    for mine, timeline in enumerate(timelines):
        taken = [(at, one) for at, one in _launches(timeline) if one.record.op == "recv"]
        if all(one.record.peer is not None for _, one in taken):
            continue
        unsure.add(timeline.rank)
        for other, theirs in enumerate(timelines):
            if other != mine:
                sent = [
                    (at, one) for at, one in _launches(theirs) if _is_sent_to(one, timeline.rank)
                ]
                _meet(edges, (mine, taken, ends[mine]), (other, sent))
                _meet(edges, (other, sent, ends[other]), (mine, taken))
    return unsure


_Launches = list[tuple[int, Launch]]


def _launches(timeline: Timeline) -> _Launches:
    return [(at, one) for at, one in enumerate(timeline.events) if isinstance(one, Launch)]


def _meet(
    edges: _Edges,
    waiting: tuple[int, _Launches, dict[int, tuple[int, float]]],
    awaited: tuple[int, _Launches],
) -> None:
    mine, launches, ends = waiting
    other, theirs = awaited
    for place, _ in launches:
        if place not in ends:
            continue
        end, until = ends[place]
        met = [at for at, one in theirs if one.at <= until]
        if met:
            edges.setdefault((mine, end + 1), []).append((other, met[-1]))


def _is_sent_to(launch: Launch, rank: int) -> bool:
    return launch.record.op == "send" and launch.record.peer == rank


def _waits(key: tuple[object, ...], mine: int, other: int) -> bool:
    """Return True if a collective in one rank may end only after its launch in the other."""
    op, root = key[0], key[1]
    return op not in _ROOTED or root in (mine, other)


# -- stores ----------------------------------------------------------------------------------------


def _after_stores(timelines: Sequence[Timeline], edges: _Edges) -> None:
    """Let what follows a read of a store depend on the accesses that may have written the value."""
    writes = [
        _Write(mine, place, event.access)
        for mine, timeline in enumerate(timelines)
        for place, event in enumerate(timeline.events)
        if isinstance(event, StoreWrite)
    ]
    for mine, timeline in enumerate(timelines):
        for place, event in enumerate(timeline.events[:-1]):
            if not isinstance(event, StoreRead):
                continue
            last: dict[int, int] = {}
            for write in _seen_by(event.access, writes):
                if write.rank != mine:
                    last[write.rank] = max(write.place, last.get(write.rank, -1))
            edges.setdefault((mine, place + 1), []).extend(last.items())


@dataclasses.dataclass(frozen=True, slots=True)
class _Write:
    rank: int
    place: int
    access: Access


def _seen_by(read: Access, writes: Sequence[_Write]) -> Sequence[_Write]:
    """Return the writes that an access may have seen, with those that these may have seen.

    If the value that it saw is known, it comes from the writes that left this value. Else it may
    come from each write before its end.
    """
    before = [
        write
        for write in writes
        if write.access is not read
        and write.access.start <= read.end
        and (not (read.keys and write.access.keys) or read.keys & write.access.keys)
    ]
    if read.saw is None or any(write.access.wrote is None for write in before):
        return before
    found: list[_Write] = []
    wanted = [read.saw]
    for value in wanted:
        for write in before:
            if write.access.wrote == value and write not in found:
                found.append(write)
                if write.access.saw is not None:
                    wanted.append(write.access.saw)
    return found if found or read.saw == _NEW_COUNTER else before


# -- files -----------------------------------------------------------------------------------------


def _after_changes(timelines: Sequence[Timeline], edges: _Edges) -> None:
    """A look or a change depends on the changes of others that may have come before it."""
    known = _Paths()
    for mine, timeline in enumerate(timelines):
        for place, op in timeline.ops():
            if op.kind not in ("closed", "synced"):  # no other rank can tell
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

"""Put the changes of several ranks in order, in every way that shows a crash of one of them.

This is pure data, so it is tested without a run.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from ..model import Change, Node, StepEnd, Tree, tree_key
from .timelines import Cut, Op, Timeline, requirements

__all__ = ["Order", "orders", "step_ends"]

MAX_INNER_ORDERS = 64
"""``exhaustive`` tries at most this many more orders."""


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """The changes in one order that is possible.

    Attributes:
        changes: The changes, each with the whole directory before and after it.
        prefixes: For each change the start of the ids of its states.
        remarks: For each change the words that end the description of its states.
        before: For each change the cut before it.
        after: For each change the cut after it.
        ranks: For each change its rank.
    """

    changes: Sequence[Change]
    prefixes: Sequence[str]
    remarks: Sequence[str]
    before: Sequence[Cut]
    after: Sequence[Cut]
    ranks: Sequence[int]


def orders(start: Tree, timelines: Sequence[Timeline], *, inner: bool = False) -> list[Order]:
    """Return orders of the changes. Each beginning of one is a state that a crash can leave.

    In the order of a rank, that rank is as late as it can be. So before each of its changes, the
    others have gone on as far as they can without it: that rank has died, and they have stopped in
    the next collective that they share with it. In the last order all ranks go on together.

    Args:
        start: The directory at first.
        timelines: What each rank did.
        inner: True to add orders in which one rank is further ahead by each number of changes.
    """
    needs = requirements(timelines)
    found = [
        _order(start, timelines, _late(needs, mine), _late_words(timelines, mine))
        for mine in range(len(timelines))
    ]
    if len(timelines) > 1:
        found.append(_order(start, timelines, _together(timelines, needs), _together_words()))
    if inner:
        for mine, ahead in itertools.islice(_leads(timelines), MAX_INNER_ORDERS):
            events = _ahead(timelines, needs, mine, ahead)
            found.append(_order(start, timelines, events, _ahead_words(mine, ahead)))
    return found


def step_ends(start: Tree, timelines: Sequence[Timeline]) -> tuple[StepEnd, ...]:
    """Return the directory at the start, after each step, and at the end.

    After a step, all ranks have made all changes of this step and of those before it, and none of a
    later one. A step is left out if no moment has both, for example because a rank had to be a
    step ahead of the others.
    """
    needs = requirements(timelines)
    following = [_next_steps(timeline) for timeline in timelines]

    def first(cut: Cut) -> list[int]:
        return sorted(range(len(cut)), key=lambda rank: (following[rank][cut[rank]], rank))

    changes = _order(start, timelines, _walk(needs, first), _together_words()).changes
    found = [StepEnd(-1, start)]
    latest = list(itertools.accumulate((change.step for change in changes), max))
    for place, change in enumerate(changes):
        rest = [later.step for later in changes[place + 1 :]]
        if change.after is not None and latest[place] < min(rest, default=latest[place] + 1):
            found.append(StepEnd(latest[place], change.after))
    return tuple(
        one
        for number, one in enumerate(found)
        if not number or tree_key(one.tree) != tree_key(found[number - 1].tree)
    )


def _next_steps(timeline: Timeline) -> list[float]:
    """Return for each place the step of the next change from there on."""
    found: list[float] = [float("inf")]
    for event in reversed(timeline.events):
        found.append(event.step if isinstance(event, Op) else found[-1])
    return found[::-1]


# -- which event is next ---------------------------------------------------------------------------

_Steps = Iterator[tuple[Sequence[tuple[int, int]], Cut]]
"""Events (rank, place) that happen at once, and the cut after them."""


def _late(needs: Sequence[Sequence[Cut]], late: int) -> _Steps:
    """Let one rank go on only when no other can."""
    others = [rank for rank in range(len(needs)) if rank != late]
    return _walk(needs, lambda cut: [*others, late])


def _together(timelines: Sequence[Timeline], needs: Sequence[Sequence[Cut]]) -> _Steps:
    """Let the rank go on that has made the smallest number of changes."""
    return _ahead(timelines, needs, 0, 0)


def _ahead(
    timelines: Sequence[Timeline], needs: Sequence[Sequence[Cut]], mine: int, ahead: int
) -> _Steps:
    """Let one rank be that many changes ahead of the others, if it can."""
    made = [
        list(itertools.accumulate((isinstance(e, Op) for e in timeline.events), initial=0))
        for timeline in timelines
    ]

    def first(cut: Cut) -> list[int]:
        def progress(rank: int) -> tuple[int, int]:
            return made[rank][cut[rank]] - (ahead if rank == mine else 0), rank

        return sorted(range(len(cut)), key=progress)

    return _walk(needs, first)


def _walk(needs: Sequence[Sequence[Cut]], first: Callable[[Cut], Sequence[int]]) -> _Steps:
    """Yield the events. ``first`` has the ranks in the order in which they may go on."""
    cut = tuple(0 for _ in needs)
    ends = tuple(map(len, needs))
    while cut != ends:
        ranks = [rank for rank in first(cut) if cut[rank] < ends[rank]]
        wholes = [tuple(map(max, cut, needs[rank][cut[rank]])) for rank in ranks]
        sizes = [sum(whole) - sum(cut) for whole in wholes]
        # If no event can happen alone, some depend on each other.
        index = sizes.index(1) if 1 in sizes else sizes.index(min(sizes))
        whole = wholes[index]
        events = [
            (rank, place)
            for rank, (begin, end) in enumerate(zip(cut, whole, strict=True))
            for place in range(begin, end)
        ]
        yield events, whole
        cut = whole


def _leads(timelines: Sequence[Timeline]) -> Iterator[tuple[int, int]]:
    """Yield a rank, and by how many changes it is ahead."""
    most = max((sum(1 for _ in timeline.ops()) for timeline in timelines), default=0)
    for ahead in range(1, most):
        for mine in range(len(timelines)):
            yield mine, ahead


# -- in words --------------------------------------------------------------------------------------

_Words = Callable[[int], tuple[str, str]]
"""Returns for the rank of a change the start of the ids of its states, and a remark."""


def _late_words(timelines: Sequence[Timeline], late: int) -> _Words:
    alone = len(timelines) == 1
    mine = timelines[late].rank

    def words(rank: int) -> tuple[str, str]:
        number = timelines[rank].rank
        if alone:
            return f"rank{number}:", f" (in rank {number})"
        if rank == late:
            return f"rank{mine}:", f" (rank {mine} died there, the others went on)"
        return (
            f"rank{number}-before-rank{mine}:",
            f" (in rank {number}, while rank {mine} was behind)",
        )

    return words


def _together_words() -> _Words:
    return lambda rank: (f"all-at-rank{rank}:", f" (in rank {rank}, all ranks died at once)")


def _ahead_words(mine: int, ahead: int) -> _Words:
    return lambda rank: (
        f"rank{mine}+{ahead}-at-rank{rank}:",
        f" (in rank {rank}, all ranks died at once, with rank {mine} ahead)",
    )


# -- the directory ---------------------------------------------------------------------------------


def _order(start: Tree, timelines: Sequence[Timeline], steps: _Steps, words: _Words) -> Order:
    replay = _Replay(start, len(timelines))
    found: list[tuple[Change, str, str, Cut, Cut, int]] = []
    cut = tuple(0 for _ in timelines)
    for events, whole in steps:
        ops = [
            (rank, event)
            for rank, place in events
            if isinstance(event := timelines[rank].events[place], Op)
        ]
        # Changes whose order is unknown: the directory is only known after all of them.
        ops.sort(key=lambda one: one[1].window[1])
        for number, (rank, op) in enumerate(ops, 1):
            change = replay.apply(rank, op, first=number == 1, last=number == len(ops))
            found.append((change, *words(rank), cut, whole, rank))
        cut = whole
    columns = list(zip(*found, strict=True)) or [()] * 6
    return Order(*columns)


class _Replay:
    """A directory on which the changes of all ranks are repeated."""

    def __init__(self, start: Tree, ranks: int) -> None:
        self._tree: dict[str, Node | None] = dict(start)
        self._frozen: Tree | None = start
        self._unsynced: list[frozenset[str]] = [frozenset()] * ranks
        self._loose: list[frozenset[str]] = [frozenset()] * ranks

    def apply(self, rank: int, op: Op, *, first: bool, last: bool) -> Change:
        """Repeat a change. The directory is unknown between changes whose order is unknown."""
        before = self._frozen if first else None
        if op.kind not in ("closed", "synced"):
            self._tree = self._changed(op)
            self._frozen = _known(self._tree)
        after = self._frozen if last else None
        self._unsynced[rank], self._loose[rank] = op.unsynced, op.loose
        return Change(
            op.kind,
            op.path,
            op.step,
            before,
            after,
            op.start,
            op.source,
            frozenset().union(*self._unsynced),
            frozenset().union(*self._loose),
            op.writes,
        )

    def _changed(self, op: Op) -> dict[str, Node | None]:
        tree = self._tree
        if op.kind == "moved" and op.source is not None:
            tree = dict(_without(tree, op.path))
            moved = {name: node for name, node in tree.items() if _is_at(name, op.source)}
            tree = {name: node for name, node in tree.items() if name not in moved}
            tree |= {op.path + name[len(op.source) :]: node for name, node in moved.items()}
            # Its own files are known better than by what the others saw.
            return tree | {name: node for name, node in op.sets.items() if node is not None}
        for path in op.removes:
            tree = _without(tree, path)
        return {**tree, **op.sets}


def _without(tree: dict[str, Node | None], path: str) -> dict[str, Node | None]:
    return {name: node for name, node in tree.items() if not _is_at(name, path)}


def _is_at(name: str, path: str) -> bool:
    return name == path or not path or name.startswith(f"{path}/")


def _known(tree: dict[str, Node | None]) -> Tree | None:
    """Return the tree, or None if the content of a file is unknown."""
    found: dict[str, Node] = {}
    for name, node in tree.items():
        if node is None:
            return None
        found[name] = node
    return found

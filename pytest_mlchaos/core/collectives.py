"""Define what the sites of collectives and their faults share: names, keys, and the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from .sites import Key

__all__ = [
    "COLLECTIVE",
    "MAX_LOGGED",
    "OPERATIONS",
    "POINT_TO_POINT",
    "REDUCING",
    "REDUCING_OPERATIONS",
    "CollectiveLog",
    "CollectiveRecord",
    "across",
    "is_collective",
    "is_counted",
]

COLLECTIVE = "collective"
"""The site of all collectives of a rank. Those of one operation pass ``collective.<op>`` too."""
OPERATIONS = (
    *("all_reduce", "reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all"),
    *("gather", "scatter", "barrier", "monitored_barrier", "send", "recv"),
)
"""The operations, by their names in ``torch.distributed``."""
REDUCING_OPERATIONS = frozenset({"all_reduce", "reduce", "reduce_scatter"})
"""The operations that combine the contributions of ranks."""
POINT_TO_POINT = frozenset({"send", "recv"})
"""The operations between two ranks of a group."""
REDUCING: Key = (COLLECTIVE, "reducing")
"""The key that counts reducing operations only."""
MAX_LOGGED = 10_000
"""A log keeps this many of the last collectives of a rank."""

_ACROSS = "across "


class CollectiveRecord(NamedTuple):
    """One collective that a rank has launched.

    Attributes:
        group: The global numbers of the ranks of its group.
        sequence: Its number among the collectives of this group, from 0. A point-to-point operation
            has its number among those of the same kind with the same rank and tag.
        op: The name of the operation, for example ``"all_reduce"``.
        dtype: The type of its elements, for example ``"float32"``. Empty without a tensor.
        size: The number of elements that this rank gives, or receives in a scatter. 0 for a
            barrier.
        peer: The root of a rooted operation, or the rank at the other end, as a global number.
            None without one, or if it is any rank.
        tag: The tag of a point-to-point operation.
        waits: True if the caller waits for it at once. False if it goes on after the launch.
        step: The number of optimizer steps that the rank had begun.
        name: The name of its group, which tells groups of the same ranks apart. Empty if it has
            none.
    """

    group: tuple[int, ...]
    sequence: int
    op: str
    dtype: str
    size: int
    peer: int | None = None
    tag: int = 0
    waits: bool = False
    step: int = 0
    name: str = ""


class CollectiveLog(NamedTuple):
    """The last collectives of a rank, in the order of their launches.

    Attributes:
        records: At most ``MAX_LOGGED`` of them.
        total: The number of all that it launched.
    """

    records: tuple[CollectiveRecord, ...] = ()
    total: int = 0


def across(sides: Iterable[Iterable[int]]) -> Key:
    """Return the key that counts the operations between ranks of different sides.

    ``across([[0], [1, 2]])`` counts the collectives of groups with rank 0 and rank 1 or 2, and what
    these ranks send each other.
    """
    return COLLECTIVE, _ACROSS + "|".join(",".join(map(str, sorted(side))) for side in sides)


def is_collective(site: object) -> bool:
    """Return True for the name of a site of collectives."""
    return isinstance(site, str) and site.partition(".")[0] == COLLECTIVE


def is_counted(key: Key, op: str, members: Collection[int]) -> bool:
    """Return True if a key counts an operation between these ranks."""
    if isinstance(key, str):
        return key in (COLLECTIVE, f"{COLLECTIVE}.{op}")
    if key == REDUCING:
        return op in REDUCING_OPERATIONS
    sides = key[1].removeprefix(_ACROSS).split("|")
    touched = [side for side in sides if any(int(rank) in members for rank in side.split(","))]
    return len(touched) > 1

"""Choose the links between ranks that a fault disturbs, and disturb them at a visit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.faults import Fault, is_drawn
from ...core.links import Condition, Cut, Links
from ...core.sites import Visit
from ...core.validation import format_value, index, parse_positive_duration
from ...errors import BadArgument

__all__ = [
    "check_heal_after",
    "check_sides_in_world",
    "cut",
    "disturb",
    "is_chosen",
    "parse_groups",
    "parse_pair",
]


def is_chosen(value: object) -> bool:
    """Return True if the test gives a parameter, and does not let it be drawn."""
    return value is not None and not is_drawn(value)


def parse_groups(fault: str, value: Any) -> tuple[tuple[int, ...], ...]:
    """Return groups of ranks in their normal form: in order, and disjoint.

    Raises:
        BadArgument: They are fewer than two, one is empty, or they overlap.
    """
    groups = [_ranks(group) for group in value] if _is_list(value) else []
    if len(groups) < 2 or not all(groups):
        raise BadArgument(
            f"{fault}: groups must be two or more lists of ranks, as in [[0], [1, 2]], got "
            f"{format_value(value)}"
        )
    every = [rank for group in groups for rank in group]
    for rank in every:
        if every.count(rank) > 1:
            raise BadArgument(
                f"{fault}: groups must not overlap, but rank {rank} is in them more than once, got "
                f"{format_value(value)}"
            )
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def parse_pair(fault: str, value: object) -> tuple[int, int]:
    """Return the two ranks of a link."""
    ranks = _ranks(value)
    if len(ranks) != 2:
        raise BadArgument(
            f"{fault}: between must be two ranks, as in (0, 1), got {format_value(value)}"
        )
    if ranks[0] == ranks[1]:
        raise BadArgument(
            f"{fault}: between must be two different ranks, because a rank has no link to itself, "
            f"got {format_value(value)}"
        )
    return ranks[0], ranks[1]


def check_heal_after(fault: Fault) -> None:
    """Convert ``heal_after`` to seconds."""
    value = getattr(fault, "heal_after")  # noqa: B009  # each fault of links declares it
    if is_chosen(value):
        seconds = parse_positive_duration(value, f"{fault.name}: heal_after")
        object.__setattr__(fault, "heal_after", seconds)


def check_sides_in_world(fault: Fault, sides: Sequence[Sequence[int]], ranks: int) -> None:
    """Raise ``BadArgument`` if a world has no such links."""
    if ranks < 2:
        raise BadArgument(
            f"{fault.name}: a world of 1 rank has no links between ranks. Use "
            f"mlchaos.world(ranks=2)"
        )
    for rank in itertools.chain.from_iterable(sides):
        if rank >= ranks:
            raise BadArgument(
                f"{fault.name}: rank {rank} is not in this world, which has the ranks 0 to "
                f"{ranks - 1}"
            )


def cut(visit: Visit, peers: Sequence[int], heal_after: float | None, name: str) -> None:
    """Cut what this rank sends to its peers, for some time or for ever."""
    disturb(visit, peers, Cut(math.inf if heal_after is None else heal_after), name, "cut")


def disturb(
    visit: Visit, peers: Sequence[int], condition: Condition, name: str, effect: str
) -> None:
    """Give what this rank sends to its peers a condition.

    ``effect`` is the name of its effect in the journal. It counts as a strike when it has one: a
    byte is held, is late, or is changed.
    """
    visit.skip()
    links: Links | None = visit.attributes.get("links")
    if links is None:
        raise BadArgument(
            f"{name}: the links of this rank cannot be disturbed, because it is not a rank of "
            f"mlchaos.world(backend='gloo')"
        )
    rank: int = visit.attributes["rank"]
    # Another fault may strike at this visit, and the effect comes after it.
    recorder = visit.recorder
    noted: Mapping[str, Any] = {
        "op": visit.attributes.get("op"),
        "step": visit.attributes.get("step"),
        effect: ", ".join(f"{rank}-{peer}" for peer in sorted(peers)),
    }

    def took_effect(**details: Any) -> None:
        if recorder is not None:
            recorder({**noted, **details})

    links.impose([(rank, peer) for peer in peers], condition, took_effect)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _ranks(value: Any) -> tuple[int, ...]:
    """Return the numbers in a list of ranks, or none if an item is not a rank."""
    numbers = [index(item) for item in value] if _is_list(value) else []
    return () if None in numbers else tuple(number for number in numbers if number is not None)

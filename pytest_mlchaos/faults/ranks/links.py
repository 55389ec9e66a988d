"""Define faults of the links between ranks: they are cut, slow, or change what they carry."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.collectives import COLLECTIVE, across
from ...core.faults import is_drawn, register
from ...core.links import Flip, Slow
from ...core.sites import Key, Visit
from ...core.validation import format_value, parse_duration
from ...errors import BadArgument
from ..network import parse_rate
from .link_sides import (
    check_heal_after,
    check_sides_in_world,
    cut,
    disturb,
    is_chosen,
    parse_groups,
    parse_pair,
)
from .rank_fault import RankFault

__all__ = ["CorruptLink", "LinkFault", "NetworkPartition", "SlowLink"]
LAYER = "Ranks"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LinkFault(RankFault):
    """A fault of the links between the ranks of a world.

    Each rank disturbs what it sends, from its own visit on.
    """

    site = COLLECTIVE
    on_links = True

    @property
    def chosen(self) -> Any:
        """Return the parameter that chooses the links, or None if ``rank`` does."""
        raise NotImplementedError

    @property
    def sides(self) -> Sequence[Sequence[int]]:
        """Return the chosen ranks, by sides. A collective of ranks of two sides is counted."""
        raise NotImplementedError

    def peers_of(self, rank: int, ranks: int) -> list[int]:
        """Return the peers to which a rank sends over disturbed links, in a world of ``ranks``."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse two different choices of links."""
        if self.chosen is not None and self.rank is not None:
            raise BadArgument(
                f"{self.name}: rank= chooses all links of one rank, so it excludes "
                f"{'groups' if hasattr(self, 'groups') else 'between'}=. Give one of them"
            )

    @property
    def searchable(self) -> tuple[str, ...]:  # type: ignore[override]  # given links are not searched
        """Return the rank whose links are disturbed, unless the test gives the links."""
        return () if self.chosen is not None else ("rank",)

    @property
    def key(self) -> Key:
        """Count the collectives between the sides, or all if the rank is searched."""
        return across(self.sides) if is_chosen(self.chosen) else COLLECTIVE

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the ranks that send over disturbed links."""
        if "rank" not in process:
            return False
        if not is_chosen(self.chosen) and not is_chosen(self.rank):
            return True
        return bool(self.peers_of(process["rank"], process["world_size"]))

    def check_world(self, ranks: int) -> None:
        """Refuse a world without these links."""
        super().check_world(ranks)
        check_sides_in_world(self, self.sides if is_chosen(self.chosen) else (), ranks)

    def _peers(self, visit: Visit) -> list[int]:
        return self.peers_of(visit.attributes["rank"], visit.attributes["world_size"])


@register
class NetworkPartition(LinkFault):
    """The network between groups of ranks is cut, while inside each group it works.

    Nothing passes, and no connection is closed: each side waits for its own time limit. ``at``
    counts the collectives of process groups with ranks of two sides. With ``rank=``, that rank is
    cut off from all others. Without ``groups`` and ``rank``, the rank is searched.

    Args:
        groups: The groups of ranks, as in ``[[0], [1, 2]]``. Each rank of the world is in one.
        heal_after: Seconds (or ``"500ms"``) until the links work again. What was sent in the
            meantime then arrives. Without it, they stay cut.
        real: If true, each rank has a network namespace of its own (Linux, without root), and the
            kernel drops the packets. The test is skipped if the kernel does not allow it.

    Imitates: a switch or an uplink that fails, a firewall rule, an availability zone that is cut
    off.

    Fidelity: each rank cuts what it sends from its own visit on, so earlier collectives are
    complete. ``heal_after`` is real time. The rendezvous store stays reachable, and a restarted
    world finds a healthy network. With ``real=True``, TCP sends lost packets again, which takes up
    to some seconds more, and ranks reach only each other.

    Source: Bailis and Kingsbury, The Network is Reliable, ACM Queue 2014,
    https://queue.acm.org/detail.cfm?id=2655736

    Example: @chaos.network_partition(groups=[[0], [1]], at=3)
    """

    groups: Any = None
    heal_after: Any = None
    real: bool = False

    @property
    def chosen(self) -> Any:
        """Return the groups."""
        return self.groups

    @property
    def sides(self) -> Sequence[Sequence[int]]:
        """Return the groups."""
        groups: Sequence[Sequence[int]] = self.groups
        return groups

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if is_chosen(self.groups):
            object.__setattr__(self, "groups", parse_groups(self.name, self.groups))
        check_heal_after(self)

    def check_world(self, ranks: int) -> None:
        """Also refuse groups that leave out a rank."""
        super().check_world(ranks)
        if not is_chosen(self.groups):
            return
        named = {rank for side in self.sides for rank in side}
        for rank in range(ranks):
            if rank not in named:
                raise BadArgument(
                    f"{self.name}: groups must name each rank of the world, but rank {rank} is in "
                    f"none of them, got {format_value(self.groups)}"
                )

    def peers_of(self, rank: int, ranks: int) -> list[int]:
        """Return the ranks of the other groups."""
        everyone = range(ranks)
        if self.groups is None:
            return [peer for peer in everyone if (peer == self.rank) != (rank == self.rank)]
        side = next((side for side in self.sides if rank in side), ())
        return [peer for side_ in self.sides if side_ is not side for peer in side_] if side else []

    def apply(self, visit: Visit) -> None:
        """Cut what this rank sends to the other groups."""
        cut(visit, self._peers(visit), self.heal_after, self.name)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _PairFault(LinkFault):
    """A fault of the link between two ranks."""

    random = True
    between: Any = None

    @property
    def chosen(self) -> Any:
        """Return the two ranks."""
        return self.between

    @property
    def sides(self) -> Sequence[Sequence[int]]:
        """Return each rank as a side."""
        return [[rank] for rank in self.between]

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if is_chosen(self.between):
            object.__setattr__(self, "between", parse_pair(self.name, self.between))


@register
class SlowLink(_PairFault):
    """The link between two ranks is slow, from one collective on.

    ``at`` counts the collectives of process groups with both ranks. With ``rank=``, all links of
    that rank are slow. Without ``between`` and ``rank``, the rank is searched.

    Args:
        between: The two ranks, as in ``(0, 1)``.
        delay: Seconds, or ``"50ms"``, that bytes need in each direction. It is 50 ms if neither it
            nor ``bandwidth`` nor ``jitter`` is given.
        bandwidth: Bytes in a second, or ``"10MB/s"``, in each direction.
        jitter: The largest number of seconds that is added to a delay. The seed draws it.
        heal_after: Seconds until the link is fast again. Without it, it stays slow.

    Imitates: a congested or misconfigured switch, ranks in different zones, a network card that has
    fallen back to a lower rate.

    Fidelity: all times are real time. A collective passes several messages, so a step takes several
    delays. Packets are not lost or reordered. A link holds up to 64 MiB before the sender waits.

    Source: tc-netem(8), https://man7.org/linux/man-pages/man8/tc-netem.8.html

    Example: @chaos.slow_link(between=(0, 1), delay="50ms", at=2)
    """

    delay: Any = None
    bandwidth: Any = None
    jitter: Any = None
    heal_after: Any = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        for name in ("delay", "jitter"):
            if is_chosen(getattr(self, name)):
                seconds = parse_duration(getattr(self, name), f"{self.name}: {name}")
                object.__setattr__(self, name, seconds)
        if is_chosen(self.bandwidth):
            object.__setattr__(self, "bandwidth", parse_rate(self.bandwidth, self.name))
        check_heal_after(self)

    def peers_of(self, rank: int, ranks: int) -> list[int]:
        """Return the other end of the link, or of each link of the chosen rank."""
        if self.between is not None:
            return [peer for peer in self.between if peer != rank] if rank in self.between else []
        return [peer for peer in range(ranks) if (peer == self.rank) != (rank == self.rank)]

    def apply(self, visit: Visit) -> None:
        """Slow down what this rank sends over the link."""
        given = self.delay, self.bandwidth, self.jitter
        condition = Slow(
            0.05 if given == (None, None, None) else self.delay or 0.0,
            self.bandwidth or math.inf,
            self.jitter or 0.0,
            visit.seed,
            self.heal_after or math.inf,
        )
        disturb(visit, self._peers(visit), condition, self.name, "slow")


@register
class CorruptLink(_PairFault):
    """Bits of one message between two ranks arrive inverted, below the collective.

    The receiver works on with wrong values, and often passes them on: after an all-reduce, all
    ranks can agree on a wrong result. ``at`` counts the collectives of process groups with both
    ranks. With ``rank=``, that rank sends the message to any peer. Without ``between`` and
    ``rank``, the rank is searched.

    Args:
        between: The sender and the receiver, as in ``(0, 1)``.
        bits: The number of bits that are inverted in the message.

    Imitates: a faulty network card, cable or switch memory whose errors pass TCP's 16-bit checksum.

    Fidelity: it strikes the payload of the next message from the sender. If the sender has nothing
    to send in this collective, that is one of a later collective. gloo's own headers are not
    changed, because a wrong header ends the connection, which ``blackhole`` and ``rank_failure``
    cover.

    Source: Stone and Partridge, When the CRC and TCP Checksum Disagree, SIGCOMM 2000

    Example: @chaos.corrupt_link(between=(0, 1), bits=1, at=4)
    """

    bits: int = 1

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.bits) and self.bits < 1:
            raise BadArgument(f"{self.name}: bits must be 1 or more, got {self.bits}")

    def peers_of(self, rank: int, ranks: int) -> list[int]:
        """Return the receivers of what this rank sends."""
        if self.between is not None:
            return [self.between[1]] if rank == self.between[0] else []
        return [peer for peer in range(ranks) if peer != rank] if rank == self.rank else []

    def apply(self, visit: Visit) -> None:
        """Invert bits of the next message that this rank sends."""
        disturb(visit, self._peers(visit), Flip(self.bits, visit.seed), self.name, "corrupt")

"""Define faults of the nodes of an elastic world: one is lost, and comes back later."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value, index
from ...errors import BadArgument

__all__ = ["NodeLoss", "RankRejoin"]
LAYER = "Ranks"


class NodeFault(Fault):
    """A fault of the nodes of an elastic world."""

    needs = ("torch", "torch")
    random = False
    ends_process = True
    strikes_processes = True
    needs_nodes = True

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the ranks that may be struck. They belong to an elastic world."""
        return "nodes" in process and super().applies_to(process)

    def probe(self, visit: Visit) -> None:
        """Report that any rank of this world can be struck."""
        visit.measure(rank=visit.attributes["world_size"])


@register
class NodeLoss(NodeFault):
    """A node of an elastic world is lost: its agent and all ranks on it get SIGKILL at once.

    The other agents notice it after a few seconds. They start the job again in a smaller world, if
    ``min_ranks`` allows it. ``at`` counts the visits of one rank: ``rank``, or the lowest of
    ``ranks``.

    Args:
        ranks: The ranks that are lost: all ranks of one node or more, as they are numbered at that
            moment. Without it, the node of ``rank`` is lost.
        site: Any site. The node is lost before the operation there takes effect.

    Imitates: a machine that loses power, a spot instance that is taken away, a kernel panic.

    Fidelity: all nodes are processes of one machine, so a peer notices the loss at once by its
    closed connections. The store where the nodes meet is not lost with any node. The agents look
    for lost nodes more often than torchrun does, which waits 15 seconds by default.

    Source: torchrun removes a node whose heartbeat is missing, and forms a smaller world,
    https://pytorch.org/docs/stable/elastic/rendezvous.html

    Example: @chaos.node_loss(ranks=[1], at=5)
    """

    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    ranks: Any = None

    def check(self) -> None:
        """Refuse wrong ``ranks``."""
        ranks = self.ranks
        if ranks is None or is_drawn(ranks):
            return
        if isinstance(ranks, (str, bytes)) or not hasattr(ranks, "__iter__"):
            ranks = ()
        numbers = tuple(ranks)
        if not numbers or any(index(one) is None for one in numbers):
            raise BadArgument(
                f"{self.name}: ranks must be a list of ranks (0, 1, ...), got "
                f"{format_value(self.ranks)}"
            )
        if self.rank is not None:
            raise BadArgument(f"{self.name}: ranks= and rank= exclude each other. Give one of them")
        object.__setattr__(self, "ranks", tuple(sorted({*numbers})))

    @property
    def searchable(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the parameter that is searched, unless ``ranks`` is given."""
        return ("rank",) if self.ranks is None else ()

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Return the ranks that are lost, as far as they are given."""
        given: tuple[int, ...] = () if self.ranks is None or is_drawn(self.ranks) else self.ranks
        return given

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the rank whose visits count."""
        lost = self.lost_ranks
        return super().applies_to(process) and (not lost or process["rank"] == lost[0])

    def apply(self, visit: Visit) -> None:
        """End the nodes."""
        nodes = visit.attributes["nodes"]
        lost = self.lost_ranks or nodes.of(visit.attributes["rank"])
        visit.note(lost=lost)
        visit.defer(functools.partial(nodes.lose, lost))


@register
class RankRejoin(NodeFault):
    """A node that was lost comes back, and its ranks join the world.

    The agents notice it, stop all ranks by SIGTERM, and start them again in a larger world. The
    fault strikes only if a node is missing, so combine it with ``node_loss``. ``at`` counts the
    visits of ``rank`` (without it, of rank 0) in all attempts so far.

    Args:
        site: Any site. The node comes back before the operation there takes effect.

    Imitates: a machine that was restarted, a spot instance that was replaced.

    Fidelity: the rank waits at this visit until its agent stops it. In a cluster it takes a few
    more steps.

    Source: torchrun restarts all workers when a node joins,
    https://pytorch.org/docs/stable/elastic/run.html#membership-changes

    Example: @chaos.rank_rejoin(rank=0, at=8)
    """

    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter

    def check(self) -> None:
        """Refuse a search: in the trial without faults, no node is missing at any visit."""
        if self.at is None and self.p is None:
            raise BadArgument(f"{self.name}: give at=, the visit at which a node comes back")

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in one rank, so that one node comes back at a visit."""
        return super().applies_to(process) and process["rank"] == (self.rank or 0)

    def apply(self, visit: Visit) -> None:
        """Bring a node back."""
        nodes = visit.attributes["nodes"]
        if not nodes.missing:
            visit.skip()
            return
        visit.note(missing=nodes.missing)
        visit.defer(nodes.rejoin)

"""Define the shape of an elastic world, and how its ranks reach their nodes."""

from __future__ import annotations

import dataclasses
import os
import pickle
import socket
import time

from ...core.validation import format_value, index
from ...errors import BadArgument, MlchaosError

__all__ = ["ElasticOptions", "Nodes", "check_lost", "check_nodes"]

REJOIN_SECONDS = 30.0
"""The time limit for the agents to notice a node that has come back."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElasticOptions:
    """The shape of an elastic world.

    Attributes:
        nodes: The number of nodes at the start, each with an agent of its own.
        per_node: The number of ranks on each node.
        min_nodes: The smallest number of nodes that goes on.
        restarts: The number of restarts that an agent may make after a failure.
        timeout: The time limit of a rendezvous, in seconds.
    """

    nodes: int
    per_node: int
    min_nodes: int
    restarts: int
    timeout: float

    @property
    def most_attempts(self) -> int:
        """Return the largest number of attempts that a sound world can need."""
        return (self.restarts + 2) * self.nodes + 10


@dataclasses.dataclass(frozen=True)
class Nodes:
    """Let a fault in a rank end nodes, or bring them back. It is an attribute of the process.

    Attributes:
        per_node: The number of ranks on each node.
        missing: The number of nodes that are not part of this attempt.
        requests: A socket to the process that keeps the nodes.
    """

    per_node: int
    missing: int
    requests: int

    def of(self, rank: int) -> tuple[int, ...]:
        """Return the ranks on the node of this rank."""
        first = rank - rank % self.per_node
        return tuple(range(first, first + self.per_node))

    def lose(self, ranks: tuple[int, ...]) -> None:
        """End the nodes of these ranks. This rank is on one of them, so this does not return."""
        self._ask("lose", ranks)
        _wait()
        raise MlchaosError("the node of this rank could not be ended")

    def rejoin(self) -> None:
        """Bring one lost node back. Wait until the agents end this attempt because of it."""
        self._ask("rejoin")
        _wait()
        raise MlchaosError(
            f"a node came back, and its agent did not reach the others within {REJOIN_SECONDS:g} s"
        )

    def _ask(self, *message: object) -> None:
        with socket.socket(fileno=os.dup(self.requests)) as requests:
            requests.send(pickle.dumps(message))


def _wait() -> None:
    """Wait for the signal that ends this process. A handler of the subject may run meanwhile."""
    until = time.monotonic() + REJOIN_SECONDS
    while time.monotonic() < until:
        time.sleep(0.05)


def check_nodes(
    owner: str,
    *,
    ranks: int,
    elastic: bool,
    min_ranks: int | None,
    nodes: int | None,
    restarts: int,
    timeout: float,
) -> ElasticOptions | None:
    """Return the shape of an elastic world, or None for a world without agents."""
    if not elastic:
        for name, value in (("min_ranks", min_ranks), ("nodes", nodes)):
            if value is not None:
                raise BadArgument(f"{owner}: {name}= needs elastic=True")
        return None
    count = ranks if nodes is None else nodes
    if not index(count) or ranks % count:
        raise BadArgument(
            f"{owner}: nodes must be a number that divides ranks={ranks}, got {format_value(nodes)}"
        )
    per_node = ranks // count
    fewest = ranks if min_ranks is None else min_ranks
    if not index(fewest) or fewest > ranks or fewest % per_node:
        whole = "" if per_node == 1 else f" that divides by the {per_node} ranks of a node"
        raise BadArgument(
            f"{owner}: min_ranks must be a number from 1 to {ranks}{whole}, got "
            f"{format_value(min_ranks)}"
        )
    return ElasticOptions(
        nodes=count,
        per_node=per_node,
        min_nodes=fewest // per_node,
        restarts=restarts,
        timeout=timeout,
    )


def check_lost(
    name: str, lost: tuple[int, ...], ranks: int, options: ElasticOptions | None
) -> None:
    """Refuse a fault of nodes that does not fit the world."""
    if options is None:
        raise BadArgument(
            f"{name} strikes nodes, and this world has none. Use mlchaos.world(elastic=True), or "
            f"rank_failure for a single rank"
        )
    if lost and lost[-1] >= ranks:
        raise BadArgument(
            f"{name}: ranks must be below {ranks}, because this world has {ranks} ranks, got "
            f"{format_value(lost)}"
        )
    node = options.per_node
    whole = {one for rank in lost for one in range(rank - rank % node, rank - rank % node + node)}
    if whole != {*lost}:
        raise BadArgument(
            f"{name}: ranks must be all ranks of a node, because its agent ends with them. Each "
            f"node has {node} ranks, so give {sorted(whole)}, got {format_value(lost)}"
        )

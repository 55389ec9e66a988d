"""Run a script in ranks, as torchrun does (``mlchaos.torchrun``)."""

from __future__ import annotations

from collections.abc import Callable

from ..core.validation import format_value, index
from ..errors import BadArgument
from .api import World
from .verdicts import WorldRun

__all__ = ["OWNER", "torchrun"]

OWNER = "mlchaos.torchrun"


def torchrun(
    world: Callable[..., World],
    subject: Callable[..., None],
    *,
    nproc: int,
    nnodes: int,
    min_nodes: int | None,
) -> WorldRun:
    """Run a script in an elastic world of this shape.

    Args:
        world: A function that makes the world of a shape.
        subject: The script, as a function.
        nproc: The number of ranks on each node.
        nnodes: The number of nodes.
        min_nodes: The smallest number of nodes with which the job goes on, or None for all.
    """
    fewest = nnodes if min_nodes is None else min_nodes
    for name, value in (("nproc", nproc), ("nnodes", nnodes), ("min_nodes", fewest)):
        if not index(value):
            raise BadArgument(f"{OWNER}: {name} must be 1 or more, got {format_value(value)}")
    return world(
        ranks=nproc * nnodes,
        elastic=True,
        nodes=nnodes,
        min_ranks=nproc * fewest,
        owner=OWNER,
    ).run(subject)

"""Define faults of the place where ranks meet: its store goes away, or a rank comes too late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import parse_positive_duration
from ...engine.world_store import world_store
from .rank_fault import RankFault

__all__ = ["RendezvousTimeout", "StoreFailure"]
LAYER = "Ranks"


@register
class StoreFailure(RankFault):
    """The store where the ranks of a world meet goes away, or answers no more, until the restart.

    A world has one store. ``at`` counts the visits of rank 0, or of the rank that you give.

    Args:
        site: Any site. The store fails before the operation there takes effect.
        mode: ``"down"`` (its connections are closed, and new ones are refused) or ``"frozen"``
            (requests are accepted and never answered).

    Imitates: the node that hosts the store is lost, an etcd without a quorum (``down``); a host
    that swaps, a process that is stopped, a partition between the ranks and the store (``frozen``).

    Fidelity: the store is a process of its own, which gets SIGKILL or SIGSTOP. Connections between
    ranks stay as they are, so collectives of existing groups work. A store that the ranks host
    themselves (a port of their own) is not struck. Under ``elastic=True`` the agents lose their
    store, too, and end the world, as torchrun does.

    Source: https://pytorch.org/docs/stable/distributed.html#torch.distributed.TCPStore

    Example: @chaos.store_failure(mode="down", at=3)
    """

    searchable = ()
    needs_own_store = True
    strikes_processes = True
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    mode: Literal["down", "frozen"] = "down"

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the rank whose visits are counted: rank 0, unless the test names one."""
        return super().applies_to(process) and (self.rank is not None or process.get("rank") == 0)

    def apply(self, visit: Visit) -> None:
        """End or stop the process of the store."""
        if self.mode == "down":
            world_store.end()
        else:
            world_store.freeze()


@register
class RendezvousTimeout(RankFault):
    """A rank comes too late to the meeting of the ranks, or its meeting times out.

    ``at`` counts the calls of ``init_process_group`` in that rank.

    Args:
        late: The time by which the rank comes late: seconds, or ``"3s"``. The others wait for it,
            up to the ``timeout`` that they gave. Without it, the call of this rank fails at once
            with the error of a time-out.

    Imitates: a node whose container image is still being pulled, a scheduler that starts ranks
    minutes apart, a firewall between the ranks and the store.

    Fidelity: without ``late``, no time passes before the error. The other ranks wait in their own
    call, as they would.

    Source: https://pytorch.org/docs/stable/elastic/rendezvous.html

    Example: @chaos.rendezvous_timeout(rank=1, at=0)
    """

    site = "rendezvous"
    late: Any = None

    def check(self) -> None:
        """Convert the delay to seconds."""
        if self.late is not None and not is_drawn(self.late):
            seconds = parse_positive_duration(self.late, f"{self.name}: late")
            object.__setattr__(self, "late", seconds)

    def apply(self, visit: Visit) -> None:
        """Wait, or raise what torch raises at the end of the time."""
        if self.late is not None:
            visit.sleep(self.late)
            return
        from torch.distributed import DistStoreError

        size = visit.attributes.get("world_size")
        visit.fail(
            DistStoreError(
                f"Timed out waiting for clients. The rendezvous of {size} ranks was not complete "
                f"(injected by mlchaos)"
            )
        )

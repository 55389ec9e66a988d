"""Define faults of distributed training, which strike one rank of a world."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from ..core.faults import Fault, register
from ..core.sites import Visit
from ..errors import SimulatedCrash

__all__ = ["RankFailure"]
LAYER = "Ranks"


@register
class RankFailure(Fault):
    """One rank of a world (``mlchaos.world``) dies, hangs or raises while the others go on.

    ``at`` counts the visits of that rank alone. Without ``rank=``, the rank is searched.

    Args:
        site: Any site. The rank fails before the operation there takes effect.
        mode: ``"kill"`` (its process gets SIGKILL), ``"hang"`` (its main thread stops, its process
            stays) or ``"raise"`` (a ``RuntimeError``).

    Imitates: a node that is lost, the kernel's OOM killer, a spot instance that is taken away
    (``kill``); a deadlock, a kernel that does not end, a storage mount that blocks (``hang``); a
    driver or data error in one process (``raise``).

    Fidelity: all ranks are processes of one machine, so a peer notices a death at once by its
    closed connections. Behind a network that drops packets it would wait for a timeout. While a
    rank hangs, its other threads run.

    Source: gloo and NCCL abort a collective when a peer's connection breaks, and otherwise wait for
    the process group's time-out, https://pytorch.org/docs/stable/distributed.html

    Example: @chaos.rank_failure(rank=1, mode="kill", at=5)
    """

    needs = ("torch", "torch")
    random = False
    searchable = ("rank",)
    ends_process = True
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    mode: Literal["kill", "hang", "raise"] = "kill"

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the ranks that may be struck. The test's own process is never one of them."""
        return "rank" in process and super().applies_to(process)

    def probe(self, visit: Visit) -> None:
        """Report that any rank of this world can be struck."""
        visit.measure(rank=visit.attributes["world_size"])

    def apply(self, visit: Visit) -> None:
        """Die, hang or raise."""
        if self.mode == "kill":
            visit.fail(
                SimulatedCrash(f"the rank died at {visit.site} {visit.index} (injected by mlchaos)")
            )
        if self.mode == "hang":
            visit.sleep(math.inf)
        else:
            visit.fail(
                RuntimeError(
                    f"rank {visit.attributes.get('rank')} failed at {visit.site} {visit.index} "
                    f"(injected by mlchaos)"
                )
            )

"""Define the base class of faults that strike in the ranks of a world."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ...core.faults import Fault
from ...core.sites import Visit

__all__ = ["RankFault"]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class RankFault(Fault):
    """A fault of one rank. Without ``rank=``, the rank is searched."""

    needs = ("torch", "torch")
    random = False
    searchable: ClassVar[tuple[str, ...]] = ("rank",)

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the ranks that may be struck. The test's own process is never one of them."""
        return "rank" in process and super().applies_to(process)

    def probe(self, visit: Visit) -> None:
        """Report that any rank of this world can be struck."""
        visit.measure(rank=visit.attributes["world_size"])

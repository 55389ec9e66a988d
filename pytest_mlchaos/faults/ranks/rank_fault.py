"""Define the base class of faults that strike in the ranks of a world."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ...core.faults import Fault
from ...core.sites import Visit

__all__ = ["RankFault", "note_collective"]


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


def note_collective(visit: Visit) -> None:
    """Note in the journal which collective is struck, if the site is one."""
    at = visit.attributes
    facts = {name: at.get(name) for name in ("op", "step", "sequence")}
    visit.note(**{name: value for name, value in facts.items() if value is not None})

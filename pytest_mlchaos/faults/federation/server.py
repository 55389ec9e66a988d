"""Define the fault of a federation's server: it restarts."""

from __future__ import annotations

from typing import Any

from ...core.faults import Fault, register
from ...core.federation import Mishap
from ...core.sites import Visit
from .base import round_of

__all__ = ["ServerRestart"]
LAYER = "Federations"


@register
class ServerRestart(Fault):
    """The server of a federation dies after the clients have trained, before it aggregates.

    A new server repeats the round. It has the global model of the last complete round, or what
    ``restore=`` of ``mlchaos.federation`` returns. Everything else in the memory of the aggregation
    is as at the start, except for what its ``state_dict()`` held after the last complete round.
    ``at`` counts the rounds, also repeated ones.

    Imitates: a container that is moved, an update of the server, a kill for lack of memory.

    Fidelity: module-level variables of the server survive, because the process lives on. Clients
    keep their state, and train again.

    Example: @chaos.server_restart(at=1)
    """

    site = "federation.round"
    random = False
    ends_process = True

    def apply(self, visit: Visit) -> Any:
        """Let the server die in this round."""
        current = round_of(self, visit)
        visit.note(round=current.number)
        return current.with_mishap(Mishap(fault=self.name, effect="server_restart"))

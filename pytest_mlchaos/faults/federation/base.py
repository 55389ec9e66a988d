"""Define the base class of the faults that strike clients of a federation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...core.faults import Fault, is_drawn
from ...core.federation import Mishap, Round
from ...core.sites import Visit
from ...core.validation import format_value, index
from ...errors import BadArgument, PayloadMismatch

__all__ = ["LAYER", "ClientFault", "check_rounds", "round_of"]

LAYER = "Federations"


def round_of(fault: Fault, visit: Visit) -> Round:
    """Return the round that is visited."""
    if not isinstance(visit.payload, Round):
        raise PayloadMismatch(
            f"{fault.name} strikes rounds of mlchaos.federation, got {type(visit.payload).__name__}"
        )
    return visit.payload


def check_rounds(fault: Fault, rounds: Any) -> None:
    """Raise ``BadArgument`` unless this is a number of rounds."""
    if rounds is not None and not is_drawn(rounds) and rounds < 1:
        raise BadArgument(f"{fault.name}: rounds must be 1 or more, got {format_value(rounds)}")


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ClientFault(Fault):
    """A fault that strikes some clients in a round. ``at`` counts the rounds.

    Args:
        client: The number of a client, or a list of numbers. Without it, the client is searched.
    """

    site = "federation.round"
    random = False
    searchable = ("client",)
    client: Any = None

    def __post_init__(self) -> None:
        client = self.client
        if isinstance(client, Sequence) and not isinstance(client, (str, bytes)):
            object.__setattr__(self, "client", tuple(client))
        super().__post_init__()
        numbers = self._numbers()
        if not is_drawn(client) and (None in numbers or (client is not None and not numbers)):
            raise BadArgument(
                f"{self.name}: client must be the number of a client (0, 1, ...) or a list of "
                f"them, got {format_value(client)}"
            )

    def _numbers(self) -> tuple[int | None, ...]:
        if self.client is None or is_drawn(self.client):
            return ()
        return tuple(map(index, self.client if isinstance(self.client, tuple) else [self.client]))

    def probe(self, visit: Visit) -> None:
        """Report that any client can be struck."""
        visit.measure(client=round_of(self, visit).size)

    def struck_clients(self, number: Round) -> tuple[int, ...]:
        """Return the clients of this fault that take part in a round."""
        return tuple(one for one in self._numbers() if one in number.clients and one is not None)

    def possible(self, visit: Visit) -> bool:
        """Return False if none of the clients takes part in the round."""
        current = visit.payload
        if not isinstance(current, Round) or self.client is None or is_drawn(self.client):
            return True
        return bool(self.struck_clients(current))

    def mishap(self, clients: tuple[int, ...]) -> Mishap:
        """Return the effect on these clients. Each fault defines it."""
        raise NotImplementedError

    def apply(self, visit: Visit) -> Any:
        """Strike the clients that take part in the round."""
        current = round_of(self, visit)
        unknown = [one for one in self._numbers() if one is not None and one >= current.size]
        if unknown:
            raise PayloadMismatch(
                f"{self.name}: client must be below {current.size}, the number of clients, got "
                f"{unknown[0]}"
            )
        clients = self.struck_clients(current)
        if not clients or not self.possible(visit):
            visit.skip()
            return None
        visit.note(round=current.number, client=clients[0] if len(clients) == 1 else clients)
        return current.with_mishap(self.mishap(clients))

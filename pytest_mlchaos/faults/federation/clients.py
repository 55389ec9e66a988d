"""Define faults of a federation's clients: they drop out, and their updates come late or twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import Fault, is_drawn, register
from ...core.federation import Mishap, Round
from ...core.sites import Visit
from .base import ClientFault, check_rounds, round_of

__all__ = ["AllClientsGone", "ClientDropout", "DuplicateUpdate", "LateUpdate"]
LAYER = "Federations"


@register
class ClientDropout(ClientFault):
    """A client of a federation (``mlchaos.federation``) sends no update in a round.

    ``at`` counts the rounds.

    Args:
        client: The number of the client, or a list of numbers. Without it, the client is searched.
        when: ``"before"``: it does not train. ``"after"``: it trains, and its update is lost. If
            the rounds are searched, both are tried.

    Imitates: a phone that leaves its charger, a hospital's firewall, a client that crashes or runs
    out of memory.

    Fidelity: the server notices at once, so no timeout passes.

    Example: @chaos.client_dropout(client=3, at=1)
    """

    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"when": ("before", "after")}
    when: Literal["before", "after"] = "before"

    def mishap(self, clients: tuple[int, ...]) -> Mishap:
        """Let the clients be silent, or lose their updates."""
        effect: Literal["silent", "lost"] = "silent" if self.when == "before" else "lost"
        return Mishap(fault=self.name, effect=effect, clients=clients)


@register
class AllClientsGone(Fault):
    """From a round on, no client of a federation sends an update.

    ``at`` counts the rounds, and no client answers in those after it either.

    Args:
        rounds: The number of rounds without clients. Without it, all that follow.

    Imitates: an expired certificate, a server address that changed, a release that no client can
    run.

    Fidelity: clients do not train. The server notices at once, so no timeout passes.

    Source: Flower's FedAvg returns a model without arrays if no client ever answers.

    Example: @chaos.all_clients_gone(at=0)
    """

    site = "federation.round"
    random = False
    rounds: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        check_rounds(self, self.rounds)

    @property
    def is_consecutive(self) -> bool:
        """Return True: rounds from one on are struck."""
        return isinstance(self.at, tuple) and len(self.at) == 1

    def apply(self, visit: Visit) -> Any:
        """Let all clients be silent."""
        current = round_of(self, visit)
        over = self.rounds is not None and visit.index >= self.rounds + (
            self.at[0] if self.is_consecutive else visit.index
        )
        if over:
            visit.skip()
            return None
        visit.note(round=current.number)
        return current.with_mishap(Mishap(fault=self.name, effect="silent"))


@register
class LateUpdate(ClientFault):
    """A client's update arrives some rounds later, beside the client's fresh one.

    ``at`` counts the rounds: that in which the client trains.

    Args:
        client: The number of the client, or a list of numbers. Without it, the client is searched.
        rounds: The number of rounds after which it arrives.

    Imitates: a slow phone, a queue that is delivered after an outage, asynchronous federated
    learning.

    Fidelity: it arrives after the other updates of its round. It is the client's update of the
    earlier round, unchanged.

    Source: Xie et al., Asynchronous Federated Optimization, 2019. Nguyen et al., Federated Learning
    with Buffered Asynchronous Aggregation, AISTATS 2022.

    Example: @chaos.late_update(client=3, at=1)
    """

    rounds: int = 1

    def check(self) -> None:
        """Check the parameters."""
        check_rounds(self, self.rounds)

    def possible(self, visit: Visit) -> bool:
        """Return False if the federation ends before the update would arrive."""
        current = visit.payload
        late = not isinstance(current, Round) or is_drawn(self.rounds)
        return super().possible(visit) and (late or current.left >= self.rounds)

    def mishap(self, clients: tuple[int, ...]) -> Mishap:
        """Keep the updates back."""
        return Mishap(fault=self.name, effect="late", clients=clients, rounds=self.rounds)


@register
class DuplicateUpdate(ClientFault):
    """A client's update arrives twice in one round.

    ``at`` counts the rounds.

    Args:
        client: The number of the client, or a list of numbers. Without it, the client is searched.

    Imitates: a client that sends again because the reply to its first message was lost, a queue
    that delivers at least once.

    Fidelity: the copy is equal, and arrives right after the first one.

    Example: @chaos.duplicate_update(client=3, at=1)
    """

    def mishap(self, clients: tuple[int, ...]) -> Mishap:
        """Let the updates arrive twice."""
        return Mishap(fault=self.name, effect="twice", clients=clients)

"""Define what faults of federations see and change: a round, and what it does to its clients."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["Change", "Effect", "Mishap", "Round"]

Effect: TypeAlias = Literal["silent", "lost", "late", "twice", "changed", "server_restart"]


class Change(Protocol):
    """A change of what a client learns from, or of what it sends."""

    @property
    def of_data(self) -> bool:
        """Return True if it changes the client's data, and False if it changes the update."""
        ...

    def __call__(self, value: Any, base: Any = None) -> Any:
        """Return a changed copy.

        Args:
            value: The client's data, or its parameters: arrays, nested in dicts and lists.
            base: The global parameters that the client received, in the same form. None if updates
                are differences from these.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """The effect of one fault on a round.

    Attributes:
        fault: The fault's name.
        effect: ``silent``: the client does not train, and sends nothing. ``lost``: it trains, and
            its update is lost. ``late``: its update arrives some rounds later. ``twice``: its
            update arrives twice. ``changed``: its data or its update is changed.
            ``server_restart``: the server dies before it aggregates.
        clients: The clients that it concerns. None for all.
        rounds: The number of rounds after which a late update arrives.
        change: The change.
    """

    fault: str
    effect: Effect
    clients: tuple[int, ...] | None = None
    rounds: int = 1
    change: Change | None = None

    def concerns(self, client: int) -> bool:
        """Return True if it concerns this client."""
        return self.clients is None or client in self.clients


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round of a federation that is about to begin, as faults see it.

    Attributes:
        number: The number of the round, from 0.
        left: The number of rounds after this one.
        clients: The clients that take part.
        size: The number of all clients.
        has_data: True if the federation knows the data of its clients.
        mishaps: What faults do to it.
    """

    number: int
    left: int
    clients: tuple[int, ...]
    size: int
    has_data: bool = False
    mishaps: tuple[Mishap, ...] = ()

    def with_mishap(self, mishap: Mishap) -> Round:
        """Return a copy with one more mishap."""
        return dataclasses.replace(self, mishaps=(*self.mishaps, mishap))

    def has(self, effect: Effect, client: int) -> bool:
        """Return True if a fault has this effect on a client."""
        return any(one.effect == effect and one.concerns(client) for one in self.mishaps)

"""Exchange messages between a server and its clients for one round, under faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from ..core.federation import Change, Mishap, Round
from ..core.phases import raised
from ..core.privacy import error_text
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.error_origin import describe_swallower
from ..errors import CrashSwallowed, MlchaosError, SimulatedCrash, Verdict
from ..runs.supervisor import snapshot_value
from ..sites.federation import ROUND
from .records import History, RoundRecord

__all__ = ["Exchange", "ServerDied", "changes_of"]

Ask: TypeAlias = Callable[[int, Sequence[Change]], Any]
"""A function that lets a client train on its data, perhaps changed, and returns its update."""
Alter: TypeAlias = Callable[[Any, Sequence[Mishap]], Any]
"""A function that returns an update that these mishaps have changed."""


class ServerDied(BaseException):
    """The server dies in this round. Its state is lost.

    It is not an ``Exception``, because a server that catches errors must not survive its own death.
    """


class Exchange:
    """Send the requests of each round, and deliver the updates.

    Args:
        controller: The controller of the trial.
        history: The record of the federation.
        size: The number of clients.
        rounds: The number of rounds.
        has_data: True if the data of the clients is known.
        revive: A function that restores the disk after a crash of a client or the server.
    """

    def __init__(
        self,
        controller: Controller,
        history: History,
        *,
        size: int,
        rounds: int,
        has_data: bool,
        revive: Callable[[], None],
    ) -> None:
        self._controller, self._history = controller, history
        self._size, self._rounds, self._has_data = size, rounds, has_data
        self._revive = revive
        self._held: list[tuple[int, int, Any]] = []  # (round of arrival, client, update)
        self._strikes = len(controller.journal)
        # The clients that do not answer in the current round.
        self.silent: frozenset[int] = frozenset()

    @property
    def struck(self) -> bool:
        """Return True if a fault has struck this federation."""
        return len(self._controller.journal) > self._strikes

    def round(self, number: int, clients: Sequence[int], ask: Ask, alter: Alter) -> list[Any]:
        """Let the clients train, and return the updates that reach the server.

        Raises:
            ServerDied: The server died in this round.
        """
        record = RoundRecord(number, tuple(clients))
        self._history.rounds.append(record)
        current = self._visited(record)
        self.silent = frozenset(one for one in clients if current.has("silent", one))
        updates: list[Any] = []
        for client in clients:
            self._note(record, current, client)
            if client in self.silent:
                continue
            update = self._asked(current, client, ask, record)
            if client in record.failed or current.has("lost", client):
                continue
            if changes := _changes(current, client, of_data=False):
                update = alter(update, changes)
            late = [one for one in current.mishaps if one.effect == "late" and one.concerns(client)]
            if late:
                self._held.append((number + late[0].rounds, client, update))
                continue
            updates.append(update)
            record.answered.append(client)
            if current.has("twice", client):
                updates.append(snapshot_value(update))
                record.answered.append(client)
        self._deliver_late(number, record, updates)
        if any(one.effect == "server_restart" for one in current.mishaps):
            record.restarted = True
            raise ServerDied
        return updates

    def _visited(self, record: RoundRecord) -> Round:
        left = self._rounds - 1 - record.number
        begun = Round(
            number=record.number,
            left=left,
            clients=record.clients,
            size=self._size,
            has_data=self._has_data,
        )
        attributes = {"round": record.number, "clients": record.clients}
        current = self._controller.visit(ROUND, begun, attributes)
        return current if isinstance(current, Round) else begun

    @staticmethod
    def _note(record: RoundRecord, current: Round, client: int) -> None:
        found = [
            one.fault
            for one in current.mishaps
            if one.concerns(client) and one.effect != "server_restart"
        ]
        if found:
            record.struck[client] = list(dict.fromkeys(found))

    def _deliver_late(self, number: int, record: RoundRecord, updates: list[Any]) -> None:
        """Deliver the updates of earlier rounds that arrive now."""
        for arrival, client, update in self._held:
            if arrival <= number:
                updates.append(update)
                record.answered.append(client)
                record.late.append(client)
        self._held = [one for one in self._held if one[0] > number]

    def _asked(self, current: Round, client: int, ask: Ask, record: RoundRecord) -> Any:
        """Return the update of a client. An error counts as a failed client."""
        changes = changes_of(_changes(current, client, of_data=True))
        randomness.seed_all("federation", record.number, client)
        try:
            with self.process(f"client {client}"):
                return ask(client, changes)
        except Exception as error:
            self.refuse(error)
            raised(error)
            if not self.has_crashed(error) and not self.struck:
                raise
            record.failed[client] = str(error) if isinstance(error, _Crashed) else error_text(error)
            return None

    def has_crashed(self, error: BaseException) -> bool:
        """Return True if a crash or an injected error ended a process."""
        return isinstance(error, _Crashed) or self._controller.is_injected(error)

    def refuse(self, error: BaseException) -> None:
        """Raise the errors that are not outcomes: those of the test, and of faults."""
        if self._controller.broken is not None:
            raise self._controller.broken from error
        if isinstance(error, MlchaosError) and not isinstance(error, Verdict):
            raise error

    @contextlib.contextmanager
    def process(self, what: str) -> Iterator[None]:
        """Run one process of the federation. A simulated crash ends only this one."""
        controller = self._controller
        try:
            with controller.attempt(goes_on=True):
                yield
        except SimulatedCrash as crash:
            self._restart()
            raise _Crashed(f"{what} crashed: {crash}") from None
        if controller.crash is None:
            return
        place = describe_swallower(controller.crash)
        crash_text = str(controller.crash)
        self._restart()
        if place is not None:
            raise CrashSwallowed(place)
        raise _Crashed(f"{what} crashed: {crash_text}")

    def _restart(self) -> None:
        self._controller.restart()
        self._revive()


class _Crashed(Exception):
    """A simulated crash ended one process of the federation."""


def _changes(current: Round, client: int, *, of_data: bool) -> list[Mishap]:
    return [
        one
        for one in current.mishaps
        if one.change is not None and one.concerns(client) and one.change.of_data == of_data
    ]


def changes_of(mishaps: Sequence[Mishap]) -> list[Change]:
    """Return the changes in these mishaps."""
    return [one.change for one in mishaps if one.change is not None]

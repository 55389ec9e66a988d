"""Run a federation of plain functions: the plugin plays the server's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.federation import Change, Mishap
from ..core.phases import raised
from ..core.records import too_many_ended
from ..engine import randomness
from ..engine.controller import Controller
from ..errors import BadArgument, GaveUp
from ..runs.inputs import Inputs
from ..runs.supervisor import snapshot_value
from .data import Data
from .exchange import Exchange, ServerDied
from .options import Options, required_arguments
from .records import History
from .updates import changed_update

__all__ = ["MAX_RESTARTS", "PlainFederation", "check_restarts"]

MAX_RESTARTS = 8
"""The largest number of times that a server restarts, as for ``mlchaos.run``."""


def check_restarts(history: History) -> None:
    """Count a restart of the server. Raise ``GaveUp`` if there are too many."""
    history.restarts += 1
    if history.restarts > MAX_RESTARTS:
        text = too_many_ended("the server", history.restarts, "the largest number of restarts")
        raise GaveUp(text)


class PlainFederation:
    """The loop of a federation: send the parameters, collect the updates, aggregate.

    It is called with the user's functions and data, because a golden run gets copies of them.
    """

    def __init__(self, controller: Controller, options: Options) -> None:
        self._controller, self._options = controller, options
        # Restores the disk after a crash. The runner, which needs this loop, sets it.
        self.revive: Callable[[], None] = lambda: None

    def __call__(
        self, client: Callable[..., Any], aggregate: Callable[..., Any], parameters: Any, data: Any
    ) -> History:
        """Run all rounds."""
        options, history = self._options, History()
        known = Data(data, options.clients)
        clients = _Clients(client, known, options)
        exchange = Exchange(
            self._controller,
            history,
            size=options.clients,
            rounds=options.rounds,
            has_data=known.is_known,
            revive=self.revive,
        )
        server = _Server(aggregate, options)
        _keep(history, parameters)
        number = 0
        while number < options.rounds:
            try:
                self._round(number, clients, server, exchange, history)
            except ServerDied:
                check_restarts(history)
                restored = server.restart(history.values[0])
                if restored is not None:
                    history.values[-1] = history.models[-1] = restored[0]
                continue
            except _Refused as refused:
                history.error = refused.error
                break
            number += 1
        return history

    def _round(
        self,
        number: int,
        clients: _Clients,
        server: _Server,
        exchange: Exchange,
        history: History,
    ) -> None:
        sent, first = history.values[-1], history.values[0]
        differences = self._options.updates == "differences"

        def alter(update: Any, mishaps: Sequence[Mishap]) -> Any:
            return changed_update(update, sent, first, mishaps, differences=differences)

        def ask(client: int, changes: Sequence[Change]) -> Any:
            return clients.train(client, number, sent, changes)

        updates = exchange.round(number, self._options.sample(number), ask, alter)
        randomness.seed_all("federation", number, "server")
        try:
            with exchange.process("the server"):
                value = server.aggregate(updates, sent, number)
        except Exception as error:
            exchange.refuse(error)
            if exchange.has_crashed(error):
                raise ServerDied from error
            if not exchange.struck:
                raise
            raised(error)
            raise _Refused(error) from error
        _keep(history, value)
        server.save()


class _Refused(Exception):
    """The server ended the federation with an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _keep(history: History, value: Any) -> None:
    copy = snapshot_value(value)
    history.values.append(copy)
    history.models.append(copy)


class _Clients:
    """Call the user's function for a client, as a message over a network would."""

    def __init__(self, client: Callable[..., Any], data: Data, options: Options) -> None:
        self._client, self._data, self._options = client, data, options
        self._takes = required_arguments(client)
        needs = 3 if data.is_passed else 2
        if self._takes > needs or (data.is_passed and self._takes < needs):
            rule = "parameters, config and data" if data.is_passed else "parameters and config"
            raise BadArgument(
                f"mlchaos.federation: client must be a function of {rule}, got one that needs "
                f"{self._takes} arguments"
            )

    def train(self, client: int, number: int, sent: Any, changes: Sequence[Change]) -> Any:
        config = {
            **self._options.config,
            "round": number,
            "client": client,
            "clients": self._options.clients,
        }
        given = [snapshot_value(sent), config][: self._takes]
        if self._data.is_passed:
            given.append(self._data.of(client, changes))
        with self._data.loaded(changes):
            return snapshot_value(self._client(*given))


class _Server:
    """Call the user's aggregation, and restart it from what a checkpoint would hold."""

    def __init__(self, aggregate: Callable[..., Any], options: Options) -> None:
        self._inputs = Inputs(aggregate, ())
        self._function: Callable[..., Any] = self._inputs.first()
        self._options = options
        self._takes = required_arguments(aggregate)
        self._saved: Any = None
        self.save()

    def aggregate(self, updates: list[Any], sent: Any, number: int) -> Any:
        config = {**self._options.config, "round": number, "clients": self._options.clients}
        given = [updates, snapshot_value(sent), config][: max(1, self._takes)]
        return self._function(*given)

    @property
    def _stateful(self) -> Any:
        """Return the object that holds the state of the aggregation, if it can save it."""
        function = getattr(self._function, "func", self._function)
        for owner in (function, getattr(function, "__self__", None)):
            if hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict"):
                return owner
        return None

    def save(self) -> None:
        """Save the state after a complete round."""
        owner = self._stateful
        self._saved = None if owner is None else snapshot_value(owner.state_dict())

    def restart(self, first: Any) -> tuple[Any] | None:
        """Start a new server. Return the parameters that it has restored itself, if it does so."""
        self._function = self._inputs.again()
        owner = self._stateful
        if owner is not None and self._saved is not None:
            owner.load_state_dict(snapshot_value(self._saved))
        if self._options.restore is None:
            return None
        restored = self._options.restore()
        return (snapshot_value(first if restored is None else restored),)

"""Run the apps of Flower in process: a grid of our own carries their messages.

It takes a ``ClientApp`` with a strategy, or with a ``ServerApp`` whose ``main`` calls the strategy's
``start``.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core.federation import Change, Mishap
from ..core.phases import raised
from ..core.privacy import error_text
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.patching import Patches
from ..errors import BadArgument
from ..runs.inputs import Inputs
from ..runs.supervisor import snapshot_value
from .data import Data
from .exchange import Exchange, ServerDied, changes_of
from .options import Options
from .plain import check_restarts
from .records import History
from .updates import same_form

__all__ = ["FlowerFederation", "as_arrays", "evaluate_client", "is_client_app"]

LIBRARY = "flwr"
MAX_WAITS = 1000
"""The number of times that a strategy may look for clients before a round begins."""


def is_client_app(client: object) -> bool:
    """Return True for an app of Flower."""
    cls = getattr(sys.modules.get(f"{LIBRARY}.clientapp"), "ClientApp", None)
    return cls is not None and isinstance(client, cls)


class FlowerFederation:
    """The loop of a federation of Flower apps, which is that of the strategy.

    It is called with the user's apps and data, because a golden run gets copies of them.
    """

    def __init__(self, controller: Controller, options: Options) -> None:
        self._controller, self._options = controller, options
        # Restores the disk after a crash. The runner, which needs this loop, sets it.
        self.revive: Callable[[], None] = lambda: None

    def __call__(self, client: Any, server: Any, parameters: Any, data: Any) -> History:
        """Run all rounds."""
        options, history = self._options, History()
        known = Data(data, options.clients)
        if known.is_passed:
            raise BadArgument(
                "mlchaos.federation: data must be 'pkg.mod:function' for a ClientApp, which loads "
                "its data itself"
            )
        exchange = Exchange(
            self._controller,
            history,
            size=options.clients,
            rounds=options.rounds,
            has_data=known.is_known,
            revive=self.revive,
        )
        inputs, subject = Inputs(self._start, (server,)), server
        model = None if parameters is None else as_arrays(parameters)
        with _surroundings():
            messages = _Messages(exchange, history, _Apps(client, known, options), options)
            while True:
                messages.begin()
                try:
                    with exchange.process("the server"):
                        result = self._start(subject, messages, model)
                    messages.keep(result)
                    break
                except ServerDied:
                    pass
                except _errors() as error:
                    exchange.refuse(error)
                    if not exchange.has_crashed(error):
                        if not exchange.struck:
                            raise
                        raised(error)
                        history.error = error
                        break
                check_restarts(history)
                subject = inputs.again().args[0]
                model = history.values[-1] if history.values else model
        if not history.values:
            raise BadArgument(
                "mlchaos.federation: the server sent no message to train. Let main() call start() "
                "of a strategy with the grid"
            )
        return history

    def _start(self, server: Any, messages: _Messages, model: Any) -> Any:
        """Let the server run, and return the global model at the end."""
        grid, start = _grid(messages), getattr(server, "start", None)
        if callable(start):
            left = self._options.rounds - messages.first
            return start(grid=grid, initial_arrays=model, num_rounds=left).arrays
        results: list[Any] = []
        with _results_of_strategies(results):
            server(grid, _context(0, self._options))
        if not results:
            raise BadArgument(
                "mlchaos.federation: the ServerApp must call start() of a strategy, whose result "
                "is the global model"
            )
        return results[-1].arrays


def _errors() -> tuple[type[BaseException], ...]:
    """Return what a server may raise. In some versions, Flower's own are not an ``Exception``."""
    from flwr.app.exception import AppExitException

    return (Exception, AppExitException)


def as_arrays(parameters: Any) -> Any:
    """Return parameters as an ``ArrayRecord``: a list of arrays, or a dict of arrays or tensors."""
    from flwr.app import Array, ArrayRecord

    if isinstance(parameters, ArrayRecord):
        return parameters
    if isinstance(parameters, Mapping):
        return ArrayRecord({name: Array(_numpy(value)) for name, value in parameters.items()})
    if isinstance(parameters, Sequence):
        return ArrayRecord([_numpy(value) for value in parameters])
    raise BadArgument(
        f"mlchaos.federation: parameters must be an ArrayRecord, a list or a dict of arrays, got "
        f"{type(parameters).__name__}"
    )


def _numpy(value: Any) -> Any:
    import numpy as np

    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def plain(arrays: Any) -> dict[str, Any]:
    """Return the arrays of a record by name, as NumPy arrays."""
    return {name: array.numpy() for name, array in arrays.items()}


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """Give messages an identity, and keep the library's log to errors."""
    log = logging.getLogger(LIBRARY)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with _identity():
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _identity() -> Iterator[None]:
    """Set the numbers that a message needs, if this version asks for them."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        yield
        return
    names = ("_task_id", "_run_id", "_node_id")
    before = [getattr(TaskIdentity, name, None) for name in names]
    for name in names:
        setattr(TaskIdentity, name, 1)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(TaskIdentity, name, value)


@contextlib.contextmanager
def _results_of_strategies(results: list[Any]) -> Iterator[None]:
    """Append the result of each strategy that is started inside."""
    from flwr.serverapp.strategy import Strategy

    original = Strategy.start

    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        results.append(result)
        return result

    with Patches() as patches:
        patches.set(Strategy, "start", start)
        yield


def _context(client: int, options: Options) -> Any:
    """Return the context of a client, or of the server."""
    from flwr.app import Context, RecordDict

    node: dict[str, Any] = {"partition-id": client, "num-partitions": options.clients}
    return Context(1, client + 1, node, RecordDict(), dict(options.config))


class _Apps:
    """Let the ClientApp answer messages, each client with a context of its own."""

    def __init__(self, app: Any, data: Data, options: Options) -> None:
        self._app, self._data = app, data
        self._contexts = {client: _context(client, options) for client in range(options.clients)}
        self._sent = 0

    def answer(self, client: int, message: Any, changes: Sequence[Change] = ()) -> Any:
        """Return the reply to a copy of a message."""
        message = snapshot_value(message)
        self._sent += 1
        # A grid of Flower sets these two, which have no setter.
        message.metadata.__dict__.update(_message_id=f"message {self._sent}", _src_node_id=0)
        with self._data.loaded(changes):
            return self._app(message, self._contexts[client])


def evaluate_client(app: Any, options: Options) -> Callable[[Any, int], Mapping[str, Any]]:
    """Return a function that lets a client evaluate a model. Its metrics are those of the reply."""

    def evaluate(arrays: Any, client: int) -> Mapping[str, Any]:
        from flwr.app import ConfigRecord, Message, RecordDict

        with _surroundings():
            content = RecordDict({"arrays": arrays, "config": ConfigRecord()})
            message = Message(content, client + 1, "evaluate")
            reply = _Apps(app, Data(None, options.clients), options).answer(client, message)
        records = reply.content.metric_records.values()
        return {name: value for record in records for name, value in record.items()}

    return evaluate


class _Messages:
    """Carry the messages of each round under faults."""

    def __init__(self, exchange: Exchange, history: History, apps: _Apps, options: Options) -> None:
        self._exchange, self._history, self._apps, self._options = exchange, history, apps, options
        self.first = 0  # the number of the round with which this server begins
        self._rounds = 0
        self._waits = 0

    def begin(self) -> None:
        """Begin with a new server."""
        self.first = max(0, len(self._history.values) - 1)
        self._rounds = 0

    def keep(self, arrays: Any) -> None:
        """Keep the global model after a round, or at the start."""
        self._history.values.append(arrays)
        self._history.models.append(plain(arrays))

    def nodes(self) -> list[int]:
        """Return the numbers of the clients, from 1, because 0 is the server."""
        self._waits += 1
        if self._waits > MAX_WAITS:
            raise BadArgument(
                f"mlchaos.federation: the strategy waits for more than {self._options.clients} "
                f"clients. Give clients=, or a smaller min_available_nodes"
            )
        return list(range(1, self._options.clients + 1))

    def send(self, messages: Iterable[Any]) -> list[Any]:
        """Return the replies of the clients, in the order of their numbers."""
        asked = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        sent = {message.metadata.dst_node_id - 1: message for message in asked}
        self._waits = 0
        if any(one.metadata.message_type.startswith("train") for one in asked):
            return self._train(sent)
        return self._answer(sent)

    def _train(self, sent: dict[int, Any]) -> list[Any]:
        from flwr.app import Error, Message

        number = self.first + self._rounds
        request = _arrays_of(next(iter(sent.values())))
        # A restarted server repeats a round with a model that is known.
        if len(self._history.values) == number:
            self.keep(next(iter(request.values())))
        replies = self._exchange.round(
            number,
            tuple(sent),
            lambda client, changes: self._apps.answer(client, sent[client], changes),
            lambda reply, mishaps: _altered(reply, request, mishaps, self._options),
        )
        self._rounds += 1
        randomness.seed_all("federation", number, "server")
        failed = self._history.rounds[-1].failed
        errors = [Message(Error(0, text), reply_to=sent[client]) for client, text in failed.items()]
        return [*replies, *errors]

    def _answer(self, sent: dict[int, Any]) -> list[Any]:
        """Let the clients evaluate. Those that are gone in this round do not answer."""
        from flwr.app import Error, Message

        exchange, replies = self._exchange, []
        for client, message in sent.items():
            if client in exchange.silent:
                continue
            try:
                with exchange.process(f"client {client}"):
                    replies.append(self._apps.answer(client, message))
            except Exception as error:  # noqa: BLE001  # any app may fail
                exchange.refuse(error)
                raised(error)
                replies.append(Message(Error(0, error_text(error)), reply_to=message))
        return replies


def _grid(carrier: _Messages) -> Any:
    """Return a grid whose clients are functions of this process."""
    from flwr.app import Message
    from flwr.serverapp import Grid

    class InProcessGrid(Grid):  # type: ignore[misc]  # Flower may be missing
        """Hand messages to the carrier."""

        def set_run(self, run: Any) -> None:
            """Ignore the run, which has no server of Flower."""

        @property
        def run(self) -> Any:
            raise NotImplementedError("a grid of mlchaos.federation has no run of Flower")

        def create_message(
            self,
            content: Any,
            message_type: str,
            dst_node_id: int,
            group_id: str,
            ttl: float | None = None,
        ) -> Any:
            return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

        def get_node_ids(self) -> list[int]:
            return carrier.nodes()

        def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
            raise NotImplementedError("use send_and_receive with mlchaos.federation")

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
            raise NotImplementedError("use send_and_receive with mlchaos.federation")

        def send_and_receive(
            self, messages: Iterable[Any], *, timeout: float | None = None
        ) -> Iterable[Any]:
            return carrier.send(messages)

    return InProcessGrid()


def _arrays_of(message: Any) -> dict[str, Any]:
    return dict(message.content.array_records.items())


def _altered(
    reply: Any, request: Mapping[str, Any], mishaps: Sequence[Mishap], options: Options
) -> Any:
    """Return a reply whose arrays are changed."""
    from flwr.app import Array, ArrayRecord

    if not reply.has_content():
        return reply
    for name, record in _arrays_of(reply).items():
        value = plain(record)
        sent = request.get(name, next(iter(request.values())))
        base: Any = plain(sent)
        if options.updates == "differences" or not same_form(base, value):
            base = None
        for change in changes_of(mishaps):
            value = change(value, base)
        fresh = {key: Array(_numpy(array)) for key, array in value.items()}
        reply.content[name] = ArrayRecord(fresh)
    return reply

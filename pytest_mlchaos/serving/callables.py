"""Serve callables of one request: functions, coroutine functions, generators and models.

The items of a generator are the chunks of its reply, with their times.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from ..core.clients import Client, Leave
from ..core.phases import raised
from ..core.privacy import data_text, error_text, remember_text
from ..core.replies import Chunk
from ..errors import BadArgument, MlchaosError, ServiceFailed
from .requests import Answer, PreparedRequest

__all__ = [
    "BatchHandler",
    "CoroutineTarget",
    "FunctionTarget",
    "Method",
    "StreamRequest",
    "SyncCall",
    "SyncTarget",
]

Keep = Callable[[Any], Any]
Now = Callable[[], float]


class SyncCall(Protocol):
    """One request in an app that blocks its thread."""

    def run(self) -> None:
        """Let the app answer."""
        ...

    def answer(self) -> Answer:
        """Return the answer."""
        ...


class SyncTarget(Protocol):
    """Define what threads can serve: a WSGI app, or a function."""

    def start(self) -> None:
        """Start the app."""
        ...

    def begin(self, request: PreparedRequest, payload: Any, client: Client | None) -> SyncCall:
        """Return the call for one request.

        Args:
            request: The request.
            payload: What a fault made of it, or None for the request itself.
            client: The client that a fault has changed, or None.
        """
        ...


class Method:
    """Call one method of an object. A patch of its class is met."""

    def __init__(self, name: str, owner: object) -> None:
        self._name = name
        self._owner = owner

    def __call__(self, request: object) -> Any:
        """Call the method."""
        return getattr(self._owner, self._name)(request)


class BatchHandler:
    """Call an object with ``handle(data, context)``, as TorchServe does: with a batch of one.

    ``initialize(context)`` is called at the start. An object without ``handle`` has ``preprocess``,
    ``inference`` and ``postprocess``.
    """

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._context = HandlerContext()

    def start(self) -> None:
        """Initialize the handler."""
        initialize = getattr(self._handler, "initialize", None)
        if callable(initialize):
            initialize(self._context)

    def __call__(self, request: object) -> Any:
        """Return the answer to one request."""
        row = request if isinstance(request, dict) and {"body", "data"} & {*request} else None
        answers = self._handle([{"body": request} if row is None else row])
        if not isinstance(answers, (list, tuple)) or len(answers) != 1:
            mismatch = ValueError(
                f"the handler must return a list of one answer for a batch of one, got "
                f"{data_text(answers)}"
            )
            remember_text(mismatch, str(mismatch))
            raise mismatch
        return answers[0]

    def _handle(self, batch: list[Any]) -> Any:
        handle = getattr(self._handler, "handle", self._handler)
        if callable(handle):
            return handle(batch, self._context)
        handler = self._handler
        return handler.postprocess(handler.inference(handler.preprocess(batch)))


class HandlerContext:
    """Describe the server to a handler, as a server of models does."""

    def __init__(self) -> None:
        self.model_name = "model"
        self.manifest: dict[str, Any] = {"model": {"modelName": "model", "modelVersion": "1.0"}}
        self.system_properties: dict[str, Any] = {
            "model_dir": os.getcwd(),  # handlers join it as text
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "mlchaos",
            "server_version": "1.0",
        }
        self.model_yaml_config: dict[str, Any] = {}
        self.metrics = _Metrics()
        self.explain = False

    def get_request_id(self, index: int = 0) -> str:
        """Return the id of a request of the batch."""
        return str(index)

    def get_request_header(self, index: int, key: str) -> str | None:
        """Return None: a callable's request has no headers."""

    def get_all_request_header(self, index: int) -> dict[str, str]:
        """Return no headers."""
        return {}

    def set_response_status(self, *given: Any, **named: Any) -> None:
        """Do nothing: a callable's reply has no status."""

    def set_response_content_type(self, *given: Any, **named: Any) -> None:
        """Do nothing: a callable's reply has no headers."""

    def set_response_header(self, *given: Any, **named: Any) -> None:
        """Do nothing: a callable's reply has no headers."""


class _Metrics:
    """Take any metric, and drop it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _dropped


def _dropped(*given: Any, **named: Any) -> None:
    """Do nothing."""


class StreamRequest(PreparedRequest):
    """The argument of a generator. Its client may leave between two items."""

    __slots__ = ()

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the client."""
        return {"client": Client(has_pace=False)}


class Stream:
    """The items of a generator, as they arrive at the client.

    Attributes:
        chunks: The items, with the seconds since the request.
        left: The time on the trial's clock at which the client left, or None.
    """

    def __init__(self, client: Client | None, now: Now, on_left: Callable[[], None]) -> None:
        self._client = client
        self._now = now
        self._on_left = on_left
        self.begun = now()
        self.chunks: list[Chunk] = []
        self.left: float | None = None

    @property
    def leave(self) -> Leave | None:
        """Return how the client leaves, or None."""
        return None if self._client is None else self._client.leaves

    def arrive(self, item: Any) -> bool:
        """Take an item. Return False if the client has left, so that nothing takes it."""
        self.leave_if_due()
        if self.left is not None:
            return False
        self.chunks.append(Chunk(self._now() - self.begun, item))
        return True

    def leave_if_due(self) -> None:
        """Let the client leave, if an item follows the last one that it waits for."""
        leave = self.leave
        if leave is None or self.left is not None:
            return
        if leave.seconds is not None:
            if self._now() - self.begun >= leave.seconds:
                self.disconnect(self.begun + leave.seconds)
        elif leave.headers or (leave.chunks is not None and len(self.chunks) >= leave.chunks):
            self.disconnect(self.begun + (self.chunks[-1].time if self.chunks else 0.0))

    def disconnect(self, when: float) -> None:
        """Let the client leave."""
        if self.left is None:
            self.left = when
            if self.leave is not None:
                self.leave.struck()
            self._on_left()

    def end(self) -> None:
        """Tell faults the number of items."""
        if self._client is not None and self.left is None:
            for follower in self._client.followers:
                follower(len(self.chunks))

    def answer(self, fields: dict[str, Any], finished: float | None) -> Answer:
        """Return the answer so far."""
        return Answer(fields, finished, self.left, self.chunks, self.begun)


class FunctionTarget:
    """Serve a function of one argument, in the thread of its caller."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        keep: Keep,
        now: Now,
        initialize: Callable[[], None] = lambda: None,
    ) -> None:
        self._function = function
        self._keep = keep
        self._now = now
        self._initialize = initialize

    def start(self) -> None:
        """Initialize a handler. Raise ``ServiceFailed`` if it fails."""
        try:
            self._initialize()
        except MlchaosError:
            raise
        except Exception as error:
            raise ServiceFailed(f"the app failed at start-up: {error_text(error)}") from error

    def begin(self, request: PreparedRequest, payload: Any, client: Client | None) -> FunctionCall:
        """Return the call of the function."""
        value = request.payload if payload is None else payload
        return FunctionCall(self._function, value, self._keep, self._now, client)


class FunctionCall:
    """One call of a function."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        payload: Any,
        keep: Keep,
        now: Now,
        client: Client | None,
    ) -> None:
        self._function, self._payload, self._keep, self._now = function, payload, keep, now
        self._stream = Stream(client, now, _dropped)
        self._fields: dict[str, Any] = {}
        self._finished: float | None = None

    def run(self) -> None:
        """Call the function, and read its items if it is a generator."""
        value = self._function(self._payload)
        if inspect.isawaitable(value) or inspect.isasyncgen(value):
            if inspect.iscoroutine(value):
                value.close()  # without a warning that nothing awaited it
            how = "awaited" if inspect.isawaitable(value) else "iterated by async for"
            raise BadArgument(
                f"mlchaos.serve: the callable returned {data_text(value)}, which must be "
                f"{how}. Serve the coroutine function itself"
            )
        if inspect.isgenerator(value):
            try:
                value = self._items(value)
            except Exception as error:  # noqa: BLE001  # an error of the app is its reply
                raised(error)
                self._fields["late_error" if self._stream.left is not None else "error"] = error
                value = [chunk.data for chunk in self._stream.chunks]
        self._finished = self._now()
        self._fields["value"] = self._keep(value)

    def _items(self, generator: Iterator[Any]) -> list[Any]:
        try:
            for item in generator:
                if not self._stream.arrive(self._keep(item)):
                    break
        finally:
            generator.close()  # type: ignore[attr-defined]  # it is a generator
        self._stream.end()
        return [chunk.data for chunk in self._stream.chunks]

    def answer(self) -> Answer:
        """Return the value, or the items."""
        return self._stream.answer(self._fields, self._finished)


class CoroutineTarget:
    """Serve a coroutine function or an asynchronous generator of one argument."""

    def __init__(self, function: Callable[[Any], Any], keep: Keep, now: Now) -> None:
        self._function = function
        self._keep = keep
        self._now = now

    async def start(self) -> None:
        """Do nothing: there is nothing to start."""

    async def stop(self) -> None:
        """Do nothing: there is nothing to stop."""

    def begin(
        self,
        request: PreparedRequest,
        payload: Any,
        client: Client | None,
        on_left: Callable[[], None],
    ) -> CoroutineCall:
        """Return the call of the function."""
        value = request.payload if payload is None else payload
        return CoroutineCall(self._function, value, self._keep, self._now, client, on_left)


class CoroutineCall:
    """One call of a coroutine function, or of an asynchronous generator.

    A client that leaves cancels it.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        payload: Any,
        keep: Keep,
        now: Now,
        client: Client | None,
        on_left: Callable[[], None],
    ) -> None:
        self._function, self._payload, self._keep, self._now = function, payload, keep, now
        self._stream = Stream(client, now, on_left)
        self._fields: dict[str, Any] = {}
        self._finished: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timers: list[asyncio.Handle] = []
        self._waits_for_item = False
        self.begun = self._stream.begun

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        return self._stream.left is not None

    def leave(self) -> None:
        """Cancel the call."""
        if self._task is not None and not self.has_left:
            self._stream.disconnect(self._now())
            self._task.cancel()

    async def run(self) -> None:
        """Await the function's value, or read the items of a generator."""
        self._task = task = asyncio.current_task()
        try:
            value = self._function(self._payload)
            if inspect.isawaitable(value):
                value = await value
            if inspect.isgenerator(value):
                value = _asynchronous(value)
            self._fields["value"] = (
                await self._items(value) if inspect.isasyncgen(value) else self._keep(value)
            )
            self._finished = self._now()
        except (Exception, asyncio.CancelledError) as error:
            if not self.has_left:
                raise
            if isinstance(error, Exception):
                raised(error)
                self._fields["late_error"] = error
        finally:
            self._task = None
            if self.has_left and task is not None and task.cancelling() and task.uncancel():
                raise asyncio.CancelledError  # the load is over as well

    async def _items(self, generator: AsyncIterator[Any]) -> list[Any]:
        try:
            await self._read(generator)
        except Exception as error:  # noqa: BLE001  # an error of the app is its reply
            raised(error)
            self._fields["late_error" if self.has_left else "error"] = error
        return [chunk.data for chunk in self._stream.chunks]

    async def _read(self, generator: AsyncIterator[Any]) -> None:
        self._leave_in_time()
        try:
            while True:
                self._leave_when_it_waits()
                self._waits_for_item = True
                try:
                    item = await anext(generator)
                except StopAsyncIteration:
                    break
                finally:
                    self._waits_for_item = False
                if not self._stream.arrive(self._keep(item)):
                    return
        finally:
            for timer in self._timers:
                timer.cancel()
            await generator.aclose()  # type: ignore[attr-defined]  # it is a generator
        self._stream.end()

    def _leave_in_time(self) -> None:
        leave = self._stream.leave
        if leave is not None and leave.seconds is not None and leave.how == "receive":
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(leave.seconds, self._leave_if_it_waits))

    def _leave_when_it_waits(self) -> None:
        leave = self._stream.leave
        if leave is None or leave.seconds is not None or leave.how != "receive":
            return
        if leave.headers or leave.chunks == len(self._stream.chunks):
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_soon(self._leave_if_it_waits))

    def _leave_if_it_waits(self) -> None:
        if self._waits_for_item:
            self.leave()

    def answer(self) -> Answer:
        """Return the value, or the items so far."""
        if self.has_left:
            self._fields.setdefault("value", [chunk.data for chunk in self._stream.chunks])
        return self._stream.answer(self._fields, self._finished)


async def _asynchronous(generator: Iterator[Any]) -> AsyncIterator[Any]:
    try:
        for item in generator:
            yield item
    finally:
        generator.close()  # type: ignore[attr-defined]  # it is a generator

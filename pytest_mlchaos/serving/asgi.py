"""Start and stop ASGI apps, and send them requests."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ..core.clients import Client
from ..core.clock import Clock
from ..core.privacy import data_text, error_text
from ..engine.user_code import is_users
from ..errors import BadArgument, ServiceFailed
from .exchange import Exchange
from .frames import free_frames
from .http_requests import AsgiRequest, RequestParts, decode_body, http_headers
from .http_requests import load_httpx as _httpx
from .requests import Answer, PreparedRequest
from .websockets import WebSocketCall, WebSocketRequest, quiet_seconds

__all__ = ["AsgiCall", "AsgiTarget", "Lifespan"]

App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]],
    Awaitable[None],
]
CANCEL_GRACE_SECONDS = 1.0
"""The time that a cancelled task gets to end."""


class AsgiTarget:
    """An ASGI app in an event loop: its lifespan and its replies."""

    def __init__(self, app: App, clock: Clock, *, lifespan: bool, timeout: float) -> None:
        _httpx()
        self._app = app
        self._clock = clock
        self._now = clock.now
        self._timeout = timeout
        self._uses_lifespan = lifespan
        self._lifespan: Lifespan | None = None
        self._state: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the app. Do nothing if the app does not support the lifespan protocol."""
        if self._uses_lifespan:
            self._lifespan = Lifespan(self._app, self._timeout)
            self._state = await self._lifespan.start()

    async def stop(self) -> None:
        """Shut the app down."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.stop()

    def begin(
        self,
        request: PreparedRequest,
        payload: Any,
        client: Client | None,
        on_left: Callable[[], None],
    ) -> AsgiCall | WebSocketCall:
        """Return the call of the app for one request, which has not begun."""
        if isinstance(request, WebSocketRequest):
            return WebSocketCall(
                self._app,
                request,
                payload,
                self._state,
                self._now,
                client,
                on_left,
                quiet=quiet_seconds(self._clock),
            )
        assert isinstance(request, AsgiRequest)
        parts = request.parts if payload is None else RequestParts.of(payload)
        return AsgiCall(self._app, parts, self._state, self._now, client, on_left)


class AsgiCall:
    """One request in the app."""

    __slots__ = ("_app", "_error", "_exchange", "_scope", "begun", "leave")

    def __init__(
        self,
        app: App,
        parts: RequestParts,
        state: Mapping[str, Any],
        now: Callable[[], float],
        client: Client | None,
        on_left: Callable[[], None],
    ) -> None:
        self._app = app
        self._scope = parts.scope(state, client)
        self._exchange = Exchange(parts.body, now, client, on_left)
        self._error: Exception | None = None
        self.begun = now()
        self.leave = self._exchange.leave

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        return self._exchange.left is not None

    async def run(self) -> None:
        """Let the app answer. Keep an error that it raises."""
        try:
            await self._exchange.run(self._app, self._scope)
        except Exception as error:  # noqa: BLE001  # any error of the app is part of its reply
            self._error = error
            free_frames(error)

    def answer(self) -> Answer:
        """Return the answer so far."""
        exchange, error = self._exchange, self._error
        status = exchange.status
        fields: dict[str, Any] = {"content": exchange.content}
        if exchange.left is not None:
            fields["late_error"] = error
        else:
            status = 500 if status is None else status
            if error is not None:
                # Frameworks re-raise an error after they have sent its 500.
                late = exchange.finished is not None and status < 500
                fields["late_error" if late else "error"] = error
        fields["status"] = status
        if exchange.headers:
            fields["headers"] = http_headers(tuple(map(tuple, exchange.headers)))
        if exchange.trailers:
            fields["trailers"] = http_headers(tuple(map(tuple, exchange.trailers)))
        if exchange.slowed:
            fields["slowed"] = True
        decode_body(fields)
        return Answer(fields, exchange.finished, exchange.left, exchange.chunks, self.begun)


class Lifespan:
    """Start and shut down an app with the ASGI lifespan protocol."""

    def __init__(self, app: App, timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._said: dict[str, asyncio.Future[str | None]] = {}
        self._task: asyncio.Task[None] | None = None
        # If the app fails before it receives a message, it does not support the protocol.
        self._heard = False
        self._strange = False

    async def start(self) -> dict[str, Any]:
        """Start the app, and return the state that it shares with its requests.

        Raise ``ServiceFailed`` if it fails to start, or hangs.
        """
        state: dict[str, Any] = {}
        self._task = asyncio.get_running_loop().create_task(
            self._serve({"type": "lifespan", "asgi": {"version": "3.0"}, "state": state})
        )
        if not await self._phase("startup", "start-up"):
            error = self._task.exception()
            self._task = None
            if error is not None and (
                not isinstance(error, Exception) or isinstance(error, BadArgument)
            ):
                raise error
            if error is not None and self._heard and not self._strange:
                raise ServiceFailed(
                    f"the app failed at start-up: {error_text(error)} (if it does not support the "
                    f"lifespan protocol, give lifespan=False)"
                ) from error
        return state

    async def stop(self) -> None:
        """Shut the app down. Do nothing if it has no lifespan, or if its lifespan has ended."""
        task = self._task
        if task is None:
            return
        if not await self._phase("shutdown", "shut-down"):
            error = task.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            if error is not None:
                raise ServiceFailed(f"the app failed at shut-down: {error_text(error)}") from error

    async def _phase(self, name: str, words: str) -> bool:
        """Return True if the app reported that the phase is complete, False if its task ended
        before.
        """
        assert self._task is not None
        said = self._said[name] = asyncio.get_running_loop().create_future()
        self._to_app.put_nowait({"type": f"lifespan.{name}"})
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait({self._task, said}, return_when=asyncio.FIRST_COMPLETED)
                if name == "shutdown" or (said.done() and said.result() is not None):
                    await asyncio.wait({self._task})
        except TimeoutError:
            place = await _given_up(self._task)
            raise ServiceFailed(
                f"the app's {words} took longer than {self._timeout:g} s (timeout= of "
                f"mlchaos.serve){place}"
            ) from None
        if not said.done():
            return False
        if said.result() is not None:
            error = self._task.exception()
            raise ServiceFailed(
                f"the app failed at {words}: {error_text(error) if error else said.result()}"
            ) from error
        return True

    async def _serve(self, scope: dict[str, Any]) -> None:
        done: Any = self._app(scope, self._receive, self._send)
        if not inspect.isawaitable(done):
            raise BadArgument(
                f"mlchaos.serve: an ASGI app must return an awaitable, got {data_text(done)} from "
                f"{data_text(self._app)}. Make it async"
            )
        await done

    async def _receive(self) -> dict[str, str]:
        self._heard = True
        return await self._to_app.get()

    async def _send(self, message: Mapping[str, Any]) -> None:
        _, phase, outcome = [*str(message.get("type")).split("."), "", ""][:3]
        said = self._said.get(phase)
        if phase == "shutdown" and said is None:
            return  # Nothing waits for this message, because the app is being cancelled.
        if said is None or said.done() or outcome not in ("complete", "failed"):
            self._strange = True
            raise RuntimeError(
                f"the lifespan protocol does not allow a message of type {message.get('type')!r} "
                f"here"
            )
        lines = str(message.get("message") or "").strip().splitlines()
        said.set_result(
            None if outcome == "complete" else lines[-1] if lines else "no reason given"
        )


async def _given_up(task: asyncio.Task[None]) -> str:
    """Cancel a task, and return its innermost line of user code."""
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_GRACE_SECONDS)
    try:
        trace = None if not task.done() else task.result()
    except BaseException as error:  # noqa: BLE001
        # Usually a CancelledError, whose traceback shows the line.
        trace = error.__traceback__
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    own = [frame for frame in frames if is_users(frame.f_code.co_filename)]
    code = (own or frames)[-1].f_code if frames else None
    return (
        f"; it was in {code.co_name} ({code.co_filename}:{(own or frames)[-1].f_lineno})"
        if code
        else ""
    )

"""Open a WebSocket to an ASGI app, send it a client's messages, and keep what it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..core.clients import Client, Leave
from ..core.clock import Clock, VirtualClock
from ..core.phases import raised
from ..core.privacy import data_text, remember_text
from ..core.replies import Chunk
from ..core.validation import did_you_mean, format_value, parse_duration
from ..engine.attribution import current_scope
from ..errors import BadArgument
from .requests import Answer, PreparedRequest

if TYPE_CHECKING:
    from .http_requests import RequestParts

__all__ = ["WebSocketCall", "WebSocketRequest", "is_websocket", "keywords_of", "quiet_seconds"]

METHOD = "WEBSOCKET"
KEYWORDS = ("websocket", "send", "receive", "pause", "close", "subprotocols", "headers", "params")
QUIET_SECONDS = 60.0
"""Virtual seconds without a message after which the client closes, if the app does something."""
REAL_QUIET_SECONDS = 1.0
NORMAL, GOING_AWAY, ABNORMAL, INTERNAL_ERROR = 1000, 1001, 1006, 1011
SWITCHING, FORBIDDEN = 101, 403
_HANDSHAKE = [
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"bWxjaGFvcyB0ZXN0aW5nIQ=="),
]


def is_websocket(given: object) -> bool:
    """Return True if a user's description of a request is one of a WebSocket."""
    if isinstance(given, tuple):
        return len(given) in (2, 3) and given[0] == METHOD
    return isinstance(given, Mapping) and "websocket" in given


class WebSocketRequest(PreparedRequest):
    """A connection, and the messages that its client sends.

    Attributes:
        script: The messages as the app receives them.
        receive: The number of messages from the app after which the client closes, or None.
        pause: The seconds between two messages.
        close: The code with which the client closes.
        subprotocols: What the client offers.
    """

    __slots__ = ("close", "parts", "pause", "receive", "script", "subprotocols")

    def __init__(self, given: Any, parts: RequestParts, keywords: Mapping[str, Any]) -> None:
        super().__init__(given, f"{METHOD} {parts.path}")
        self.parts = parts
        self.script: list[Any] = [*keywords.get("send", ())]
        self.receive: int | None = keywords.get("receive")
        self.pause = parse_duration(keywords.get("pause", 0.0), "pause")
        self.close: int = keywords.get("close", NORMAL)
        self.subprotocols: list[str] = [*keywords.get("subprotocols", ())]

    @property
    def payload(self) -> Any:
        """Return the client's messages."""
        return self.script

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the method, the path and the client."""
        method, _, path = self.name.partition(" ")
        return {"method": method, "path": path, "client": Client(has_pace=False)}


def quiet_seconds(clock: Clock) -> float:
    """Return the seconds of silence after which a client closes."""
    is_virtual = isinstance(clock, VirtualClock) and not clock.is_real
    return QUIET_SECONDS if is_virtual else REAL_QUIET_SECONDS


def keywords_of(given: Any) -> dict[str, Any]:
    """Return the keywords of a WebSocket. Raise ``BadArgument`` if they are wrong."""
    if isinstance(given, tuple):
        given = {"websocket": given[1], "send": given[2] if len(given) == 3 else ()}
    keywords = dict(given)
    for name in keywords:
        if name not in KEYWORDS:
            raise BadArgument(
                f"a WebSocket has no keyword {name!r}{did_you_mean(str(name), KEYWORDS)}. The "
                f"keywords are {', '.join(KEYWORDS)}"
            )
    url = keywords["websocket"]
    if not isinstance(url, str) or not url.startswith(("/", "ws:", "wss:")):
        raise BadArgument(f"the path of a WebSocket must begin with /, got {data_text(url)}")
    sent = keywords.get("send", ())
    if isinstance(sent, (str, bytes, Mapping)) or not isinstance(sent, Iterable):
        raise BadArgument(f"send of a WebSocket must be a list of messages, got {data_text(sent)}")
    keywords["send"] = list(sent)
    for message in keywords["send"]:
        _check_message(message)
    _check_number(keywords, "receive", 1, 10**9, "a number of messages, 1 or more")
    _check_number(keywords, "close", 1000, 4999, "a close code from 1000 to 4999")
    return keywords


def _check_number(keywords: Mapping[str, Any], name: str, low: int, high: int, rule: str) -> None:
    value = keywords.get(name, low)
    if type(value) is not int or not low <= value <= high:
        raise BadArgument(f"{name} of a WebSocket must be {rule}, got {format_value(value)}")


def _check_message(value: Any) -> None:
    try:
        _message(value)
    except (TypeError, ValueError, RecursionError):
        raise BadArgument(
            f"a message of a WebSocket must be text, bytes or JSON, got {data_text(value)}"
        ) from None


def _message(value: Any) -> dict[str, Any]:
    """Return what ``receive`` gives for a client's message: text, bytes, or JSON as text."""
    if isinstance(value, (bytes, bytearray)):
        return {"type": "websocket.receive", "bytes": bytes(value), "text": None}
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return {"type": "websocket.receive", "text": value, "bytes": None}


def _damaged_message(value: Any) -> dict[str, Any]:
    """Do the same for what a fault may have made of a message, such as 2,000 nested lists."""
    try:
        return _message(value)
    except (TypeError, ValueError, RecursionError):
        depth = 0
        while isinstance(value, list) and value:
            value, depth = value[0], depth + 1
        return _message("[" * depth + "]" * depth)


class WebSocketCall:
    """One connection to the app."""

    __slots__ = ("_app", "_connection", "_error", "_scope", "begun", "leave")

    def __init__(
        self,
        app: Callable[..., Any],
        request: WebSocketRequest,
        payload: Any,
        state: Mapping[str, Any],
        now: Callable[[], float],
        client: Client | None,
        on_left: Callable[[], None],
        *,
        quiet: float,
    ) -> None:
        self._app = app
        self._scope = _scope(request, state, client)
        script = request.script if payload is None else payload
        if not isinstance(script, (list, tuple)):  # a fault has replaced the list
            script = [script]
        self._connection = Connection(request, script, now, client, on_left, quiet)
        self._error: Exception | None = None
        self.begun = now()
        self.leave = self._connection.leave

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        return self._connection.left is not None

    async def run(self) -> None:
        """Let the app serve the connection. Keep an error that it raises."""
        try:
            await self._connection.run(self._app, self._scope)
        except Exception as error:  # noqa: BLE001  # any error of the app is part of its reply
            raised(error)
            self._error = error

    def answer(self) -> Answer:
        """Return what the app has sent so far."""
        connection, error = self._connection, self._error
        fields: dict[str, Any] = {"status": connection.status, "close_code": connection.close_code}
        if connection.status == SWITCHING:
            fields["value"] = [chunk.data for chunk in connection.chunks]
        else:
            fields["content"] = connection.denial
        if connection.headers:
            from .http_requests import http_headers

            fields["headers"] = http_headers(tuple(map(tuple, connection.headers)))
        if error is not None:
            fields["late_error" if connection.is_over else "error"] = error
        return Answer(fields, connection.finished, connection.left, connection.chunks, self.begun)


def _scope(
    request: WebSocketRequest, state: Mapping[str, Any], client: Client | None
) -> dict[str, Any]:
    scope = request.parts.scope(state, client)
    del scope["method"]
    scope.update(
        type="websocket",
        scheme="wss" if scope["scheme"] in ("https", "wss") else "ws",
        headers=[*scope["headers"], *_HANDSHAKE],
        subprotocols=request.subprotocols,
        extensions={"websocket.http.response": {}},
    )
    return scope


class Connection:
    """The two sides of a WebSocket. ``receive`` and ``send`` are what the app gets.

    The client closes after a number of messages, or when it has sent its own and the app only waits
    for more. If other tasks of the app go on, it closes when nothing has arrived for some time.

    Attributes:
        status: 101 after the app has accepted, 403 if it has refused, or the status of its denial.
        headers: The headers of the handshake as pairs of bytes.
        denial: The body of a denial.
        chunks: The messages of the app, with the seconds since the request.
        close_code: The code with which the connection was closed.
        finished: The time of the last message, or of the app's close.
        left: The time at which the client left, or None.
        is_over: True if the client has closed or left, so that it sees no error.
    """

    def __init__(
        self,
        request: WebSocketRequest,
        script: Iterable[Any],
        now: Callable[[], float],
        client: Client | None,
        on_left: Callable[[], None],
        quiet: float,
    ) -> None:
        self._request = request
        self._messages = iter(script)
        self._now = now
        self._client = client
        self._on_left = on_left
        self._quiet = quiet
        self._begun = self._active = now()
        self._task: asyncio.Task[Any] | None = None
        self._state = "new"
        self._over = asyncio.Event()
        self._accepted = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._sent = 0
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.denial: bytes | None = None
        self.chunks: list[Chunk] = []
        self.close_code: int | None = None
        self.finished: float | None = None
        self.left: float | None = None
        self.is_over = False

    async def run(self, app: Callable[..., Any], scope: MutableMapping[str, Any]) -> None:
        """Call the app, and raise its error. Close the connection after it, as a server does."""
        self._task = asyncio.current_task()
        self._will_leave()
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            self._end(INTERNAL_ERROR)
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if self.status is None and self.left is None:
            self.status = 500
            raise _refused("the app returned without accepting or closing the WebSocket")
        self._end(NORMAL)
        self._follow()

    def _end(self, code: int) -> None:
        if self.status is None and self.left is None:
            self.status = 500
        if self._state == "open":
            self._close(code)

    def _follow(self) -> None:
        if self._client is not None and self.left is None:
            for follower in self._client.followers:
                follower(len(self.chunks))

    # -- what the app calls ------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """Return the next message of the client."""
        if self._state == "new":
            self._state = "connecting"
            return {"type": "websocket.connect"}
        if self._state == "connecting":
            await self._accepted.wait()
        if self._state == "open":
            message = await self._next_message()
            if message is not None:
                return message
        code = ABNORMAL if self.close_code is None else self.close_code
        return {"type": "websocket.disconnect", "code": code, "reason": ""}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take a message of the app."""
        if self.left is not None:
            self._refuse()
            return
        kind = message["type"]
        if kind == "websocket.accept" and self._state in ("new", "connecting"):
            self._accept(message)
        elif kind == "websocket.send" and self._state == "open":
            self._arrive(message)
        elif kind == "websocket.send" and self.is_over:
            return  # the client has closed, and the server drops what is sent
        elif kind == "websocket.close":
            self._closed_by_app(message)
        elif kind.startswith("websocket.http.response.") and self._state != "open":
            self._deny(message)
        else:
            raise _refused(self._unexpected(kind))

    # -- the app's messages ------------------------------------------------------------------------

    def _accept(self, message: Mapping[str, Any]) -> None:
        self._state, self.status = "open", SWITCHING
        self.headers = [*message.get("headers", ())]
        protocol = message.get("subprotocol")
        if protocol:
            self.headers.append((b"sec-websocket-protocol", protocol.encode()))
        self._active = self.finished = self._now()
        self._accepted.set()
        self._leave_if_due(headers=True)

    def _arrive(self, message: Mapping[str, Any]) -> None:
        data = message.get("text")
        if data is None:
            data = message.get("bytes")
        if not isinstance(data, (str, bytes)):
            raise _refused("the app must send text or bytes in a 'websocket.send'")
        self._active = self.finished = self._now()
        self.chunks.append(Chunk(self._active - self._begun, data))
        self._leave_if_due(headers=False)
        if self._state == "open" and len(self.chunks) == self._request.receive:
            self._closed_by_client()

    def _closed_by_app(self, message: Mapping[str, Any]) -> None:
        if self._state in ("new", "connecting"):
            self.status = FORBIDDEN
        elif self._state == "closed":
            if self.is_over:
                return  # both sides have closed
            raise _refused("the app sent 'websocket.close' after its close")
        self._close(message.get("code") or NORMAL)

    def _close(self, code: int) -> None:
        self._state, self.close_code = "closed", code
        self.finished = self._now()
        self._wake()

    def _deny(self, message: Mapping[str, Any]) -> None:
        """Take a part of a denial, which is an HTTP response instead of the handshake."""
        if message["type"].endswith("start"):
            self.status, self.denial = message["status"], b""
            self.headers = [*message.get("headers", ())]
            self._state = "denying"
        elif self._state == "denying":
            self.denial = (self.denial or b"") + message.get("body", b"")
            if not message.get("more_body", False):
                self._state, self.finished = "closed", self._now()
                self._wake()
        else:
            raise _refused(self._unexpected(message["type"]))

    def _unexpected(self, kind: object) -> str:
        if self._state == "closed":
            return f"the app sent {kind!r} after its close"
        if self._state == "open":
            return f"the app must send 'websocket.send' or 'websocket.close', got {kind!r}"
        return f"the app must send 'websocket.accept' or 'websocket.close' first, got {kind!r}"

    # -- the client's messages -----------------------------------------------------------------------

    async def _next_message(self) -> dict[str, Any] | None:
        """Return the next message, or None at the end of the connection."""
        if self._sent and self._request.pause:
            await self._until_over(self._request.pause)
        if self._state != "open":
            return None
        for value in self._messages:
            self._sent += 1
            self._active = self._now()
            return _damaged_message(value)
        await self._until_closed()
        return None

    async def _until_closed(self) -> None:
        """Wait for the end of the connection. Let the client close when it expects no more."""
        if self._request.receive is None and self._only_waits():
            self._closed_by_client()
            return
        while self._state == "open":
            left = self._active + self._quiet - self._now()
            if left <= 0:
                self._closed_by_client()
                return
            await self._until_over(left)

    def _only_waits(self) -> bool:
        """Return True if the app's own task waits for a message, and no other task of it runs."""
        scope = current_scope()
        return asyncio.current_task() is self._task and scope is not None and not scope.running()

    async def _until_over(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    def _closed_by_client(self) -> None:
        self._state, self.close_code, self.is_over = "closed", self._request.close, True
        self._wake()

    def _wake(self) -> None:
        self._over.set()
        self._accepted.set()

    # -- a client that leaves ------------------------------------------------------------------------

    @property
    def _leaves(self) -> Leave | None:
        return None if self._client is None else self._client.leaves

    def leave(self) -> None:
        """Disconnect the client now."""
        if self.left is not None or self._state == "closed":
            return
        leave = self._leaves
        self.left, self.is_over, self._state = self._now(), True, "closed"
        how = "receive" if leave is None else leave.how
        self.close_code = GOING_AWAY if how == "receive" else ABNORMAL
        if leave is not None:
            leave.struck()
        self._wake()
        self._on_left()

    def _will_leave(self) -> None:
        leave, loop = self._leaves, asyncio.get_running_loop()
        if leave is None:
            return
        if leave.seconds is not None:
            self._timer = loop.call_later(leave.seconds, self.leave)
        elif leave.chunks == 0 and not leave.headers:
            self._timer = loop.call_soon(self.leave)

    def _leave_if_due(self, *, headers: bool) -> None:
        leave = self._leaves
        if leave is None or leave.seconds is not None:
            return
        if leave.headers if headers else leave.chunks == len(self.chunks):
            self.leave()

    def _refuse(self) -> None:
        """Report to the app that its client has left, as ``send`` of a server does."""
        leave = self._leaves
        if leave is not None and leave.how == "send":
            raise OSError("the client has disconnected")
        if leave is not None and leave.how == "reset":
            raise ConnectionResetError("the client has reset the connection")


def _refused(text: str) -> RuntimeError:
    error = RuntimeError(text)
    remember_text(error, text)
    return error

"""Pass one HTTP request to an ASGI app, as a server does, and keep the response.

``httpx.ASGITransport`` hands over a whole body at once, and its client never leaves. A server
streams: the response arrives chunk by chunk, a slow client makes ``send`` wait, and a client that
leaves is reported by ``receive`` or by ``send``.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from typing import Any

from ..core.clients import Client, Leave, Pace
from ..core.privacy import remember_text
from ..core.replies import Chunk

__all__ = ["Exchange"]

HIGH_WATER_BYTES = 65536
"""Bytes that a server keeps for a client that does not read. Then ``send`` waits. As in uvicorn."""
UPLOAD_CHUNK_BYTES = 65536
SLOW_UPLOAD_CHUNKS = 8
"""A slow client sends its body in this many chunks, or more."""
DISCONNECT = "http.disconnect"
_START, _BODY, _TRAILERS = "http.response.start", "http.response.body", "http.response.trailers"


class Exchange:
    """One request and its response. ``receive`` and ``send`` are what the app gets.

    Attributes:
        status: The status, or None before the response has started.
        headers: The headers as pairs of bytes.
        chunks: The chunks of the body, with the time since the request.
        trailers: The trailers as pairs of bytes.
        finished: The time on the trial's clock at which the client had the whole response.
        left: The time at which the client left, or None.
        slowed: True if the app had to wait for its client.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_client",
        "_gone",
        "_now",
        "_on_left",
        "_received",
        "_timer",
        "_trailers_due",
        "_unread",
        "_upload",
        "_waited",
        "chunks",
        "complete",
        "finished",
        "headers",
        "left",
        "slowed",
        "status",
        "trailers",
    )

    def __init__(
        self,
        body: bytes | AsyncIterator[bytes],
        now: Callable[[], float],
        client: Client | None = None,
        on_left: Callable[[], None] = lambda: None,
    ) -> None:
        self._body = body
        self._now = now
        self._client = client
        self._on_left = on_left
        self._begun = now()
        self._received = False
        self._upload: AsyncIterator[bytes] | None = None
        self._gone: asyncio.Event | None = None
        self._timer: asyncio.Handle | None = None
        self._unread: collections.deque[tuple[float, int]] = collections.deque()
        self._waited = False
        self._trailers_due = False
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[Chunk] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.finished: float | None = None
        self.left: float | None = None
        self.slowed = False

    async def run(self, app: Callable[..., Any], scope: MutableMapping[str, Any]) -> None:
        """Call the app, and raise its error."""
        leave = None if self._client is None else self._client.leaves
        if leave is not None:
            self._will_leave(leave)
        try:
            await app(scope, self.receive, self.send)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._client is not None and self.left is None:
                for follower in self._client.followers:
                    follower(sum(bool(chunk.data) for chunk in self.chunks))
        if not self.complete and self.left is None:
            unfinished = RuntimeError("the app returned without completing its response")
            remember_text(unfinished, str(unfinished))
            raise unfinished

    @property
    def content(self) -> bytes:
        """Return the body that has arrived."""
        chunks = self.chunks
        return chunks[0].data if len(chunks) == 1 else b"".join(chunk.data for chunk in chunks)

    # -- what the app calls ------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """Return the next part of the request, and ``http.disconnect`` after it."""
        if self._received or self.left is not None:
            if self.left is None and not self.complete:
                if self._gone is None:
                    self._gone = asyncio.Event()
                await self._gone.wait()
            return {"type": DISCONNECT}
        body = self._body
        if isinstance(body, bytes) and (self._client is None or self._client.sends is None):
            # Like httpx: a body is one chunk, and its end is an empty one.
            self._body, self._received = b"", not body
            return {"type": "http.request", "body": body, "more_body": bool(body)}
        return await self._next_of_upload()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take the next part of the response."""
        if self.left is not None:
            self._refuse()
            return
        kind = message["type"]
        if kind == _BODY and self.status is not None and not self.complete:
            data = message.get("body", b"")
            if data.__class__ is not bytes:
                data = bytes(data)
            await self._arrive(data, message.get("more_body", False))
        elif kind == _START and self.status is None:
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
            self._trailers_due = bool(message.get("trailers", False))
            self._leave_if_due(headers=True)
        elif kind == _TRAILERS and self._trailers_due and self.status is not None:
            self.trailers += message.get("headers", ())
            if not message.get("more_trailers", False):
                self._end()
        else:
            raise RuntimeError(self._unexpected(kind))

    # -- the response --------------------------------------------------------------------------------

    async def _arrive(self, data: bytes, more: bool) -> None:
        now = self._now()
        client = self._client
        if client is not None and client.reads is not None:
            now = await self._read_slowly(len(data), client.reads)
            if self.left is not None:
                self._refuse()
                return
        if data:
            self.chunks.append(Chunk(now - self._begun, data))
        if more:
            if client is not None and client.leaves is not None and data:
                self._leave_if_due(headers=False)
        elif not self._trailers_due:
            self._end(now)

    async def _read_slowly(self, size: int, pace: Pace) -> float:
        """Wait until the server's buffer has room. Return the time when the client has the data."""
        now = self._now()
        read_at = max(now, self._unread[-1][0] if self._unread else now + pace.pause)
        self._unread.append((read_at + pace.seconds(size), size))
        self.slowed = True
        while True:
            while self._unread and self._unread[0][0] <= self._now():
                self._unread.popleft()
            if sum(size for _, size in self._unread) <= HIGH_WATER_BYTES or self.left is not None:
                return max(self._now(), read_at + pace.seconds(size))
            self._wait_for_client(pace)
            await asyncio.sleep(self._unread[0][0] - self._now())

    def _wait_for_client(self, pace: Pace) -> None:
        if not self._waited:
            self._waited = True
            pace.struck()

    def _end(self, now: float | None = None) -> None:
        self.complete = True
        if self._trailers_due:
            self._trailers_due = False
        self.finished = self._now() if now is None else now
        if self._timer is not None:
            self._timer.cancel()
        if self._gone is not None:
            self._gone.set()

    def _unexpected(self, kind: object) -> str:
        if self.complete:
            return f"the app sent {kind!r} after its response was complete"
        if self.status is None:
            return f"the app must send 'http.response.start' first, got {kind!r}"
        return f"the app must send 'http.response.body' next, got {kind!r}"

    # -- the body of the request -----------------------------------------------------------------------

    async def _next_of_upload(self) -> dict[str, Any]:
        if self._upload is None:
            self._upload = self._uploaded()
        try:
            data = await anext(self._upload)
        except StopAsyncIteration:
            self._received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.left is not None:
            return {"type": DISCONNECT}
        return {"type": "http.request", "body": data, "more_body": True}

    async def _uploaded(self) -> AsyncIterator[bytes]:
        """Yield the body chunk by chunk, at the client's pace."""
        body = self._body
        pace = None if self._client is None else self._client.sends
        if pace is not None:
            self.slowed = True
            self._wait_for_client(pace)
            await asyncio.sleep(pace.pause)
        async for data in _pieces(body) if isinstance(body, bytes) else body:
            if pace is not None:
                await asyncio.sleep(pace.seconds(len(data)))
            yield data

    # -- a client that leaves ----------------------------------------------------------------------------

    def leave(self) -> None:
        """Disconnect the client now."""
        if self.left is not None or self.complete:
            return
        self.left = self._now()
        if self._client is not None and self._client.leaves is not None:
            self._client.leaves.struck()
        if self._gone is not None:
            self._gone.set()
        self._on_left()

    def _will_leave(self, leave: Leave) -> None:
        loop = asyncio.get_running_loop()
        if leave.seconds is not None:
            self._timer = loop.call_later(leave.seconds, self.leave)
        elif leave.chunks == 0 and not leave.headers:
            self._timer = loop.call_soon(self.leave)

    def _leave_if_due(self, *, headers: bool) -> None:
        leave = None if self._client is None else self._client.leaves
        if leave is None or leave.seconds is not None:
            return
        if leave.headers if headers else leave.chunks == len(self.chunks):
            self.leave()

    def _refuse(self) -> None:
        """Report to the app that its client has left, as ``send`` of a server does."""
        leave = None if self._client is None else self._client.leaves
        how = "receive" if leave is None else leave.how
        if how == "send":
            raise OSError("the client has disconnected")
        if how == "reset":
            raise ConnectionResetError("the client has reset the connection")


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    size = max(1, min(UPLOAD_CHUNK_BYTES, -(-len(body) // SLOW_UPLOAD_CHUNKS)))
    for start in range(0, len(body), size):
        yield body[start : start + size]

"""Send one HTTP request over a real connection, as a client that may be slow, or may leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from ...core.clients import Client, Leave, Pace, WorkerEnd
from ...core.replies import Chunk
from ..requests import Answer

__all__ = ["ServerCall"]

READ_BYTES = 1 << 16
SLOW_READ_BYTES = 1 << 12
SLOW_UPLOAD_CHUNKS = 8
MAX_HEADER_BYTES = 1 << 20
LEAVE_SECONDS = 0.001
"""A client that leaves before the answer waits so long, so that the server has its request."""
ACCEPT_SECONDS = 2.0
"""The time limit for a process of the server to accept a connection."""
ACCEPT_POLL_SECONDS = 0.002
RESET = struct.pack("ii", 1, 0)
"""Linger for 0 s: ``close`` then resets the connection."""


class ServerCall:
    """One request over one connection.

    Args:
        request: The ``httpx.Request``.
        host: The address of the server.
        port: Its port.
        now: The trial's clock.
        client: How the client behaves, or None for one that waits for its answer.
        on_left: A function to call when the client leaves.
        process_of: A function that returns the process of the server that has this connection, or
            None.
        ends_with: A function that returns a function to call after this process has died.
    """

    def __init__(
        self,
        request: Any,
        host: str,
        port: int,
        now: Callable[[], float],
        client: Client | None = None,
        on_left: Callable[[], None] = lambda: None,
        process_of: Callable[[ServerCall], int | None] = lambda call: None,
        ends_with: Callable[[ServerCall, int], Callable[[], None]] = lambda call, pid: lambda: None,
    ) -> None:
        import h11
        import httpx

        self._h11, self._httpx = h11, httpx
        self._request = request
        self._address = host, port
        self._now = now
        self._client = client or Client()
        self._on_left = on_left
        self._process_of = process_of
        self._ends_with = ends_with
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._status: int | None = None
        self._headers: Any = httpx.Headers()
        self._trailers: Any = None
        self._chunks: list[Chunk] = []
        self._part: list[bytes] = []
        self._finished: float | None = None
        self._left: float | None = None
        self._slowed = False
        self._held = b""
        self._error: Exception | None = None
        self._task: asyncio.Task[Any] | None = None
        self.begun = now()

    @property
    def port(self) -> int | None:
        """Return the client's own port, while the connection is open."""
        name = None if self._writer is None else self._writer.get_extra_info("sockname")
        return None if name is None else int(name[1])

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        return self._left is not None

    def leave(self) -> None:
        """Disconnect the client now. Do nothing if it has its answer."""
        if self._task is not None and self._left is None and self._finished is None:
            self._left = self._now()
            self._on_left()
            self._task.cancel()

    async def run(self) -> None:
        """Send the request, and read the response until its end, or until the client leaves."""
        self._task = asyncio.current_task()
        try:
            await self._run()
        except asyncio.CancelledError:
            if self._left is None or self._task is None or self._task.uncancel():
                raise
        finally:
            self._task = None

    async def _run(self) -> None:
        try:
            await self._connect()
            with contextlib.suppress(_LeftError):
                async with self._at_its_moment():
                    await self._exchange()
        except (OSError, self._h11.RemoteProtocolError) as error:
            self._error = self._failure(error)
        finally:
            self._close(reset=False)
        if self._left is None:
            for follower in self._client.followers:
                follower(sum(bool(chunk.data) for chunk in self._chunks))

    def answer(self) -> Answer:
        """Return the answer so far."""
        fields: dict[str, Any] = {}
        if self._status is not None:
            fields = {"status": self._status, "headers": self._headers, "content": self._content()}
        if self._trailers:
            fields["trailers"] = self._trailers
        if self._slowed:
            fields["slowed"] = True
        if self._error is not None and self._left is None:
            fields["error"] = self._error
        return Answer(fields, self._finished, self._left, self._chunks, self.begun, remote=True)

    # -- the exchange ------------------------------------------------------------------------------

    async def _connect(self) -> None:
        try:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        except OSError as error:
            raise _NotConnectedError(str(error)) from error

    async def _exchange(self) -> None:
        upload = asyncio.ensure_future(self._upload())
        try:
            leave = self._client.leaves
            if leave is not None and leave.chunks == 0 and not leave.headers:
                await upload
                await asyncio.sleep(LEAVE_SECONDS)
                self._leave()
            await self._download()
        finally:
            upload.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await upload

    async def _upload(self) -> None:
        request, writer = self._request, self._writer
        assert writer is not None
        head = self._h11.Request(
            method=request.method, target=request.url.raw_path, headers=request.headers.raw
        )
        self._write(self._protocol.send(head))
        pace = self._client.sends
        if pace is None:
            async for data in request.stream:
                await self._sent(data)
        else:
            await self._upload_slowly(b"".join([data async for data in request.stream]), pace)
        self._write(self._protocol.send(self._h11.EndOfMessage()))
        await writer.drain()
        if self._client.ends is not None:
            await self._end_worker(self._client.ends)

    async def _sent(self, data: bytes) -> None:
        if data:
            assert self._writer is not None
            self._write(self._protocol.send(self._h11.Data(data=data)))
            await self._writer.drain()

    def _write(self, data: bytes) -> None:
        """Send bytes. Hold the last one back, if the worker dies that has the request."""
        assert self._writer is not None
        if self._client.ends is None:
            self._writer.write(data)
        elif data:
            self._writer.write(self._held + data[:-1])
            self._held = data[-1:]

    async def _end_worker(self, end: WorkerEnd) -> None:
        """Kill the process that has the request, before it answers."""
        writer = self._writer
        assert writer is not None
        pid, until = None, self._now() + ACCEPT_SECONDS
        while pid is None and self._now() < until:
            pid = self._process_of(self)
            if pid is None:
                await asyncio.sleep(ACCEPT_POLL_SECONDS)
        if end.seconds or pid is None:
            writer.write(self._held)
            await asyncio.sleep(end.seconds)
        if pid is not None:
            also_hit = self._ends_with(self, pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, end.signal)
            end.struck()
            also_hit()

    async def _upload_slowly(self, body: bytes, pace: Pace) -> None:
        if body:
            self._is_slow(pace)
            await asyncio.sleep(pace.pause)
        size = max(1, min(READ_BYTES, -(-len(body) // SLOW_UPLOAD_CHUNKS)))
        for start in range(0, len(body), size):
            data = body[start : start + size]
            await self._sent(data)
            await asyncio.sleep(pace.seconds(len(data)))

    async def _download(self) -> None:
        while self._finished is None:
            event = self._protocol.next_event()
            if event is self._h11.NEED_DATA:
                data = await self._read()
                if not data and self._status is None:
                    raise self._no_response()
                self._protocol.receive_data(data)
            elif isinstance(event, self._h11.Response):
                self._status = event.status_code
                self._headers = self._httpx.Headers(event.headers.raw_items())
                self._leave_if_due(headers=True)
            elif isinstance(event, self._h11.Data):
                self._arrive(bytes(event.data), is_end=event.chunk_end)
            elif isinstance(event, self._h11.EndOfMessage):
                self._trailers = self._httpx.Headers(event.headers.raw_items())
                self._finished = self._now()
            elif isinstance(event, self._h11.ConnectionClosed):
                raise self._no_response()

    async def _read(self) -> bytes:
        assert self._reader is not None
        pace = self._client.reads
        if pace is None:
            return await self._reader.read(READ_BYTES)
        if pace.pause and not self._slowed:
            self._is_slow(pace)
            await asyncio.sleep(pace.pause)
        data = await self._reader.read(SLOW_READ_BYTES)
        if pace.rate and data:
            self._is_slow(pace)
            await asyncio.sleep(pace.seconds(len(data)))
        return data

    def _is_slow(self, pace: Pace) -> None:
        if not self._slowed:
            self._slowed = True
            pace.struck()

    def _arrive(self, data: bytes, *, is_end: bool) -> None:
        """Keep a chunk. With a chunked encoding, it is what the server has sent as one."""
        self._part.append(data)
        if is_end or self._headers.get("transfer-encoding", "").lower() != "chunked":
            chunk = b"".join(self._part)
            self._part.clear()
            if chunk:
                self._chunks.append(Chunk(self._now() - self.begun, chunk))
                self._leave_if_due(headers=False)

    # -- a client that leaves ----------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _at_its_moment(self) -> Any:
        """Let the client leave after its time."""
        leave = self._client.leaves
        seconds = None if leave is None else leave.seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            if seconds is None:
                raise
            self._leave()

    def _leave_if_due(self, *, headers: bool) -> None:
        leave = self._client.leaves
        if leave is None or leave.seconds is not None:
            return
        if leave.headers if headers else leave.chunks == len(self._chunks):
            self._leave()

    def _leave(self) -> None:
        """Disconnect."""
        leave = self._client.leaves or Leave()
        self._left = self._now()
        leave.struck()
        self._close(reset=leave.how == "reset")
        self._on_left()
        raise _LeftError

    def _close(self, *, reset: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if reset:
            held = writer.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        else:
            writer.close()

    # -- the answer --------------------------------------------------------------------------------

    def _no_response(self) -> Exception:
        error: Exception = self._h11.RemoteProtocolError(
            "the server closed the connection without a response"
        )
        return error

    def _failure(self, error: Exception) -> Exception:
        """Return the error as httpx's client raises it."""
        if isinstance(error, _NotConnectedError):
            kind = self._httpx.ConnectError
        elif isinstance(error, OSError):
            kind = self._httpx.ReadError
        else:
            kind = self._httpx.RemoteProtocolError
        made: Exception = kind(str(error) or type(error).__name__, request=self._request)
        made.__cause__ = error
        return made

    def _content(self) -> bytes:
        content = b"".join([*(chunk.data for chunk in self._chunks), *self._part])
        if "content-encoding" not in self._headers or self._finished is None:
            return content
        try:
            response = self._httpx.Response(200, headers=self._headers, content=content)
            return bytes(response.content)
        except self._httpx.DecodingError:
            return content


class _NotConnectedError(OSError):
    """The server did not accept the connection."""


class _LeftError(Exception):
    """The client has left."""

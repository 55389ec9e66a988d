"""Make the requests of aiohttp visits, and with it those of aiobotocore and s3fs.

An answer that is not the server's comes from a transport in memory, and a filter before the
protocol cuts or changes bytes. So aiohttp's own parser, time limits and retries work unmodified.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ...core.network import Exchange
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .answers import AnswerFilter
from .base import Network, mechanism
from .http_messages import write_error
from .sync_bodies import reset_error

__all__: list[str] = []

_struck: ContextVar[tuple[Exchange, str] | None] = ContextVar("mlchaos_aiohttp", default=None)
"""The exchange that gets a connection in memory, and how it fails."""


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Wrap the methods of connectors."""
    when_imported("aiohttp.connector", patches, functools.partial(_wrap, network, patches))


def _wrap(network: Network, patches: Patches) -> None:
    connector: Any = sys.modules["aiohttp.connector"]
    base = connector.BaseConnector
    patches.set(base, "connect", _connecting(network, base.connect))
    patches.set(base, "_get", _unpooled(base._get))
    for cls in (connector.TCPConnector, connector.UnixConnector):
        patches.set(cls, "_create_connection", _in_memory(cls._create_connection))


def _connecting(network: Network, original: Any) -> Any:
    @functools.wraps(original)
    async def connect(self: Any, req: Any, traces: Any, timeout: Any) -> Any:
        exchange = network.request(str(req.url), req.method)
        if exchange is None:
            return await original(self, req, traces, timeout)
        outcome = await network.outcome_async(exchange, timeout.sock_read or timeout.total)
        if outcome == "timeout":
            raise _late(timeout)
        if outcome or exchange.status is not None:
            token = _struck.set((exchange, outcome))
            try:
                return await original(self, req, traces, timeout)
            finally:
                _struck.reset(token)
        connection = await original(self, req, traces, timeout)
        _filter(connection.protocol, exchange, req.method)
        return connection

    return connect


def _late(timeout: Any) -> Exception:
    """Return the error of the time limit that has passed."""
    if not timeout.sock_read:
        return TimeoutError()
    from aiohttp import SocketTimeoutError

    error: Exception = SocketTimeoutError("Timeout on reading data from socket")
    return error


def _unpooled(original: Any) -> Any:
    """Give no pooled connection to a request that gets one in memory."""

    @functools.wraps(original)
    async def _get(self: Any, key: Any, traces: Any) -> Any:
        return None if _struck.get() is not None else await original(self, key, traces)

    return _get


def _in_memory(original: Any) -> Any:
    @functools.wraps(original)
    async def _create_connection(self: Any, req: Any, traces: Any, timeout: Any) -> Any:
        struck = _struck.get()
        if struck is None:
            return await original(self, req, traces, timeout)
        exchange, outcome = struck
        if outcome == "refused":
            from aiohttp import ClientConnectorError

            refused = ConnectionRefusedError(111, "Connect call failed")
            raise ClientConnectorError(req.connection_key, refused)
        protocol = self._factory()
        answer = write_error(exchange, method=req.method) if exchange.status else b""
        protocol.connection_made(_Transport(protocol, answer, outcome))
        return protocol

    return _create_connection


class _Transport(asyncio.Transport):
    """A transport without a network: it takes a request, and gives an answer or an error."""

    def __init__(self, protocol: Any, answer: bytes, outcome: str) -> None:
        super().__init__()
        self._protocol = protocol
        self._answer = answer
        self._outcome = outcome
        self._loop = asyncio.get_running_loop()
        self._begun = self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes of the request. The first ones bring the answer."""
        if not self._begun:
            self._begun = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        if self._closed:
            return
        if self._outcome == "reset":
            self._lose(reset_error())
            return
        self._protocol.data_received(self._answer)
        self._loop.call_soon(self.close)

    def _lose(self, error: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._protocol.connection_lost(error)

    def is_closing(self) -> bool:
        """Return True after the end."""
        return self._closed

    def close(self) -> None:
        """End the connection."""
        self._lose(None)

    def abort(self) -> None:
        """End the connection."""
        self._lose(None)

    def pause_reading(self) -> None:
        """Do nothing: there is nothing more to read."""

    def resume_reading(self) -> None:
        """Do nothing: there is nothing more to read."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: nothing is kept."""

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing is kept."""
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return no facts about a socket."""
        return default


def _filter(protocol: Any, exchange: Exchange, method: str) -> None:
    rate = None if exchange.pace is None else exchange.pace.bandwidth
    changed = (exchange.cut, exchange.corruption, rate, exchange.rewrite)
    if any(one is not None for one in changed):
        transport = protocol.transport
        transport.set_protocol(_Filter(protocol, transport, exchange, method))


class _Filter(asyncio.Protocol):
    """The bytes of one answer, before they reach aiohttp's protocol."""

    def __init__(self, protocol: Any, transport: Any, exchange: Exchange, method: str) -> None:
        self._protocol = protocol
        self._transport = transport
        self._rate = None if exchange.pace is None else exchange.pace.bandwidth
        self._filter = AnswerFilter(exchange, method)
        self._loop = asyncio.get_running_loop()
        self._at = 0.0
        self._lost = False

    def data_received(self, data: bytes) -> None:
        """Pass on what arrives."""
        self._pass(self._filter.feed(data))
        if self._filter.is_over and not self._at and not self._lost:
            self._transport.set_protocol(self._protocol)

    def _pass(self, data: bytes) -> None:
        if self._lost:
            return
        if data:
            seconds = len(data) / self._rate if self._rate else 0.0
            self._later(lambda: self._protocol.data_received(data), seconds)
        if self._filter.ended:
            self._lose(reset_error() if self._filter.ended == "rst" else None)
            self._transport.abort()

    def _later(self, action: Callable[[], None], seconds: float = 0.0) -> None:
        """Call an action in order, after the time that its bytes take."""
        if not self._at and not seconds:
            action()
            return
        self._at = max(self._loop.time(), self._at) + seconds
        self._loop.call_at(self._at, action)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._later(lambda: self._protocol.connection_lost(error))

    def eof_received(self) -> bool | None:
        """Pass the end of the stream on. It ends an answer of unknown length."""
        self._pass(self._filter.end())
        if not self._lost:
            self._later(self._protocol.eof_received)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on, once."""
        self._lose(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()

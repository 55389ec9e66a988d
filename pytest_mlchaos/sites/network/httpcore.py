"""Make the requests of httpcore visits, and with it those of httpx.

A filter around the network stream of a connection cuts, changes and answers. So the connection
pool, its retries and the parser of HTTP/1 work unmodified.
"""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from typing import Any

from ...core.network import Exchange
from ...engine.gate import pause
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .answers import AnswerFilter
from .base import Network, Outcome, active, mechanism
from .http_messages import error_headers, error_text, write_error

__all__: list[str] = []

REFUSED = "[Errno 111] Connection refused"
RESET = "[Errno 104] Connection reset by peer"


class _Request:
    """A request that is being sent, and what happens to it."""

    def __init__(self, url: str, method: str, exchange: Exchange) -> None:
        self.url = url
        self.method = method
        self.exchange: Exchange | None = exchange
        self._attempts = 0

    def connect(self, network: Network) -> Exchange | None:
        """Return what happens to an attempt to connect. Each further one is a visit."""
        self._attempts += 1
        if self._attempts > 1:
            self.exchange = network.request(self.url, self.method)
        return self.exchange


_current: ContextVar[_Request | None] = ContextVar("mlchaos_httpcore", default=None)


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Wrap the pools, the backends and the connections."""
    when_imported("httpcore", patches, functools.partial(_wrap, network, patches))


def _wrap(network: Network, patches: Patches) -> None:
    core: Any = sys.modules["httpcore"]
    pool, async_pool = core.ConnectionPool, core.AsyncConnectionPool
    patches.set(pool, "handle_request", _pooled(network, pool.handle_request))
    patches.set(
        async_pool,
        "handle_async_request",
        _pooled_async(network, async_pool.handle_async_request),
    )
    backend = core.SyncBackend
    patches.set(backend, "connect_tcp", _connecting(network, core, backend.connect_tcp))
    for name in ("AnyIOBackend", "TrioBackend"):
        other: Any = getattr(core, name, None)
        if hasattr(other, "connect_tcp"):  # without its package, a placeholder
            wrapper = _connecting_async(network, core, other.connect_tcp)
            patches.set(other, "connect_tcp", wrapper)
    connection, async_connection = core.HTTP11Connection, core.AsyncHTTP11Connection
    patches.set(connection, "handle_request", _sending(core, connection.handle_request, _Stream))
    patches.set(
        async_connection,
        "handle_async_request",
        _sending(core, async_connection.handle_async_request, _AsyncStream),
    )
    later, async_later = core.HTTP2Connection, core.AsyncHTTP2Connection
    if hasattr(later, "handle_request"):  # without h2, a placeholder
        patches.set(later, "handle_request", _multiplexed(network, core, later.handle_request))
        patches.set(
            async_later,
            "handle_async_request",
            _multiplexed_async(network, core, async_later.handle_async_request),
        )


def _begin(network: Network, request: Any) -> _Request | None:
    url = request.url
    port = f":{url.port}" if url.port is not None else ""
    address = b"%s://%s%s%s" % (url.scheme, url.host, port.encode(), url.target)
    text, method = address.decode("latin-1"), request.method.decode("latin-1")
    exchange = network.request(text, method)
    return None if exchange is None else _Request(text, method, exchange)


def _pooled(network: Network, original: Any) -> Any:
    @functools.wraps(original)
    def handle_request(self: Any, request: Any) -> Any:
        token = _current.set(_begin(network, request))
        try:
            return original(self, request)
        finally:
            _current.reset(token)

    return handle_request


def _pooled_async(network: Network, original: Any) -> Any:
    @functools.wraps(original)
    async def handle_async_request(self: Any, request: Any) -> Any:
        token = _current.set(_begin(network, request))
        try:
            return await original(self, request)
        finally:
            _current.reset(token)

    return handle_async_request


def _connects(network: Network, core: Any) -> bool:
    """Return False if the connection of this request is not to be made. Raise a refusal."""
    request = _current.get()
    exchange = None if request is None else request.connect(network)
    if exchange is None:
        return True
    if exchange.failure == "refused":
        raise core.ConnectError(REFUSED)
    return not exchange.failure and exchange.status is None


def _connecting(network: Network, core: Any, original: Any) -> Any:
    @functools.wraps(original)
    def connect_tcp(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _connects(network, core):
            return original(self, *args, **kwargs)
        return _Stream(core, None)

    return connect_tcp


def _connecting_async(network: Network, core: Any, original: Any) -> Any:
    @functools.wraps(original)
    async def connect_tcp(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _connects(network, core):
            return await original(self, *args, **kwargs)
        return _AsyncStream(core, None)

    return connect_tcp


def _sending(core: Any, original: Any, stream: Any) -> Any:
    """Put a filter around the stream of a connection, for a request that is struck."""

    @functools.wraps(original)
    def handle_request(self: Any, request: Any) -> Any:
        current = _current.get()
        if current is not None and current.exchange is not None:
            if not isinstance(self._network_stream, _Filtering):
                self._network_stream = stream(core, self._network_stream)
            self._network_stream.serve(current.exchange, current.method)
        return original(self, request)

    return handle_request


def _multiplexed(network: Network, core: Any, original: Any) -> Any:
    """Fail or answer a request over HTTP/2. Its bytes are neither cut nor changed."""

    @functools.wraps(original)
    def handle_request(self: Any, request: Any) -> Any:
        current = _current.get()
        exchange = None if current is None else current.exchange
        if exchange is not None:
            limit = request.extensions.get("timeout", {}).get("read")
            _raise(core, network.outcome(exchange, limit))
            if exchange.status is not None:
                return _answer(core, exchange)
        return original(self, request)

    return handle_request


def _multiplexed_async(network: Network, core: Any, original: Any) -> Any:
    @functools.wraps(original)
    async def handle_async_request(self: Any, request: Any) -> Any:
        current = _current.get()
        exchange = None if current is None else current.exchange
        if exchange is not None:
            limit = request.extensions.get("timeout", {}).get("read")
            _raise(core, await network.outcome_async(exchange, limit))
            if exchange.status is not None:
                return _answer(core, exchange)
        return await original(self, request)

    return handle_async_request


def _answer(core: Any, exchange: Exchange) -> Any:
    """Return an answer that is not the server's."""
    return core.Response(
        exchange.status, headers=error_headers(exchange), content=error_text(exchange)
    )


def _raise(core: Any, outcome: Outcome) -> None:
    if outcome == "timeout":
        raise core.ReadTimeout("The read operation timed out")
    if outcome:  # a server that is down has closed an open connection
        raise core.ReadError(RESET)


class _Filtering:
    """The common part of both streams: the state of the answer that is read.

    Args:
        core: The library.
        inner: The stream below, or None without a connection.
    """

    def __init__(self, core: Any, inner: Any) -> None:
        self._core = core
        self._inner = inner
        self._exchange: Exchange | None = None
        self._filter: AnswerFilter | None = None
        self._ready = b""
        self._begun = False

    def serve(self, exchange: Exchange, method: str) -> None:
        """Carry out what happens to the next request."""
        self._exchange = exchange
        self._filter = AnswerFilter(exchange, method)
        self._ready = write_error(exchange, method=method) if exchange.status else b""
        self._begun = False

    @property
    def _is_offline(self) -> bool:
        """Return True if nothing is sent to the server."""
        exchange = self._exchange
        return self._inner is None or (
            exchange is not None and (bool(exchange.failure) or exchange.status is not None)
        )

    def _network(self) -> Network | None:
        """Return the network, at the first read of an answer."""
        if self._begun:
            return None
        self._begun = True
        return active()

    def _next(self, size: int) -> bytes | None:
        """Return what is left of an answer or its end, or None to read more."""
        if self._ready:
            part, self._ready = self._ready[:size], self._ready[size:]
            return part
        ended = "" if self._filter is None else self._filter.ended
        if ended == "rst":
            raise self._core.ReadError(RESET)
        if ended or self._is_offline:
            return b""
        if self._filter is not None and self._filter.is_over:
            self._filter = self._exchange = None
        return None

    def _arrived(self, data: bytes) -> float:
        """Keep what arrives, and return the seconds that it takes."""
        if self._filter is None or self._exchange is None:
            self._ready = data
            return 0.0
        self._ready = self._filter.feed(data) if data else self._filter.end()
        network = active()
        return 0.0 if network is None else network.transferred(self._exchange, len(self._ready))

    def get_extra_info(self, info: str) -> Any:
        """Return a fact about the stream below."""
        return None if self._inner is None else self._inner.get_extra_info(info)


class _Stream(_Filtering):
    """A stream in front of the one of a connection."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return bytes that arrive."""
        network = self._network()
        if network is not None and self._exchange is not None:
            _raise(self._core, network.outcome(self._exchange, timeout))
        while True:
            part = self._next(max_bytes)
            if part is not None:
                return part
            data = self._inner.read(max_bytes, timeout)
            seconds = self._arrived(data)
            watched = active()
            if seconds and watched is not None:
                watched.controller.clock.sleep(seconds)
            if not data and not self._ready:
                return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes, unless the fault answers."""
        if not self._is_offline:
            self._inner.write(buffer, timeout)

    def close(self) -> None:
        """Close the stream below."""
        if self._inner is not None:
            self._inner.close()

    def start_tls(self, *args: Any, **kwargs: Any) -> Any:
        """Return the encrypted stream. Without a connection there is none."""
        return self if self._inner is None else self._inner.start_tls(*args, **kwargs)


class _AsyncStream(_Filtering):
    """A stream in front of the one of a connection, for coroutines."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return bytes that arrive."""
        network = self._network()
        if network is not None and self._exchange is not None:
            _raise(self._core, await network.outcome_async(self._exchange, timeout))
        while True:
            part = self._next(max_bytes)
            if part is not None:
                return part
            data = await self._inner.read(max_bytes, timeout)
            seconds = self._arrived(data)
            watched = active()
            if seconds and watched is not None:
                await pause(watched.controller.clock, seconds)
            if not data and not self._ready:
                return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes, unless the fault answers."""
        if not self._is_offline:
            await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the stream below."""
        if self._inner is not None:
            await self._inner.aclose()

    async def start_tls(self, *args: Any, **kwargs: Any) -> Any:
        """Return the encrypted stream. Without a connection there is none."""
        return self if self._inner is None else await self._inner.start_tls(*args, **kwargs)

"""Make the requests to mock transports of httpx visits.

Those of its HTTP transports are visits of httpcore, below them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ...core.network import Exchange, Flow, Rewriter
from ...engine.gate import pause
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .answers import decoded, framing_headers
from .base import Network, Outcome, mechanism
from .http_messages import error_headers, error_text

__all__: list[str] = []


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Wrap the transports' methods."""
    when_imported("httpx", patches, functools.partial(_wrap_transports, network, patches))


def _wrap_transports(network: Network, patches: Patches) -> None:
    httpx: Any = sys.modules["httpx"]
    mock = httpx.MockTransport
    patches.set(mock, "handle_request", _sync(network, mock.handle_request))
    patches.set(mock, "handle_async_request", _async(network, mock.handle_async_request))


def _begin(network: Network, request: Any) -> Exchange | None:
    return network.request(str(request.url), request.method)


def _sync(network: Network, original: Any) -> Any:
    @functools.wraps(original)
    def handle_request(self: Any, request: Any) -> Any:
        exchange = _begin(network, request)
        if exchange is None:
            return original(self, request)
        _raise(network.outcome(exchange, _limit(request)), request)
        if exchange.status is not None:
            return _answer(exchange)
        return _filtered(network, exchange, original(self, request), sync=True)

    return handle_request


def _async(network: Network, original: Any) -> Any:
    @functools.wraps(original)
    async def handle_async_request(self: Any, request: Any) -> Any:
        exchange = _begin(network, request)
        if exchange is None:
            return await original(self, request)
        _raise(await network.outcome_async(exchange, _limit(request)), request)
        if exchange.status is not None:
            return _answer(exchange)
        response = await original(self, request)
        return _filtered(network, exchange, response, sync=False)

    return handle_async_request


def _limit(request: Any) -> float | None:
    limit: float | None = request.extensions.get("timeout", {}).get("read")
    return limit


def _raise(outcome: Outcome, request: Any) -> None:
    import httpx

    if outcome == "refused":
        raise httpx.ConnectError("[Errno 111] Connection refused", request=request)
    if outcome == "reset":
        raise httpx.ReadError("[Errno 104] Connection reset by peer", request=request)
    if outcome == "timeout":
        raise httpx.ReadTimeout("The read operation timed out", request=request)


def _answer(exchange: Exchange) -> Any:
    """Return an answer that is not the server's."""
    import httpx

    return httpx.Response(
        exchange.status or 503, headers=error_headers(exchange), content=error_text(exchange)
    )


def _filtered(network: Network, exchange: Exchange, response: Any, *, sync: bool) -> Any:
    """Return an answer whose body arrives as the exchange says."""
    import httpx

    if exchange.rewrite is not None:
        return _rewritten(response, exchange.rewrite(), sync=sync)
    stream = _Body(network, exchange, response)
    body: Any = _sync_stream(stream) if sync else _async_stream(stream)
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        stream=body,
        extensions=response.extensions,
    )


def _rewritten(response: Any, rewriter: Rewriter, *, sync: bool) -> Any:
    """Return an answer with a different body."""
    import httpx

    kept = [(name, held) for name, held in response.headers.items() if name not in framing_headers]
    encoding = response.headers.get("content-encoding", "")
    stream = _sync_rewritten if sync else _async_rewritten
    return httpx.Response(
        response.status_code,
        headers=kept,
        stream=stream(response.stream, rewriter, encoding),
        extensions=response.extensions,
    )


def _sync_rewritten(inner: Any, rewriter: Rewriter, encoding: str) -> Any:
    import httpx

    class Stream(httpx.SyncByteStream):  # type: ignore[misc]  # httpx is not checked here
        """The bytes of a different body."""

        def __iter__(self) -> Iterator[bytes]:
            pieces = [decoded(b"".join(inner), encoding)] if encoding else inner
            for piece in pieces:
                if arrives := rewriter.feed(piece):
                    yield arrives
            if arrives := rewriter.end():
                yield arrives

        def close(self) -> None:
            inner.close()

    return Stream()


def _async_rewritten(inner: Any, rewriter: Rewriter, encoding: str) -> Any:
    import httpx

    class Stream(httpx.AsyncByteStream):  # type: ignore[misc]  # httpx is not checked here
        """The bytes of a different body."""

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = inner
            if encoding:
                pieces = _one(decoded(b"".join([piece async for piece in inner]), encoding))
            async for piece in pieces:
                if arrives := rewriter.feed(piece):
                    yield arrives
            if arrives := rewriter.end():
                yield arrives

        async def aclose(self) -> None:
            await inner.aclose()

    return Stream()


class _Body:
    """The body of an answer, and how its end is told."""

    def __init__(self, network: Network, exchange: Exchange, response: Any) -> None:
        self.stream = response.stream
        self.exchange = exchange
        self.network = network
        length = response.headers.get("content-length", "")
        self._length = int(length) if length.isdigit() else None
        self._chunked = "chunked" in response.headers.get("transfer-encoding", "")
        self.is_held = self._length is None and exchange.needs_length
        self._flow = Flow(exchange, self._length)
        self._received = 0

    def holding(self, whole: bytes) -> None:
        """Note the length of an answer that was read to its end."""
        self._flow = Flow(self.exchange, len(whole))

    def feed(self, data: bytes) -> tuple[bytes, float]:
        """Return what arrives of a piece, and the seconds that it takes."""
        arrives = self._flow.feed(data)
        self._received += len(arrives)
        return arrives, self.network.transferred(self.exchange, len(arrives))

    def is_over(self) -> bool:
        """Return True after an early end that cannot be noticed. Raise what it causes if it can."""
        import httpx

        if not self._flow.ended:
            return False
        if self._flow.ended == "rst":
            raise httpx.ReadError("[Errno 104] Connection reset by peer")
        how = (
            f"received {self._received} bytes, expected {self._length}"
            if self._length is not None
            else "incomplete chunked read"
        )
        if self._length is not None or self._chunked:
            raise httpx.RemoteProtocolError(
                f"peer closed connection without sending complete message body ({how})"
            )
        return True


def _sync_stream(body: _Body) -> Any:
    import httpx

    class Stream(httpx.SyncByteStream):  # type: ignore[misc]  # httpx is not checked here
        """The bytes that arrive."""

        def __iter__(self) -> Iterator[bytes]:
            pieces: Any = body.stream
            if body.is_held:
                pieces = [b"".join(pieces)]
                body.holding(pieces[0])
            for piece in pieces:
                arrives, seconds = body.feed(piece)
                if seconds:
                    body.network.controller.clock.sleep(seconds)
                if arrives:
                    yield arrives
                if body.is_over():
                    return

        def close(self) -> None:
            body.stream.close()

    return Stream()


def _async_stream(body: _Body) -> Any:
    import httpx

    class Stream(httpx.AsyncByteStream):  # type: ignore[misc]  # httpx is not checked here
        """The bytes that arrive."""

        async def __aiter__(self) -> AsyncIterator[bytes]:
            if body.is_held:
                whole = b"".join([piece async for piece in body.stream])
                body.holding(whole)
                pieces = _one(whole)
            else:
                pieces = body.stream
            async for piece in pieces:
                arrives, seconds = body.feed(piece)
                if seconds:
                    await pause(body.network.controller.clock, seconds)
                if arrives:
                    yield arrives
                if body.is_over():
                    return

        async def aclose(self) -> None:
            await body.stream.aclose()

    return Stream()


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece

"""Make the requests of botocore (boto3) visits, also those that a mock answers.

Each attempt is one. It fails below botocore's own retries, and below its parser.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import sys
from typing import Any

from ...core.network import Exchange, Pace
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .base import Network, carrying, mechanism
from .http_messages import error_headers, error_text
from .sync_bodies import FilteredFile, reset_error

__all__: list[str] = []


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Wrap the function that makes one attempt."""
    when_imported("botocore.endpoint", patches, functools.partial(_wrap_endpoint, network, patches))


def _wrap_endpoint(network: Network, patches: Patches) -> None:
    endpoint: Any = sys.modules["botocore.endpoint"]
    original = endpoint.Endpoint._do_get_response

    @functools.wraps(original)
    def _do_get_response(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = network.request(request.url, request.method)
        if exchange is None:
            with carrying(None):
                return original(self, request, *args, **kwargs)
        error = _failure(network, exchange, self, request)
        if error is not None:
            return None, error  # as botocore returns an error of its session
        answering = copy.copy(self)
        answering._event_emitter = _Emitter(self._event_emitter, network, exchange, request)
        with carrying(_rest(exchange)):
            return original(answering, request, *args, **kwargs)

    patches.set(endpoint.Endpoint, "_do_get_response", _do_get_response)


def _rest(exchange: Exchange) -> Exchange | None:
    """Return what is left for the answer of a real server."""
    pace = None if exchange.pace is None else Pace(bandwidth=exchange.pace.bandwidth)
    rest = dataclasses.replace(exchange, failure="", status=None, pace=pace)
    return None if rest.is_quiet else rest


def _failure(network: Network, exchange: Exchange, endpoint: Any, request: Any) -> Exception | None:
    """Return what botocore's session raises for a failure, or None."""
    from botocore import exceptions

    timeout = getattr(endpoint.http_session, "_timeout", None)
    read = timeout[-1] if isinstance(timeout, (tuple, list)) else timeout
    read = getattr(read, "read_timeout", read)
    outcome = network.outcome(exchange, read if isinstance(read, (int, float)) else None)
    where = {"endpoint_url": request.url}
    if outcome == "refused":
        refused = ConnectionRefusedError(111, "Connection refused")
        return exceptions.EndpointConnectionError(error=refused, **where)  # type: ignore[no-any-return]
    if outcome == "reset":
        return exceptions.ConnectionClosedError(  # type: ignore[no-any-return]
            error=reset_error(), request=request, **where
        )
    if outcome == "timeout":
        late = TimeoutError("Read timed out.")
        return exceptions.ReadTimeoutError(error=late, **where)  # type: ignore[no-any-return]
    return None


class _Emitter:
    """The events of one attempt: the fault answers, or changes what a mock has answered."""

    def __init__(self, emitter: Any, network: Network, exchange: Exchange, request: Any) -> None:
        self._emitter = emitter
        self._network = network
        self._exchange = exchange
        self._request = request

    def emit(self, event_name: str, **kwargs: Any) -> Any:
        """Pass an event on, except that a request is sent."""
        if not event_name.startswith("before-send."):
            return self._emitter.emit(event_name, **kwargs)
        exchange = self._exchange
        if exchange.status is not None:
            body = b"" if self._request.method == "HEAD" else error_text(exchange)
            return [
                (None, _answer(self._request.url, exchange.status, error_headers(exchange), body))
            ]
        answers = self._emitter.emit(event_name, **kwargs)
        for _, answer in answers:
            if answer is not None:
                self._filter(answer)
        return answers

    def _filter(self, answer: Any) -> None:
        """Let the body that a mock has answered arrive as the exchange says."""
        if getattr(answer, "_content", None) is not None:
            answer._content = None
        content = answer.raw.read()
        if self._exchange.rewrite is not None:
            rewriter = self._exchange.rewrite()
            content = rewriter.feed(content) + rewriter.end()
        body = FilteredFile(self._network, io.BytesIO(content), self._exchange, len(content))
        answer.raw = _Raw(body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._emitter, name)


class _Raw(io.BufferedReader):
    """A body as botocore reads it: a file that can also be streamed."""

    def stream(self, amount: int = 1024, **_: object) -> Any:
        """Yield the pieces of the body."""
        while piece := self.read(amount):
            yield piece


def _answer(url: str, status: int, headers: dict[str, str], body: bytes) -> Any:
    from botocore.awsrequest import AWSResponse, HeadersDict

    return AWSResponse(url, status, HeadersDict(headers), _Raw(io.BytesIO(body)))

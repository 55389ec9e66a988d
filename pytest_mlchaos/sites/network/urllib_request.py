"""Make the requests of the standard library's urllib.request visits."""

from __future__ import annotations

import email.message
import functools
import http.client
import io
import sys
import urllib.error
from typing import Any

from ...core.network import Exchange
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .base import Network, carrying, mechanism
from .http_messages import write_error
from .sync_bodies import reset_error

__all__: list[str] = []


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Wrap the function that sends one request."""
    when_imported("urllib.request", patches, functools.partial(_wrap_handler, network, patches))


def _wrap_handler(network: Network, patches: Patches) -> None:
    request: Any = sys.modules["urllib.request"]
    original = request.AbstractHTTPHandler.do_open

    @functools.wraps(original)
    def do_open(self: Any, http_class: Any, req: Any, **args: Any) -> Any:
        exchange = network.request(req.full_url, req.get_method())
        if exchange is None:
            return original(self, http_class, req, **args)
        _fail(network, exchange, req)
        if exchange.status is not None:
            return _answer(exchange, req)
        with carrying(exchange):
            return original(self, http_class, req, **args)

    patches.set(request.AbstractHTTPHandler, "do_open", do_open)


def _fail(network: Network, exchange: Exchange, req: Any) -> None:
    """Raise what urllib.request raises, for a failure."""
    timeout = req.timeout if isinstance(req.timeout, (int, float)) else None
    outcome = network.outcome(exchange, timeout)
    if outcome == "refused":
        raise urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
    if outcome == "reset":
        raise reset_error()
    if outcome == "timeout":
        raise TimeoutError("timed out")


def _answer(exchange: Exchange, req: Any) -> http.client.HTTPResponse:
    """Return an answer that is not the server's."""

    class Socket:
        """A socket that holds the answer."""

        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(write_error(exchange, method=req.get_method()))

    response: Any = http.client.HTTPResponse(Socket(), method=req.get_method())  # type: ignore[arg-type]
    response.begin()
    response.url = req.get_full_url()
    response.msg = response.reason
    assert isinstance(response.headers, email.message.Message)
    return response  # type: ignore[no-any-return]

"""Make the requests of urllib3 visits, and with it those of requests and botocore.

Each attempt is one. It fails below urllib3's own retries.
"""

from __future__ import annotations

import functools
import inspect
import io
import sys
from typing import Any

from ...core.network import Exchange
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from .base import Network, carrying, mechanism
from .http_messages import error_headers, error_text, reason_of
from .sync_bodies import reset_error

__all__: list[str] = []


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Wrap the function that makes one attempt."""
    when_imported(
        "urllib3.connectionpool", patches, functools.partial(_wrap_pools, network, patches)
    )


def _wrap_pools(network: Network, patches: Patches) -> None:
    pools: Any = sys.modules["urllib3.connectionpool"]
    original = pools.HTTPConnectionPool._make_request
    signature = inspect.signature(original)

    @functools.wraps(original)
    def _make_request(
        self: Any, conn: Any, method: str, url: str, *args: Any, **kwargs: Any
    ) -> Any:
        address = url if "://" in url else f"{self.scheme}://{self.host}:{self.port}{url}"
        exchange = network.request(_without_usual_port(address), method)
        if exchange is None:
            with carrying(None):
                return original(self, conn, method, url, *args, **kwargs)
        given = signature.bind(self, conn, method, url, *args, **kwargs)
        given.apply_defaults()
        _fail(network, exchange, self, conn, url, given.arguments)
        if exchange.status is not None:
            return _answer(exchange, self, method, url, given.arguments)
        with carrying(exchange):
            return original(self, conn, method, url, *args, **kwargs)

    patches.set(pools.HTTPConnectionPool, "_make_request", _make_request)


def _without_usual_port(address: str) -> str:
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    usual = {"http": ":80", "https": ":443"}.get(scheme, "")
    host = host.removesuffix(usual) if usual else host
    return f"{scheme}://{host}{slash}{path}"


def _fail(
    network: Network, exchange: Exchange, pool: Any, conn: Any, url: str, arguments: Any
) -> None:
    """Raise what urllib3 raises at this place, for a failure."""
    from urllib3.exceptions import NewConnectionError, ReadTimeoutError

    timeout = pool._get_timeout(arguments.get("timeout")).read_timeout
    seconds = timeout if isinstance(timeout, (int, float)) else None
    outcome = network.outcome(exchange, seconds)
    if outcome == "refused" and not getattr(conn, "sock", None):
        raise NewConnectionError(
            conn, "Failed to establish a new connection: [Errno 111] Connection refused"
        )
    if outcome in ("refused", "reset"):  # a server that is down has closed an open connection
        raise reset_error()
    if outcome == "timeout":
        raise ReadTimeoutError(pool, url, f"Read timed out. (read timeout={timeout})")


def _answer(exchange: Exchange, pool: Any, method: str, url: str, arguments: Any) -> Any:
    """Return an answer that is not the server's."""
    from urllib3.response import HTTPResponse

    body = b"" if method == "HEAD" else error_text(exchange)
    response = HTTPResponse(
        io.BytesIO(body),
        headers=error_headers(exchange),
        status=exchange.status or 0,
        version=11,
        reason=reason_of(exchange.status or 0),
        preload_content=arguments.get("preload_content", True),
        decode_content=arguments.get("decode_content", True),
        request_method=method,
        request_url=url,
    )
    response.retries = arguments.get("retries")
    response._connection = arguments.get("response_conn")
    response._pool = pool
    return response

"""Run proxies on loopback, whose connections are visits.

Threads pass the bytes on in real time. Python code of this process makes its visit in ``connect``,
so that a refused connection looks like one, and the order of visits is that of the program. Other
clients make it when they are accepted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import re
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ...core.network import Exchange
from ...core.validation import did_you_mean, format_value
from ...engine.controller import Controller
from ...engine.patching import Patches
from ...engine.zones import zone_map
from ...errors import BadArgument
from .base import PROXIES, Network, active, mechanism, plain_url
from .connection import Connection

__all__ = ["open_proxy", "proxied_zones"]

PORTS = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "kafka": 9092,
    "mongodb": 27017,
    "amqp": 5672,
    "nats": 4222,
}
"""The usual port of a scheme, without a driver's name."""
PROTOCOLS = ("tcp", "http")
HOST = "127.0.0.1"
CONNECT_SECONDS = 5.0
_open: dict[int, Proxy] = {}
"""The open proxies by their port."""


def proxied_zones() -> list[str]:
    """Return the zones of the open proxies."""
    return [proxy.zone for proxy in _open.values() if proxy.zone]


def open_proxy(
    controller: Controller, url: str, *, port: int, zone: str, protocol: str | None
) -> str:
    """Open a proxy until the body of the test ends. Return its URL.

    Raises:
        BadArgument: The address is not one, its server is down, or the port is in use.
    """
    scheme, host, upstream_port, form = _address(url)
    chosen = _protocol(protocol, scheme)
    _check_running(url, (host, upstream_port))
    proxy = Proxy((host, upstream_port), plain_url(url), _listen(port), zone, chosen)
    controller.resources.callback(proxy.close)
    proxy.start()
    _tell_children()
    return form(f"{HOST}:{proxy.port}")


def _address(url: str) -> tuple[str, str, int, Callable[[str], str]]:
    """Return the scheme, host and port of an address, and a function that sets another one."""
    rule = (
        "mlchaos.proxy: url must be an address such as 'http://127.0.0.1:9000' or 'localhost:9092'"
    )
    if "," in url:
        raise BadArgument(f"{rule}, got several. Call mlchaos.proxy for each of them")
    scheme, colon, _ = url.partition("://")
    try:
        parts = urlsplit(url if colon else f"tcp://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadArgument(f"{rule}, got {format_value(plain_url(url))}: {error}") from None
    port = port or PORTS.get(scheme.partition("+")[0].lower() if colon else "")
    if not host or not port or re.search(r"\s", url):
        missing = "a port" if host else "a host"
        raise BadArgument(f"{rule}, got {format_value(url)} without {missing}")
    authority = parts.netloc
    user, at, _ = authority.rpartition("@")

    def form(address: str) -> str:
        new = f"{user}{at}{address}"
        return url.replace(authority, new, 1) if authority else url

    return (scheme.lower() if colon else ""), host, port, form


def _protocol(protocol: str | None, scheme: str) -> str:
    if protocol is None:
        return "http" if scheme == "http" else "tcp"
    if protocol not in PROTOCOLS:
        known = " or ".join(map(repr, PROTOCOLS))
        raise BadArgument(
            f"mlchaos.proxy: protocol must be {known}, got {format_value(protocol)}"
            f"{did_you_mean(protocol, PROTOCOLS)}. A proxy passes other protocols as 'tcp'"
        )
    if protocol == "http" and scheme == "https":
        raise BadArgument(
            "mlchaos.proxy: protocol='http' cannot read https, because it is encrypted. Use the "
            "http:// address of the server, or protocol='tcp'"
        )
    return protocol


def _check_running(url: str, address: tuple[str, int]) -> None:
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise BadArgument(
            f"mlchaos.proxy: url must be the address of a running server, got "
            f"{plain_url(url)!r} ({error.strerror or error}). Start the server first"
        ) from None


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise BadArgument(
                f"mlchaos.proxy: port must be free, and {port} is in use. Leave port= out for a "
                f"free one"
            ) from None
        raise BadArgument(
            f"mlchaos.proxy: port must be one to listen on, got {port}: {error}"
        ) from None
    return listener


def _tell_children() -> None:
    """Let child processes know the ports, so that their client libraries leave them alone."""
    ports = ",".join(map(str, _open))
    if ports:
        os.environ[PROXIES] = ports
    else:
        os.environ.pop(PROXIES, None)


class Proxy:
    """A proxy of one address. Threads accept its connections and pass their bytes on."""

    def __init__(
        self,
        upstream: tuple[str, int],
        url: str,
        listener: socket.socket,
        zone: str,
        protocol: str,
    ) -> None:
        self.upstream = upstream
        self.port: int = listener.getsockname()[1]
        self.pid = os.getpid()
        self.zone = zone
        self.closing = threading.Event()
        self._exchange = Exchange(url, protocol, zone)
        self._listener = listener
        self._lock = threading.Lock()
        self._tickets: dict[int, Exchange] = {}
        self._connections: dict[Connection, None] = {}
        self._begun = 0
        self._thread = threading.Thread(
            target=self._accept, name=f"mlchaos-proxy-{self.port}", daemon=True
        )

    def start(self) -> None:
        """Accept connections from now on."""
        _open[self.port] = self
        self._thread.start()

    def close(self) -> None:
        """End all connections, and free the port. A second call does nothing."""
        if _open.pop(self.port, None) is None or os.getpid() != self.pid:
            return
        _tell_children()
        self.closing.set()
        # A close alone does not end an accept that waits.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(CONNECT_SECONDS)
        self._listener.close()
        for connection in self._all():
            connection.stop()
        for connection in self._all():
            connection.join(CONNECT_SECONDS)

    def begin(self, *, request: int = 0, method: str = "") -> Exchange:
        """Return what happens to a connection, or to a further request on one."""
        network = active()
        if network is None:
            return self._exchange
        network.on_outage.setdefault(self.port, self._end_zone)
        with self._lock:
            number = self._begun
            self._begun += not request
        attributes = {"port": self.port, "connection": number, "request": request}
        return network.begin(self._zoned(), {**attributes, "method": method})

    def _zoned(self) -> Exchange:
        """Return the exchange with its zone: the proxy's own, or that of its address."""
        exchange = self._exchange
        if exchange.zone:
            return exchange
        scheme = exchange.url.partition("://")[0]
        zone = zone_map().zone_of(exchange.url, f"{scheme}://{HOST}:{self.port}")
        return dataclasses.replace(exchange, zone=zone)

    def expect(self, port: int, exchange: Exchange) -> None:
        """Keep what happens to a connection that this process begins at a port."""
        self._tickets[port] = exchange

    def is_expected(self, port: int) -> bool:
        """Return True if this process has begun a connection at a port."""
        return port in self._tickets

    def forget(self, port: int) -> None:
        """Forget a connection that did not come about."""
        self._tickets.pop(port, None)

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                client, (_, port) = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, client, self._exchange)
            self._connections[connection] = None
            # The visit belongs to this thread, so that connections are numbered as they come.
            exchange = self._tickets.pop(port, None) or connection.begin()
            if exchange is not None:
                connection.start(exchange)

    def ended(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def _all(self) -> list[Connection]:
        return list(self._connections)

    def _end_zone(self, outage: Any) -> None:
        """Reset the open connections that an outage covers."""
        exchange = dataclasses.replace(self._zoned(), caller=zone_map().home)
        if outage.covers(exchange):
            for connection in self._all():
                connection.reset()


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Let ``connect`` of this process's sockets make the visits of proxies."""
    for name in ("connect", "connect_ex"):
        patches.set(socket.socket, name, _connecting(getattr(socket.socket, name), name))


def _connecting(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def connect(self: socket.socket, address: Any, /) -> Any:
        proxy = _proxy_at(self, address)
        if proxy is None:
            return original(self, address)
        if not self.getsockname()[1]:
            self.bind((HOST, 0))
        port = self.getsockname()[1]
        if proxy.is_expected(port):  # a second call, which completes the first
            return original(self, address)
        exchange = proxy.begin()
        if exchange.failure == "refused":
            if name == "connect_ex":
                return errno.ECONNREFUSED
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        proxy.expect(port, exchange)
        try:
            return original(self, address)
        except BlockingIOError:
            raise
        except OSError:
            proxy.forget(port)
            raise

    return connect


def _proxy_at(sock: socket.socket, address: object) -> Proxy | None:
    if not _open or sock.family != socket.AF_INET or not sock.type & socket.SOCK_STREAM:
        return None
    if not isinstance(address, tuple) or len(address) != 2:
        return None
    proxy = _open.get(address[1])
    if proxy is None or address[0] not in (HOST, "localhost") or proxy.pid != os.getpid():
        return None
    return proxy

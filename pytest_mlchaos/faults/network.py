"""Define faults of the network: connections and requests that fail, are slow, or end early.

They strike at the proxies of ``mlchaos.proxy``, and at the requests of HTTP client libraries.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from ..core.collectives import COLLECTIVE, across
from ..core.faults import Fault, is_drawn, register
from ..core.network import NETWORK, Corruption, Cut, Exchange, Pace
from ..core.sites import Key, Visit
from ..core.validation import format_value, index, parse_duration, parse_size
from ..errors import BadArgument, PayloadMismatch
from .ranks.link_sides import check_heal_after, check_sides_in_world, cut, parse_pair

__all__ = [
    "Blackhole",
    "CorruptBytes",
    "CutConnection",
    "HttpError",
    "NetworkFault",
    "Refused",
    "Reset",
    "SlowNetwork",
    "fails",
    "needs_http",
    "note_exchange",
    "parse_rate",
]
LAYER = "Network"
CALL_PROTOCOL = "call"
"""The protocol of a call of a zone's member."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class NetworkFault(Fault):
    """A fault of a connection of a proxy, or of a request of an HTTP client library.

    ``at`` counts the connections and requests that match, in the order in which they begin. Each
    further request on an open HTTP connection counts, too, and each call of a member of
    ``mlchaos.zones``.

    Args:
        url: A pattern (``"http://api/*"``, ``"redis://*"``) that must match the address without
            credentials and query. For a proxy, this is the address behind it.
        zone: The zone of a proxy, or of a member of ``mlchaos.zones``.
        target: A client that makes the request: ``"pkg.mod:client"``, its class, or a function
            around it.
    """

    site = NETWORK
    random = False
    needs_bytes: ClassVar[bool] = False
    """True if it changes bytes. A call of a zone's member has none."""
    url: str | None = None
    zone: str | None = None
    target: str | None = None

    def check(self) -> None:
        """Refuse empty patterns."""
        for name in ("url", "zone", "target"):
            value = getattr(self, name)
            if value is not None and not is_drawn(value) and not value.strip():
                raise BadArgument(
                    f"{self.name}: {name} must not be empty, got {format_value(value)}"
                )

    def possible(self, visit: Visit) -> bool:
        """Return False for a call, which has no bytes, if the fault needs some."""
        return not self.needs_bytes or visit.payload.protocol != CALL_PROTOCOL

    @property
    def key(self) -> Key:
        """Count the visits of each selection separately."""
        chosen = [
            f"{name}={value}"
            for name in ("url", "zone", "target")
            if (value := getattr(self, name)) is not None
        ]
        return (self.site, " ".join(chosen)) if chosen else self.site


def note_exchange(visit: Visit) -> Exchange:
    """Note in the journal what is struck."""
    exchange: Exchange = visit.payload
    if exchange.protocol == CALL_PROTOCOL:
        visit.note(target=exchange.url)
    else:
        visit.note(url=exchange.origin)
    if exchange.zone:
        visit.note(zone=exchange.zone)
    return exchange


def fails(visit: Visit, failure: Literal["refused", "reset", "blackhole"]) -> Exchange:
    """Return the exchange, which fails, and note it in the journal."""
    return dataclasses.replace(note_exchange(visit), failure=failure)


def _later(visit: Visit, kind: str) -> tuple[tuple[str, Callable[[], None]], ...]:
    """Record the strike when this kind of effect takes place, once."""
    exchange: Exchange = visit.payload
    struck = False

    def took_effect() -> None:
        nonlocal struck
        if not struck:
            struck = True
            visit.record_injection()

    visit.skip()
    return (*exchange.took_effect, (kind, took_effect))


def _check_place(fault: Fault, name: str = "after") -> None:
    """Convert a position to a share (a float) or to bytes (an int)."""
    value = getattr(fault, name)
    if value is None or is_drawn(value):
        return
    if isinstance(value, str):
        with contextlib.suppress(BadArgument):  # its error would mention a size alone
            object.__setattr__(fault, name, parse_size(value, f"{fault.name}: {name}"))
            return
    share = isinstance(value, float) and 0 <= value < 1
    if isinstance(value, bool) or not (share or index(value) is not None):
        raise BadArgument(
            f"{fault.name}: {name} must be a share below 1 (0.5), a number of bytes (100) or a "
            f"text such as '64KiB', got {format_value(value)}"
        )


def _needs_bytes(fault: Fault, exchange: Exchange, what: str) -> None:
    if exchange.protocol == CALL_PROTOCOL:
        raise PayloadMismatch(
            f"{fault.name}: {what} needs bytes, and a call of {exchange.url} has none. Use "
            f"call_failure, or put a proxy before a server"
        )


def needs_http(fault: Fault, exchange: Exchange, what: str, instead: str) -> None:
    """Refuse a connection whose bytes are not understood."""
    _needs_bytes(fault, exchange, what)
    if exchange.protocol != "http":
        raise PayloadMismatch(
            f"{fault.name}: {what} needs HTTP, and the proxy for {exchange.url} passes plain "
            f"bytes. {instead}"
        )


def _check_share(fault: Fault, exchange: Exchange, after: float | int) -> None:
    _needs_bytes(fault, exchange, "after=")
    if isinstance(after, float):
        needs_http(
            fault,
            exchange,
            f"after={after!r}, a share of the answer,",
            'Give a number of bytes, as in after="1KiB", or use protocol="http"',
        )


@register
class CutConnection(NetworkFault):
    """A connection is closed in the middle of a transfer.

    The beginning arrives, and then the connection ends in an orderly way (FIN). A client that does
    not compare the length has accepted a part for the whole.

    Args:
        after: The share (0.5) or the number of bytes (``"64KiB"``, 100) that arrive. For HTTP
            these are bytes of the body, else all bytes of the connection. A share needs HTTP.
        direction: ``"download"``, or ``"upload"``: the bytes that the client sends.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a server that crashes or is redeployed, a load balancer with an idle time-out.

    Fidelity: a body that is shorter than ``after`` does not count as struck. Requests of client
    libraries, without a proxy, are cut in the answer alone, and not over HTTP/2. An answer of unknown length is read to
    its end before its share arrives.

    Source: RFC 9112, section 8, https://www.rfc-editor.org/rfc/rfc9112#section-8

    Example: @chaos.cut_connection(after=0.5, at=0)
    """

    needs_bytes = True
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 40, "bad_day": 40}
    # A share needs HTTP. The others cut an answer, or a result, of plain bytes.
    # Small ones lose the acknowledgement of a command that the server has carried out.
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"after": 16},
        {"after": 100},
        {"after": 32},
        {"after": 4096},
    )
    after: Any = 0.5
    direction: Literal["download", "upload"] = "download"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        _check_place(self)
        if self.after is None:
            raise BadArgument(f"{self.name}: after must be a share or a number of bytes, got None")
        if self.direction == "upload" and isinstance(self.after, float):
            raise BadArgument(
                f"{self.name}: after must be a number of bytes for direction='upload', got "
                f"{self.after!r}. Write it as in after='1KiB'"
            )

    def apply(self, visit: Visit) -> Exchange:
        """End the transfer early."""
        exchange = note_exchange(visit)
        _check_share(self, exchange, self.after)
        cut = Cut(self.after, upload=self.direction == "upload")
        return dataclasses.replace(exchange, cut=cut, took_effect=_later(visit, "cut"))


@register
class Reset(NetworkFault):
    """A connection is reset (RST): the client gets ``ECONNRESET``.

    Args:
        after: None, for a reset before any answer. Or the share (0.5) or the number of bytes
            (``"64KiB"``, 100) of the answer that arrive, as for ``cut_connection``.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a server process that dies, a firewall that forgets a connection, a host that
    restarts.

    Fidelity: bytes that the client has not read yet can be lost, as with a real RST. So the client
    may see less than ``after``.

    Source: RFC 9293, section 3.5.2, https://www.rfc-editor.org/rfc/rfc9293#section-3.5.2

    Example: @chaos.reset(at=0)
    """

    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 60, "bad_day": 60}
    after: Any = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        _check_place(self)

    def possible(self, visit: Visit) -> bool:
        """Return False for a call that would be reset in the middle."""
        return self.after is None or visit.payload.protocol != CALL_PROTOCOL

    def apply(self, visit: Visit) -> Exchange:
        """Reset the connection, now or later."""
        if self.after is None:
            return fails(visit, "reset")
        exchange = note_exchange(visit)
        _check_share(self, exchange, self.after)
        cut = Cut(self.after, reset=True)
        return dataclasses.replace(exchange, cut=cut, took_effect=_later(visit, "cut"))


@register
class Refused(NetworkFault):
    """A connection is refused: the client gets ``ECONNREFUSED``.

    Args:
        url: A pattern (``"http://api/*"``, ``"redis://*"``) that must match the address without
            credentials and query. For a proxy, this is the address behind it.
        zone: The zone of a proxy.
        target: A client that makes the request: ``"pkg.mod:client"``, its class, or a function
            around it.

    Imitates: a service that is down or restarts, a wrong port, a full accept queue.

    Fidelity: at a proxy, Python code of this process is refused before it connects. Code in C and
    other processes connect, and are reset at once. A further request on an open connection gets a
    reset, because a server that is down has closed it.

    Source: connect(2), https://man7.org/linux/man-pages/man2/connect.2.html

    Example: @chaos.refused(at=0, times=3)
    """

    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 70, "bad_day": 70}

    def apply(self, visit: Visit) -> Exchange:
        """Refuse the connection."""
        return fails(visit, "refused")


@register
class Blackhole(NetworkFault):
    """A connection is accepted and never answers.

    A client without a time limit waits for ever. With ``between``, it is the link between two ranks
    of a world, over which nothing passes any more. ``at`` then counts the collectives of process
    groups with both ranks.

    Args:
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.
        between: Two ranks of a world, as in ``(0, 1)``.
        heal_after: With ``between``, the seconds until the link works again, in real time. What was
            sent in the meantime then arrives.
        real: With ``between``, as for ``network_partition``.

    Imitates: a firewall that drops packets, a server that hangs, a lost route.

    Fidelity: at a proxy, the client's time limit passes in real time. At client libraries it passes
    on the clock of the trial. Each of the two ranks cuts what it sends from its own visit on. A
    restarted world finds a healthy link.

    Source: Toxiproxy's toxic "timeout", https://github.com/Shopify/toxiproxy#timeout

    Example: @chaos.blackhole(at=0)
    """

    member_of: ClassVar[Mapping[str, int]] = {"bad_day": 90}
    between: Any = None
    heal_after: Any = None
    real: bool = False

    @property
    def site(self) -> str:  # type: ignore[override]  # the parameters choose the site
        """Return the site of requests, or that of collectives."""
        return NETWORK if self.between is None else COLLECTIVE

    @property
    def key(self) -> Key:
        """Count requests, or the collectives between the two ranks."""
        return across([[rank] for rank in self.between]) if self.on_links else super().key

    @property
    def on_links(self) -> bool:  # type: ignore[override]  # the parameters choose the site
        """Return True if it is the link between two ranks."""
        return self.between is not None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if self.between is None:
            for name in ("heal_after", "real"):
                if getattr(self, name):
                    raise BadArgument(
                        f"{self.name}: {name}= needs between=, the ranks of a link. Use times= for "
                        f"the number of requests"
                    )
            return
        for name in ("url", "zone", "target", "rank"):
            if getattr(self, name) is not None:
                raise BadArgument(
                    f"{self.name}: between= is a link of ranks, so it excludes {name}=. Give one "
                    f"of them"
                )
        if is_drawn(self.between):
            raise BadArgument(
                f"{self.name}: between must be two ranks, as in (0, 1), and cannot be drawn"
            )
        object.__setattr__(self, "between", parse_pair(self.name, self.between))
        check_heal_after(self)

    def possible(self, visit: Visit) -> bool:
        """Return True for each collective, and for requests as other faults do."""
        return self.on_links or super().possible(visit)

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True in the two ranks, or in each process that makes requests."""
        if self.on_links:
            return process.get("rank") in self.between
        return super().applies_to(process)

    def check_world(self, ranks: int) -> None:
        """Refuse a world without this link."""
        super().check_world(ranks)
        if self.on_links:
            check_sides_in_world(self, [self.between], ranks)

    def apply(self, visit: Visit) -> Exchange | None:
        """Never answer, or let nothing pass."""
        if not self.on_links:
            return fails(visit, "blackhole")
        peers = [rank for rank in self.between if rank != visit.attributes["rank"]]
        cut(visit, peers, self.heal_after, self.name)
        return None


@register
class SlowNetwork(NetworkFault):
    """Answers take longer.

    Args:
        delay: Seconds before each answer, or ``"150ms"``, ``"2s"``. It is 1 s if neither it nor
            ``bandwidth`` nor ``jitter`` is given.
        bandwidth: Bytes in a second, or ``"10MB/s"``, ``"64KiB/s"``.
        jitter: The largest number of seconds that is added to a delay. The seed draws it.
        answers: The number of answers that are delayed on a connection of plain bytes. Without it,
            all of them.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a distant region, a saturated link, a server under load.

    Fidelity: a proxy waits in real time. At client libraries the time passes on the clock of the
    trial, and their time limits apply. An event loop with an open connection waits in real time, as
    aiohttp's does for a slow body. Packets are not lost or reordered. Each connection has the
    bandwidth for itself.

    Source: Toxiproxy's toxics "latency" and "bandwidth", https://github.com/Shopify/toxiproxy

    Example: @chaos.slow_network(delay="2s", at=0)
    """

    random = True
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 80, "bad_day": 80}
    # A proxy waits in real time, so a long dialogue would take minutes.
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({"answers": 10},)
    delay: Any = None
    bandwidth: Any = None
    jitter: Any = None
    answers: int | None = None

    def check(self) -> None:
        """Convert durations to seconds, and ``bandwidth`` to bytes per second."""
        super().check()
        for name in ("delay", "jitter"):
            value = getattr(self, name)
            if value is not None and not is_drawn(value):
                object.__setattr__(self, name, parse_duration(value, f"{self.name}: {name}"))
        if self.bandwidth is not None and not is_drawn(self.bandwidth):
            object.__setattr__(self, "bandwidth", parse_rate(self.bandwidth, self.name))
        if self.answers is not None and not is_drawn(self.answers) and not index(self.answers):
            raise BadArgument(
                f"{self.name}: answers must be a positive whole number, got "
                f"{format_value(self.answers)}"
            )

    def apply(self, visit: Visit) -> Exchange:
        """Slow the exchange down."""
        given = self.delay is not None or self.bandwidth is not None or self.jitter is not None
        delay = self.delay if given else 1.0
        if not delay and not self.jitter:
            _needs_bytes(self, visit.payload, "bandwidth=")
        pace = Pace(delay or 0.0, self.jitter or 0.0, self.bandwidth, visit.seed, self.answers)
        return dataclasses.replace(note_exchange(visit), pace=pace)


@register
class HttpError(NetworkFault):
    """The server answers with an error, without doing the work.

    Args:
        status: The status code, 400 to 599. For example 429 (throttled), 500, 502, 503, 504.
        retry_after: The header ``Retry-After``: seconds, or ``"30s"``.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a service that is overloaded or redeployed, a rate limit, S3's ``SlowDown``.

    Fidelity: the request never reaches the server. A proxy answers when it has the whole request.
    The body is S3's error document for 503, so that S3 clients see ``SlowDown``, and a short text
    for other codes.

    Source: RFC 9110, section 15.6.4, https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4

    Example: @chaos.http_error(status=503, retry_after="2s", at=0)
    """

    needs_bytes = True
    member_of: ClassVar[Mapping[str, int]] = {"bad_storage": 50, "bad_day": 50}
    status: int = 503
    retry_after: Any = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.status) and not 400 <= self.status <= 599:
            raise BadArgument(
                f"{self.name}: status must be an error from 400 to 599, got {self.status}"
            )
        if self.retry_after is not None and not is_drawn(self.retry_after):
            seconds = parse_duration(self.retry_after, f"{self.name}: retry_after")
            object.__setattr__(self, "retry_after", seconds)

    def apply(self, visit: Visit) -> Exchange:
        """Answer with the error."""
        exchange = note_exchange(visit)
        needs_http(self, exchange, "a status", 'Use mlchaos.proxy(..., protocol="http")')
        return dataclasses.replace(exchange, status=self.status, retry_after=self.retry_after)


@register
class CorruptBytes(NetworkFault):
    """Bytes of an answer arrive with a flipped bit.

    Args:
        after: The position of the first byte: a share (0.5) of the body, or a number of bytes
            (``"64KiB"``, 100). A share needs HTTP.
        count: The number of bytes, each with one flipped bit.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a faulty network card or switch memory whose errors pass TCP's 16-bit checksum, a
    cache that serves damaged bytes.

    Fidelity: lengths and headers of HTTP stay. TLS would detect it, and reset the connection. A
    body that ends before ``after`` does not count as struck.

    Source: Stone and Partridge, When the CRC and TCP Checksum Disagree, SIGCOMM 2000

    Example: @chaos.corrupt_bytes(after=0.5, at=0)
    """

    needs_bytes = True
    random = True
    after: Any = 0.5
    count: int = 1

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        _check_place(self)
        if self.after is None:
            raise BadArgument(f"{self.name}: after must be a share or a number of bytes, got None")
        if not is_drawn(self.count) and self.count < 1:
            raise BadArgument(f"{self.name}: count must be 1 or more, got {self.count}")

    def apply(self, visit: Visit) -> Exchange:
        """Flip a bit of some bytes."""
        exchange = note_exchange(visit)
        _check_share(self, exchange, self.after)
        corruption = Corruption(self.after, self.count, visit.seed)
        return dataclasses.replace(
            exchange, corruption=corruption, took_effect=_later(visit, "corrupt")
        )


def parse_rate(value: object, fault: str) -> float:
    """Return bytes per second for ``1e6``, ``"10MB/s"`` or ``"64KiB/s"``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**63:
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(BadArgument):  # its error would mention a size
            return float(parse_size(value.strip().removesuffix("/s")))
    raise BadArgument(
        f"{fault}: bandwidth must be bytes per second or a text such as '10MB/s' or "
        f"'64KiB/s', got {format_value(value)}"
    )

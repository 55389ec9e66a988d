"""Define faults of the clients of a served app: they leave, or are slow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.clients import Client, Leave, Pace
from ...core.faults import Fault, is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value, index, parse_duration, parse_size
from ...errors import BadArgument

__all__ = ["ClientDisconnect", "SlowClient"]
LAYER = "Calls and services"
MOMENTS = ("request", "response", "first_token")


class ClientFault(Fault):
    """A fault of the client of one request."""

    site = "serve.request"
    random = False

    def possible(self, visit: Visit) -> bool:
        """Return True for a request that has a client: that of a plain function has none."""
        return _client(visit) is not None


def _client(visit: Visit) -> Client | None:
    """Return the client of a request, which passes the site beside the request or by itself."""
    client = visit.attributes.get("client", visit.payload)
    return client if isinstance(client, Client) else None


def _behave(visit: Visit, **how: Leave | Pace) -> Client | None:
    """Change how the client behaves. Return it if it is what passes."""
    client = _client(visit)
    assert client is not None
    if client is visit.payload:
        client = dataclasses.replace(client)
    for name, behaviour in how.items():
        setattr(client, name, behaviour)
    return client if isinstance(visit.payload, Client) else None


@register
class ClientDisconnect(ClientFault):
    """The client of a request disconnects before it has the whole response.

    The app's own call goes on until it ends. In a closed loop, the next client comes then, or after
    a second. ``at`` counts requests. Judge what the app does with ``load.assert_work_stops(within="1s")``,
    ``load.assert_no_leak()`` and ``load.assert_isolated()``.

    Args:
        how: ``"receive"``, as uvicorn does it: ``receive`` gives ``http.disconnect``, and what the
            app still sends is dropped. ``"send"``, as servers of version 2.4 of the protocol do it:
            ``send`` also raises an ``OSError``. ``"reset"``: it raises a ``ConnectionResetError``.
            If the requests are searched and it is not given, ``"receive"`` and ``"send"`` are
            tried.
        after: A number of chunks of the response's body. 0 or ``"request"``: as soon as the app
            waits, before it has answered. ``"response"``: when the headers have arrived.
            ``"first_token"``: after the first chunk. A time, such as ``"2s"``. If it is not given,
            the search tries each number, and without a search it is 0.

    Imitates: a user who closes the page, a proxy or a balancer that times out.

    Fidelity: no socket is involved, so a server's own buffers are not simulated. A plain function
    has no client, but a generator and a WebSocket have one.

    Source: https://asgi.readthedocs.io/en/latest/specs/www.html#disconnect-receive-event

    Example: ``@chaos.client_disconnect(how="receive", after=3, at=0)``
    """

    member_of: ClassVar[Mapping[str, int]] = {"bad_day": 22}
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"how": "receive", "after": 0},
        {"how": "send", "after": 1},
    )
    searchable = ("after",)
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"how": ("receive", "send")}
    how: Literal["receive", "send", "reset"] = "receive"
    after: Any = None

    def check(self) -> None:
        """Convert a time to seconds."""
        super().check()
        after = self.after
        if after is None or is_drawn(after) or after in MOMENTS:
            return
        if isinstance(after, str):
            object.__setattr__(self, "after", parse_duration(after, f"{self.name}: after"))
        elif isinstance(after, float) and after > 0:
            return
        elif index(after) is None:
            raise BadArgument(
                f"{self.name}: after must be a number of chunks, a time such as '2s', or one of "
                f"{', '.join(map(repr, MOMENTS))}, got {format_value(after)}"
            )

    def possible(self, visit: Visit) -> bool:
        """Note how many chunks the responses have."""
        client = _client(visit)
        if client is not None:
            client.followers.append(functools.partial(_measure, visit.measures))
        return client is not None

    def apply(self, visit: Visit) -> Client | None:
        """Let the client leave at its moment."""
        visit.skip()
        if _client(visit) is None:
            return None
        leave = Leave(self.how, struck=visit.record_injection)
        if isinstance(self.after, float):
            leave.seconds = self.after
        elif self.after == "response":
            leave.headers = True
        elif self.after == "first_token":
            leave.chunks = 1
        else:
            leave.chunks = 0 if self.after in (None, "request") else self.after
        visit.note(how=self.how)
        return _behave(visit, leaves=leave)


def _measure(measures: dict[str, int], chunks: int) -> None:
    # Before the answer, and after each chunk but the end.
    measures["after"] = max(measures.get("after", 0), chunks + 1)


@register
class SlowClient(ClientFault):
    """The client of a request sends its body, or reads the response, slowly.

    A server keeps 64 KiB for a client that does not read. Then the app's ``send`` waits. A fault
    that does not make the app wait has not struck. The latency of the request does not count.

    Args:
        of: ``"upload"``: it sends the body slowly, in 8 chunks or more. ``"download"``: it reads
            slowly. If the requests are searched and it is not given, both are tried.
        rate: Bytes a second, or ``"1KiB/s"``.
        pause: The seconds (or ``"30s"``) for which the client does nothing first.

    Imitates: a mobile client, a stalled tab, a slow-loris attack on one connection.

    Fidelity: the buffers of the system's sockets are not simulated. They are larger. Clients of
    WebSockets and generators are never slow.

    Example: ``@chaos.slow_client(of="upload", rate="1KiB/s", at=0)``
    """

    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"of": ("upload", "download")}
    of: Literal["upload", "download"] = "upload"
    rate: Any = "1KiB/s"
    pause: Any = 0.0

    def check(self) -> None:
        """Convert the rate and the pause."""
        super().check()
        if not is_drawn(self.rate) and self.rate is not None:
            object.__setattr__(self, "rate", _bytes_a_second(self.rate, self.name))
        if not is_drawn(self.pause):
            object.__setattr__(self, "pause", parse_duration(self.pause, f"{self.name}: pause"))

    def possible(self, visit: Visit) -> bool:
        """Return True for an HTTP request."""
        client = _client(visit)
        return client is not None and client.has_pace

    def apply(self, visit: Visit) -> Client | None:
        """Slow the client down."""
        visit.skip()
        if not self.possible(visit):
            return None
        visit.note(of=self.of)
        pace = Pace(self.rate, self.pause, visit.record_injection)
        return _behave(visit, **{"sends" if self.of == "upload" else "reads": pace})


def _bytes_a_second(value: object, owner: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**63:
        return float(value)
    if isinstance(value, str):
        return float(parse_size(value.strip().removesuffix("/s"), f"{owner}: rate"))
    raise BadArgument(
        f"{owner}: rate must be bytes a second or a text such as '1KiB/s', got "
        f"{format_value(value)}"
    )

"""Define faults of providers of remote models, as their HTTP clients see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.network import Exchange
from ...core.sites import Visit
from ...errors import BadArgument
from ..network import HttpError, NetworkFault
from .bodies import EventStream, rewritten

__all__ = ["ProviderError", "ProviderStream", "RateLimited"]
LAYER = "Calls and services"
RETRY_SECONDS = 20.0
"""The header ``Retry-After`` that a search tries."""


@register
class RateLimited(HttpError):
    """A provider answers 429, with or without the header ``Retry-After``.

    Args:
        status: The status code, from 400 to 599.
        retry_after: The header ``Retry-After``: seconds, or ``"30s"``. A search tries both: with
            20 seconds, and without it.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a limit on requests or tokens per minute, a quota that is used up.

    Fidelity: the request never reaches the server. The next one does, even if it comes too early.
    Use ``times`` for a limit that lasts.

    Source: RFC 6585, section 4, https://www.rfc-editor.org/rfc/rfc6585#section-4

    Example: @chaos.rate_limited(retry_after="20s", at=0)
    """

    member_of: ClassVar[Mapping[str, int]] = {}
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"retry_after": (None, RETRY_SECONDS)}
    status: int = 429


@register
class ProviderError(HttpError):
    """A provider answers with a status of 5xx, without doing the work.

    Args:
        status: The status code. A search tries 500, 503 and 529 (overloaded).
        retry_after: The header ``Retry-After``: seconds, or ``"30s"``.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a provider that is overloaded, redeployed, or has a bug.

    Fidelity: the request never reaches the server. The body is not the provider's own error
    document.

    Source: RFC 9110, section 15.6, https://www.rfc-editor.org/rfc/rfc9110#section-15.6

    Example: @chaos.provider_error(status=500, at=0)
    """

    member_of: ClassVar[Mapping[str, int]] = {}
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"status": (500, 503, 529)}
    status: int = 500


@register
class ProviderStream(NetworkFault):
    """A stream of a provider ends early, repeats an event, or has an empty one.

    Args:
        kind: ``"cut"``: the stream ends before the event, in an orderly way. ``"repeated"``: the
            event comes twice. ``"empty"``: it has no data. A search tries all.
        chunk: The number of the event, from 0. A search tries 0, 1 and 2.
        url: A pattern of addresses, as for ``refused``.
        zone: The zone of a proxy.
        target: A client, as for ``refused``.

    Imitates: a provider that stops at a limit without a last event, a proxy that sends again after a
    reconnection, a keep-alive without data.

    Fidelity: events are those of ``text/event-stream``, or lines of JSON. The last event ``[DONE]``
    does not count, and is missing after a cut. A stream without this event is not struck. The
    connection ends as HTTP wants it. For one that breaks, use ``cut_connection`` or ``reset``.

    Source: HTML, section 9.2, https://html.spec.whatwg.org/multipage/server-sent-events.html

    Example: @chaos.provider_stream(kind="repeated", chunk=0, at=0)
    """

    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "kind": ("cut", "repeated", "empty"),
        "chunk": (1, 0, 2),
    }
    kind: Literal["cut", "repeated", "empty"] = "cut"
    chunk: int = 1

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.chunk) and self.chunk < 0:
            raise BadArgument(f"{self.name}: chunk must be 0 or more, got {self.chunk}")

    def apply(self, visit: Visit) -> Exchange:
        """Change one event of the answer."""
        visit.note(kind=self.kind, chunk=self.chunk)
        return rewritten(
            self,
            visit,
            "a stream of events",
            lambda changed: EventStream(self.kind, self.chunk, changed),
        )

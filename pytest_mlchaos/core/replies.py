"""Define the replies of a served app, as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ..errors import BadArgument
from .journal import Strike
from .privacy import error_text, location_text
from .sites import Key

__all__ = ["Reply", "Suspicion"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Suspicion:
    """A strike in code that works for several requests, for example a batching worker.

    Attributes:
        strike: The strike.
        requests: The numbers of the requests in flight at that moment.
    """

    strike: Strike
    requests: tuple[int, ...]
    key: Key = ""
    """The key by which the visits of its site are counted."""

    def __str__(self) -> str:
        first, last = self.requests[0], self.requests[-1]
        if len(self.requests) == 1:
            return f"request {first}"
        if list(self.requests) == list(range(first, last + 1)):
            return f"one of requests {first}–{last}"
        return f"one of requests {', '.join(map(str, self.requests))}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Reply:
    """The reply to one request.

    Attributes:
        number: The number of the request in this service, from 0.
        request: The request as it was given.
        status: The status of an ASGI app's reply.
        headers: Its headers, without regard to case.
        content: Its body in bytes.
        value: The value of a callable.
        error: The exception that was raised while the request was handled.
        late_error: The exception that a background task raised after a good reply. No client sees
            it.
        ok: True if the reply counts as a success.
        latency: The seconds from the request's arrival to the end of the reply's body, on the
            trial's clock.
        start: The arrival, in seconds from the start of the load, on the trial's clock.
        faults: The strikes while the request was handled.
        fault_ended: The end of the last of these, or None without any.
        suspicions: Strikes in code that works for several requests, while this one was in flight,
            each with the ``requests`` that it may have hit. If this was the only one, the strike is
            among the ``faults``, too.
    """

    number: int
    request: Any
    name: str
    status: int | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: bytes | None = None
    value: Any = None
    error: BaseException | None = None
    late_error: BaseException | None = None
    ok: bool = True
    start: float = 0.0
    latency: float = 0.0
    faults: tuple[Strike, ...] = ()
    fault_ended: float | None = None
    suspicions: tuple[Suspicion, ...] = ()

    def __repr__(self) -> str:
        return f"<Reply to {self}: {self.outcome}, {self.latency:.3g} s>"

    def __str__(self) -> str:
        return f"request {self.number}{f' ({location_text(self.name)})' if self.name else ''}"

    @property
    def text(self) -> str:
        """Return the body as text, in the charset that the reply names (UTF-8 without one)."""
        _, _, charset = self.headers.get("content-type", "").partition("charset=")
        try:
            return (self.content or b"").decode(
                charset.partition(";")[0].strip("\"' ") or "utf-8", "replace"
            )
        except LookupError:
            return (self.content or b"").decode(errors="replace")

    @property
    def json(self) -> Any:
        """Return the body, read as JSON. Raise ``BadArgument`` if it is not JSON."""
        try:
            return json.loads(self.content or b"")
        except ValueError:
            kind = self.headers.get("content-type", "without a content type")
            raise BadArgument(
                f"the reply to {self} is not JSON: {len(self.content or b'')} bytes, {kind}, "
                f"{self.outcome}"
            ) from None

    @property
    def outcome(self) -> str:
        """Return the end of the request in words: ``status 500, KeyError: 'x'``."""
        status = f"status {self.status}" if self.status is not None else ""
        if self.error is None:
            return status or "a value"
        error = error_text(self.error)
        return f"{status}, {error}" if status else error

"""Replies of a served app, as data."""

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
__tracebackhide__ = True  # a failure shows the user's code, not ours


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Suspicion:
    """A strike in code that works for several requests (a batching worker, say), and the numbers of those in flight at that moment."""

    strike: Strike
    requests: tuple[int, ...]
    key: Key = ""
    """What the visits of its site are counted by."""

    def __str__(self) -> str:
        first, last = self.requests[0], self.requests[-1]
        if len(self.requests) == 1:
            return f"request {first}"
        if list(self.requests) == list(range(first, last + 1)):
            return f"one of requests {first}–{last}"
        return f"one of requests {', '.join(map(str, self.requests))}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Reply:
    """What became of one request.

    ``number`` counts the requests of the service from 0; ``request`` is the request as it was given. An ASGI app's reply has ``status``,
    ``headers`` (without regard to case), ``content`` (bytes), ``text`` and ``json``; a callable's has ``value``. ``error`` is what was
    raised while it was handled, ``late_error`` what a background task raised behind a good reply, which no client sees.
    ``ok``: whether it counts as a success. ``latency``: seconds from the request's arrival to the end of the reply's body, and ``start``:
    the arrival, in seconds from the start of the load; both on the trial's clock. ``faults``: what struck while it was handled, and
    ``fault_ended``: when the last of that was over (None without any). ``suspicions``: strikes in code that works for several requests,
    while this one was in flight, each with the ``requests`` that it may have hit; where this was the only one, the strike is among the
    ``faults``, too.
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
        """The body as text, in the charset that the reply names (UTF-8 by default)."""
        _, _, charset = self.headers.get("content-type", "").partition("charset=")
        try:
            return (self.content or b"").decode(charset.partition(";")[0].strip("\"' ") or "utf-8", "replace")
        except LookupError:
            return (self.content or b"").decode(errors="replace")

    @property
    def json(self) -> Any:
        """The body, read as JSON; ``BadArgument`` where it is none."""
        try:
            return json.loads(self.content or b"")
        except ValueError:
            kind = self.headers.get("content-type", "without a content type")
            raise BadArgument(f"the reply to {self} is no JSON: {len(self.content or b'')} bytes, {kind}, {self.outcome}") from None

    @property
    def outcome(self) -> str:
        """How it ended, in words: ``status 500, KeyError: 'x'``."""
        status = f"status {self.status}" if self.status is not None else ""
        if self.error is None:
            return status or "a value"
        error = error_text(self.error)
        return f"{status}, {error}" if status else error

"""Define the replies of a served app, as data."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import BadArgument
from .journal import Strike
from .privacy import error_text, location_text
from .sites import Key

__all__ = ["CallMade", "Chunk", "Reply", "Suspicion"]

EVENTS = "text/event-stream"
LINES = (
    "application/x-ndjson",
    "application/jsonl",
    "application/json-lines",
    "application/json-seq",
)


class Chunk(NamedTuple):
    """A part of a response's body.

    Attributes:
        time: The seconds from the start of the request until the client had it, on the trial's
            clock.
        data: Its bytes. For a WebSocket its text or bytes, and for a generator its item.
    """

    time: float
    data: Any


class CallMade(NamedTuple):
    """A call of a counted target, or a visit of a site.

    Attributes:
        time: The seconds from the start of the load, on the trial's clock.
        request: The number of the request that made it, or None if that is not certain.
    """

    time: float
    request: int | None


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
        number: The number of the request in this service, from 0. Companions have negative numbers.
        request: The request as it was given.
        status: The status of the reply. 101 for a WebSocket that the app has accepted.
        headers: Its headers, without regard to case.
        content: Its body in bytes.
        value: The value of a callable. The list of items of a generator, or of the messages that a
            WebSocket has brought.
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
        chunks: The chunks of the body of an ASGI app's reply, as they arrived.
        trailers: The trailers of the reply.
        close_code: The code with which a WebSocket was closed: by the app, or else by its client.
        left: The seconds from the arrival until the client left, or None if it did not leave. Then
            the reply counts neither as an error nor in latencies. A client that lost its patience
            (``patience=`` of ``drive``) counts as an error, with this time as its latency.
        slowed: True if the client was slow, so that the latency does not count.
        ended: The seconds from the arrival until the app's own call ended. None if it still ran
            when the load was over.
        still_at: The line at which it then waited.
        outlived_by: The tasks that the request started and that still ran when its call ended (or
            when the load was over, if its client had left), each with its line.
        remote: True if the app is a process of its own. Then nothing is known of its work after the
            reply: ``ended`` and ``outlived_by`` are empty.
        tasks_started: The names of the tasks that the request started.
        tasks_ended: The tasks of the request that ended after its client had left: the name of each,
            and the seconds from the arrival.
        group: The class of traffic that it belongs to.
        attempts: The number of attempts, 1 without retries.
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
    chunks: tuple[Chunk, ...] = ()
    trailers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    close_code: int | None = None
    left: float | None = None
    slowed: bool = False
    ended: float | None = None
    still_at: str = ""
    outlived_by: tuple[str, ...] = ()
    remote: bool = False
    tasks_started: tuple[str, ...] = ()
    tasks_ended: tuple[tuple[str, float], ...] = ()
    group: str = ""
    attempts: int = 1

    def __repr__(self) -> str:
        return f"<Reply to {self}: {self.outcome}, {self.latency:.3g} s>"

    def __str__(self) -> str:
        one = f"request {self.number}" if self.number >= 0 else f"companion {-self.number}"
        return f"{one}{f' ({location_text(self.name)})' if self.name else ''}"

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
        if self.close_code is not None and self.left is None:
            status += f", closed with {self.close_code}"
        if self.left is not None:
            return f"{status or 'no status'}, and the client left after {self.left:.3g} s"
        if self.error is None:
            return status or "a value"
        error = error_text(self.error)
        return f"{status}, {error}" if status else error

    @property
    def messages(self) -> tuple[Chunk, ...]:
        """Return the messages that a WebSocket has brought, with their times."""
        return self.chunks if self.status == 101 else ()

    @property
    def ttft(self) -> float | None:
        """Return the seconds from the arrival to the first token, or None without any."""
        times = self._token_times
        return times[0] if times else None

    @property
    def itl(self) -> tuple[float, ...]:
        """Return the seconds between each token and the next."""
        times = self._token_times
        return tuple(later - earlier for earlier, later in itertools.pairwise(times))

    @property
    def tokens(self) -> int:
        """Return the number of tokens.

        A token is an event of ``text/event-stream``, a line of JSON lines, or else a chunk.
        """
        return len(self._token_times)

    @property
    def _token_times(self) -> list[float]:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != EVENTS and kind not in LINES:
            return [chunk.time for chunk in self.chunks]
        ends = (b"\n\n", b"\r\n\r\n", b"\r\r") if kind == EVENTS else (b"\n",)
        times, rest = [], b""
        for chunk in self.chunks:
            rest += chunk.data
            for end in ends:
                if found := rest.count(end):
                    times += [chunk.time] * found
                    rest = rest.rpartition(end)[2]
                    break
        if rest.strip():
            times.append(self.chunks[-1].time)
        return times

"""Define an exchange over the network, as the faults of the network see it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias

from .sites import derive_seed

__all__ = [
    "NETWORK",
    "Corruption",
    "Cut",
    "Exchange",
    "Failure",
    "Flow",
    "Outage",
    "Pace",
    "Rewriter",
    "is_cut",
]

NETWORK = "network"
"""The site of connections of a proxy, of requests of client libraries, and of calls of a zone's
members.
"""

Failure: TypeAlias = Literal["", "refused", "reset", "blackhole"]
"""The ways in which an exchange brings no answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """An early end of a transfer.

    Attributes:
        after: The share (a float) or the number (an int) of the bytes that arrive.
        upload: True for the bytes that the client sends.
        reset: True for a reset (RST), False for an orderly end (FIN).
    """

    after: float | int
    upload: bool = False
    reset: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Corruption:
    """Bytes of a transfer that arrive changed.

    Attributes:
        after: The position of the first one, as a share (a float) or a number (an int).
        count: The number of bytes.
        seed: The seed of the bits that are flipped.
    """

    after: float | int
    count: int
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """The speed of a transfer.

    Attributes:
        delay: The seconds before each answer.
        jitter: The largest number of seconds that is added to a delay.
        bandwidth: The bytes per second, or None.
        seed: The seed of the jitter.
        answers: The number of answers that are delayed on a connection of plain bytes, or None for
            all.
    """

    delay: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    seed: int = 0
    answers: int | None = None

    def delay_of(self, answer: int) -> float:
        """Return the seconds before an answer, by its number on the connection."""
        if not self.jitter:
            return self.delay
        drawn = random.Random(derive_seed(self.seed, answer)).random()
        return self.delay + drawn * self.jitter


@dataclasses.dataclass(frozen=True, slots=True)
class Outage:
    """The time for which a zone is away, or zones cannot reach each other.

    Attributes:
        seconds: The seconds on the trial's clock, or None if connections count.
        connections: The number of connections that still fail.
        apart: The groups of zones that cannot reach each other. Empty if the zone is away.
    """

    seconds: float | None = None
    connections: int = 0
    apart: tuple[tuple[str, ...], ...] = ()


def is_cut(apart: Iterable[Iterable[str]], caller: str, zone: str) -> bool:
    """Return True if two zones are in different groups."""
    groups = [set(group) for group in apart]
    return any(caller in group and zone not in group for group in groups) and any(
        zone in group for group in groups
    )


class Rewriter(Protocol):
    """A filter of the body of one answer, which may change its length."""

    def feed(self, data: bytes) -> bytes:
        """Return what arrives instead of the next bytes."""
        ...

    def end(self) -> bytes:
        """Return what arrives at the end of the body."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """The payload of a visit of ``network``: a connection of a proxy, one request, or one call of a
    zone's member.

    A fault returns a copy that says what happens to it.

    Attributes:
        url: The address, without credentials and query. For a call, its target.
        protocol: ``"http"`` if the messages are understood, ``"call"`` for a call, else ``"tcp"``.
        zone: The zone of what is called, or an empty text.
        caller: The zone of the code that calls, or an empty text.
        method: The method of the request, if it is known.
        failure: The way in which it brings no answer.
        outage: The time for which the zone stays away after this exchange, or None.
        status: The status of an answer that is not the server's, or None.
        retry_after: The seconds in its header ``Retry-After``, or None.
        cut: The early end of the transfer, or None.
        corruption: The bytes that change, or None.
        pace: The speed of the transfer, or None.
        rewrite: A function that returns a filter for the body of an answer over HTTP, or None.
        took_effect: Functions to call when bytes are cut or changed, or have passed slowly.
    """

    url: str
    protocol: str = "tcp"
    zone: str = ""
    caller: str = ""
    method: str = ""
    failure: Failure = ""
    outage: Outage | None = None
    status: int | None = None
    retry_after: float | None = None
    cut: Cut | None = None
    corruption: Corruption | None = None
    pace: Pace | None = None
    rewrite: Callable[[], Rewriter] | None = None
    took_effect: tuple[tuple[str, Callable[[], None]], ...] = dataclasses.field(
        default=(), compare=False, repr=False
    )

    @property
    def origin(self) -> str:
        """Return the address without its path, which can hold the user's data."""
        scheme, colon, rest = self.url.partition("://")
        host = (rest if colon else scheme).partition("/")[0]
        return f"{scheme}{colon}{host}" if colon else host

    @property
    def is_quiet(self) -> bool:
        """Return True if nothing happens to it."""
        return (
            not self.failure
            and self.status is None
            and self.cut is None
            and self.corruption is None
            and self.pace is None
            and self.rewrite is None
        )

    @property
    def needs_length(self) -> bool:
        """Return True if a share of the answer's length is asked for."""
        places = [
            self.cut.after if self.cut is not None and not self.cut.upload else 0,
            self.corruption.after if self.corruption is not None else 0,
        ]
        return any(isinstance(place, float) for place in places)

    def note(self, what: str) -> None:
        """Record that one kind of effect has taken place."""
        for kind, record in self.took_effect:
            if kind == what:
                record()


class Flow:
    """The bytes of one body under the faults of its exchange.

    Args:
        exchange: The exchange.
        length: The number of bytes of the whole body, or None if it is not known.
        upload: True for the bytes that the client sends.
    """

    def __init__(self, exchange: Exchange, length: int | None, *, upload: bool = False) -> None:
        self._exchange = exchange
        self._passed = 0
        self.ended: Literal["", "fin", "rst"] = ""
        """How the transfer has ended early, if it has."""
        cut, corruption = exchange.cut, exchange.corruption
        self._end: int | None = None
        if cut is not None and cut.upload == upload:
            self._end = _place(cut.after, length)
            self._cut = cut
        self._changed = range(0)
        if corruption is not None and not upload:
            start = _place(corruption.after, length)
            if start is not None:
                self._changed = range(start, start + corruption.count)

    @property
    def is_quiet(self) -> bool:
        """Return True if no byte is cut or changed any more."""
        return self._end is None and self._passed >= self._changed.stop

    @property
    def allowed(self) -> int | None:
        """Return the number of bytes until the end, or None without an early end."""
        return None if self._end is None else max(0, self._end - self._passed)

    def feed(self, data: bytes) -> bytes:
        """Return what arrives of the next bytes. After an early end, ``ended`` is set."""
        if self.ended:
            return b""
        if self._end is not None and self._passed + len(data) > self._end:
            data = data[: self._end - self._passed]
            self.ended = "rst" if self._cut.reset else "fin"
            self._exchange.note("cut")
        start, self._passed = self._passed, self._passed + len(data)
        if start < self._changed.stop and self._passed > self._changed.start:
            data = self._flip(data, start)
        return data

    def _flip(self, data: bytes, start: int) -> bytes:
        changed = bytearray(data)
        corruption = self._exchange.corruption
        seed = 0 if corruption is None else corruption.seed
        for place in self._changed:
            if start <= place < start + len(changed):
                changed[place - start] ^= 1 << derive_seed(seed, place) % 8
        self._exchange.note("corrupt")
        return bytes(changed)


def _place(after: float | int, length: int | None) -> int | None:
    """Return the number of bytes. A share of an unknown length is None."""
    if isinstance(after, float):
        return None if length is None else int(length * after)
    return after

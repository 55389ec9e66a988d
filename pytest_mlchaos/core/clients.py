"""Describe the client of one request. A fault at ``serve.request`` decides how it behaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

__all__ = ["Client", "Company", "Leave", "Pace", "WorkerEnd"]

How = Literal["send", "receive", "reset"]
Moment = int | float | str
"""A number of chunks of the body, seconds, or the name of a moment."""


@dataclasses.dataclass(slots=True)
class Leave:
    """How and when a client disconnects.

    Attributes:
        how: ``"receive"``: ``receive`` gives ``http.disconnect``, and what the app sends is dropped.
            ``"send"``: ``send`` raises an ``OSError``, too. ``"reset"``: it is a
            ``ConnectionResetError``.
        chunks: The number of chunks of the body after which the client leaves. 0: as soon as the
            app waits before it has answered. None if time decides.
        headers: True to leave when the headers have arrived.
        seconds: The time after which the client leaves, or None.
        struck: A function that is called when the client leaves.
    """

    how: How = "receive"
    chunks: int | None = None
    headers: bool = False
    seconds: float | None = None
    struck: Callable[[], None] = lambda: None


@dataclasses.dataclass(slots=True)
class Pace:
    """How slowly a client sends or reads.

    Attributes:
        rate: Bytes a second, or None for as fast as they come.
        pause: The seconds that it does nothing before it begins.
        struck: A function that is called when the app has had to wait for the client.
    """

    rate: float | None = None
    pause: float = 0.0
    struck: Callable[[], None] = lambda: None

    def seconds(self, size: int) -> float:
        """Return the time that this number of bytes takes."""
        return size / self.rate if self.rate else 0.0


@dataclasses.dataclass(slots=True)
class WorkerEnd:
    """The death of the server's process that has the request, or its stop.

    Attributes:
        signal: The signal that it gets, which it cannot handle.
        seconds: The time from when it has the request.
        struck: A function that is called when it gets the signal.
    """

    signal: int
    seconds: float = 0.0
    struck: Callable[[], None] = lambda: None


@dataclasses.dataclass(slots=True)
class Client:
    """The client of one request, before it sends it.

    Attributes:
        leaves: How and when it disconnects, or None if it stays.
        reads: How fast it reads the response, or None for at once.
        sends: How fast it sends the body of the request, or None for at once.
        ends: The death of the process that has the request, or None. Only a server that is a
            process has one.
        remote: True if the server is a process of its own.
        has_pace: True if it can send and read slowly.
        followers: Functions that are called with the number of chunks of the response's body, when
            the response is complete.
    """

    leaves: Leave | None = None
    reads: Pace | None = None
    sends: Pace | None = None
    ends: WorkerEnd | None = None
    remote: bool = False
    has_pace: bool = True
    followers: list[Callable[[int], None]] = dataclasses.field(default_factory=list)

    @property
    def is_changed(self) -> bool:
        """Return True if a fault has changed it, or follows it."""
        changes = (self.leaves, self.reads, self.sends, self.ends)
        return any(changes) or bool(self.followers)


@dataclasses.dataclass(slots=True)
class Company:
    """Further requests like one request, which no assertion judges.

    Attributes:
        copies: The number of requests that arrive together with it.
        retries: The number of times that its client gives up and sends it again at once, before the
            attempt that is judged.
        after: The seconds after which the client gives up.
    """

    copies: int = 0
    retries: int = 0
    after: float = 0.0

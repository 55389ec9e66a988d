"""Define what passes between a load and a served app: requests and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..core.replies import Chunk, Reply
from ..engine.attribution import Scope
from ..engine.controller import Controller
from ..errors import MlchaosError, SimulatedCrash
from .retries import Retries

__all__ = ["Answer", "Handling", "LoadPlan", "PreparedRequest", "counts_as_error"]


FAILURE_CODES = range(1011, 1015)
"""The codes of a WebSocket for a server's own failure: an error, a restart, overload, a gateway."""


class PreparedRequest:
    """A request as the user gave it, and as it passes the site."""

    __slots__ = ("given", "name")

    def __init__(self, given: Any, name: str = "") -> None:
        self.given = given
        self.name = name

    @property
    def payload(self) -> Any:
        """Return what passes the site."""
        return self.given

    @property
    def attributes(self) -> dict[str, Any]:
        """Return what a fault or a ``where=`` may look at."""
        return {}


@dataclasses.dataclass(slots=True)
class Answer:
    """The answer of an app.

    Attributes:
        fields: Attributes of the reply.
        finished: The time on the trial's clock when it was complete, if the target knows that.
        left: The time at which the client left, or None.
        chunks: The chunks of the body, with times since ``begun``.
        remote: True if the app is a process of its own.
    """

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    finished: float | None = None
    left: float | None = None
    chunks: Sequence[Chunk] = ()
    begun: float = 0.0
    remote: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load: its requests, the number of the first one, and how they arrive.

    Attributes:
        requests: The requests, in the order of their arrival.
        first: The number of the first one in the service.
        arrivals: The seconds from the start of the load at which they arrive. None in a closed
            loop.
        concurrency: The number of requests in flight, or of users.
        is_error: A predicate on the reply.
        linger: The seconds for which calls go on whose clients have left, or None.
        companions: A function for each clean request that accompanies the load.
        group: A function that returns the class of a request, by its index.
        until: The seconds after which a closed loop sends no more, or None.
        thinks: A function that yields how long a user waits before the next request, or None.
        patience: The seconds after which a client leaves, or None.
        retries: When a client tries again, or None.
        seed: A number for random times.
        follows: True if calls of counted targets are followed to the end of ``linger``, because a
            client has left. The golden load does so, too.
    """

    requests: Sequence[PreparedRequest]
    first: int
    arrivals: Sequence[float] | None
    concurrency: int | None
    is_error: Callable[[Reply], object]
    linger: float | None = None
    companions: Sequence[Callable[[], PreparedRequest]] = ()
    group: Callable[[int], str] | None = None
    until: float | None = None
    thinks: Callable[[], Iterator[float]] | None = None
    patience: float | None = None
    retries: Retries | None = None
    seed: int = 0
    follows: bool = False


def counts_as_error(reply: Reply) -> bool:
    """Return True for a status of 500 or more, or a WebSocket that the app closed as a failure.

    An error that was raised always counts.
    """
    return (reply.status or 0) >= 500 or reply.close_code in FAILURE_CODES


class Handling:
    """Follow one request through the app, and make its reply."""

    __slots__ = ("_controller", "arrival", "gave_up", "now", "number", "plan", "request", "start")

    def __init__(
        self,
        controller: Controller,
        plan: LoadPlan,
        request: PreparedRequest,
        number: int,
        start: float,
        arrival: float,
    ) -> None:
        self._controller = controller
        self.plan = plan
        self.gave_up = False  # True if the client has lost its patience
        self.now = controller.clock.now
        self.request = request
        self.number = number
        self.start = start
        self.arrival = arrival

    def again(self) -> Handling:
        """Return the same for a further attempt, whose latency counts from the first arrival."""
        return Handling(
            self._controller, self.plan, self.request, self.number, self.start, self.arrival
        )

    def check(self, error: BaseException | None) -> None:
        """Raise an error that is not a reply: a broken fault, our own errors, or the process's
        death.
        """
        controller = self._controller
        if controller.broken is not None:
            raise controller.broken
        if controller.crash is not None:
            raise SimulatedCrash(str(controller.crash))
        if isinstance(error, MlchaosError):
            raise error

    def reply(self, answer: Answer, struck: Scope, **more: Any) -> Reply:
        """Return the reply. Effects of a fault after its end do not count."""
        now, arrival, fields = self.now(), self.arrival, answer.fields
        error = fields.get("error") or fields.get("late_error")
        self.check(error)
        end = now if answer.finished is None else answer.finished
        if answer.left is not None:
            end = answer.left
            more["left"] = end - arrival
        if answer.remote:
            more = {"remote": True, **{name: more[name] for name in more if name == "left"}}
        if self.plan.group is not None and self.number >= 0:
            more["group"] = self.plan.group(self.number - self.plan.first)
        chunks = tuple(answer.chunks)
        if chunks and answer.begun > arrival:
            chunks = tuple(
                Chunk(chunk.time + answer.begun - arrival, chunk.data) for chunk in chunks
            )
        reply = Reply(
            number=self.number,
            request=self.request.given,
            name=self.request.name,
            start=arrival - self.start,
            latency=end - arrival,
            chunks=chunks,
            **_strikes(struck, self.start, end),
            **fields,
            **more,
        )
        is_ok = not self.gave_up and (
            answer.left is not None or (reply.error is None and not self.plan.is_error(reply))
        )
        return reply if is_ok else dataclasses.replace(reply, ok=False)


def _strikes(struck: Scope, start: float, end: float) -> dict[str, Any]:
    """Return the strikes on a request, and when they ended."""
    if not struck.strikes and not struck.suspicions:
        return {}
    alone = [one.strike for one in struck.suspicions if len(one.requests) == 1]
    # A delay in the request's own flow ends with the request. One in a different thread goes on.
    ended = [
        *([] if struck.ended is None else [min(struck.ended, end)]),
        *([struck.ended_elsewhere] if struck.ended_elsewhere else []),
    ]
    return {
        "faults": (*struck.strikes, *alone),
        "fault_ended": max(ended) - start if ended else None,
        "suspicions": tuple(struck.suspicions),
    }

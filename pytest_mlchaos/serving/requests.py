"""Define what passes between a load and a served app: requests and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.replies import Reply
from ..engine.attribution import Scope
from ..engine.controller import Controller
from ..errors import MlchaosError, SimulatedCrash

__all__ = ["Answer", "Handling", "LoadPlan", "PreparedRequest", "counts_as_error"]


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request as the user gave it, and as it passes the site."""

    given: Any
    payload: Any
    name: str
    attributes: Mapping[str, Any]


@dataclasses.dataclass(slots=True)
class Answer:
    """The answer of an app.

    ``finished`` is the time on the trial's clock when it was complete, if the target knows that.
    """

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    finished: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load: its requests, the number of the first one, and how they arrive."""

    requests: Sequence[PreparedRequest]
    first: int
    rate: float | None
    concurrency: int | None
    is_error: Callable[[Reply], object]


def counts_as_error(reply: Reply) -> bool:
    """Return True for a status of 500 or more. An error that was raised always counts."""
    return reply.status is not None and reply.status >= 500


class Handling:
    """Follow one request through the app, and make its reply."""

    def __init__(self, controller: Controller, request: PreparedRequest, number: int) -> None:
        self._controller = controller
        self._request = request
        self._number = number
        self._now = controller.clock.now

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

    def reply(
        self,
        answer: Answer,
        struck: Scope,
        start: float,
        arrival: float,
        is_error: Callable[[Reply], object],
    ) -> Reply:
        """Return the reply. Effects of a fault after its end do not count."""
        end = self._now() if answer.finished is None else answer.finished
        alone = [one.strike for one in struck.suspicions if len(one.requests) == 1]
        # A delay in the request's own flow ends with the request. One in a different thread goes
        # on.
        ended = [
            *([] if struck.ended is None else [min(struck.ended, end)]),
            *([struck.ended_elsewhere] if struck.ended_elsewhere else []),
        ]
        reply = Reply(
            number=self._number,
            request=self._request.given,
            name=self._request.name,
            start=arrival - start,
            latency=end - arrival,
            faults=(*struck.strikes, *alone),
            fault_ended=max(ended) - start if ended else None,
            suspicions=tuple(struck.suspicions),
            **answer.fields,
        )
        self.check(reply.error)
        return (
            reply
            if reply.error is None and not is_error(reply)
            else dataclasses.replace(reply, ok=False)
        )

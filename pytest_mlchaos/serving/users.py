"""Define what the users of a load do: think, lose patience, and try again."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..core.replies import Reply
from ..errors import BadArgument
from .retries import Retries
from .task_set import RequestInApp
from .traffic import MAX_REQUESTS

if TYPE_CHECKING:
    from .requests import LoadPlan

__all__ = ["Places", "UserRequest", "check_progress", "merge_attempts"]

T = TypeVar("T")
MANY_REQUESTS = 100_000
"""The number of requests that a closed loop may make of an app in which no time passes."""
NO_TIME_SECONDS = 1e-4
CHECKED_EACH = 5_000
"""The number of requests of a closed loop after which its progress is checked."""


class Places(asyncio.Semaphore):
    """The places of a load: requests in flight, or users, who think before they ask again."""

    def __init__(self, number: int, thinks: Iterator[float] | None) -> None:
        super().__init__(number)
        self._thinks = thinks

    def release(self) -> None:
        """Free a place, after the time to think."""
        if self._thinks is None:
            super().release()
        else:
            asyncio.get_running_loop().call_later(next(self._thinks), super().release)


def check_progress(plan: LoadPlan, sent: int, passed: float) -> None:
    """Raise ``BadArgument`` if a closed loop with a duration would hardly ever end.

    On a virtual clock, no time passes in an app that never waits.
    """
    if plan.until is None or sent % CHECKED_EACH or not sent:
        return
    projected = plan.until * sent / passed
    if projected > MAX_REQUESTS or (projected > MANY_REQUESTS and passed < sent * NO_TIME_SECONDS):
        raise BadArgument(
            f"drive: duration={plan.until:g} s would take {projected:.0e} requests, because "
            f"{sent} requests took {passed:.3g} s of the trial's clock. Give rate=, think_time= or "
            f"number="
        )


class UserRequest:
    """One request of a user, with each attempt."""

    __slots__ = ("attempts",)

    def __init__(self) -> None:
        self.attempts: list[RequestInApp] = []

    @property
    def left(self) -> list[RequestInApp]:
        """Return the attempts whose client has left."""
        return [one for one in self.attempts if one.has_left]

    async def send(
        self,
        begin: Callable[[], RequestInApp],
        retries: Retries,
        reply_of: Callable[[RequestInApp], Reply],
        seed: int,
    ) -> None:
        """Send it, and again as long as the policy asks for it.

        Args:
            begin: A function that sends it once.
            retries: The policy.
            reply_of: A function that returns the reply of an attempt so far.
            seed: A number for the jitter.
        """
        while True:
            done = asyncio.get_running_loop().create_future()
            one = begin()
            self.attempts.append(one)
            one.on_done = functools.partial(_also, one.on_done, done)
            await done
            if not one.has_answer:  # it has failed, which ends the load
                return
            delay = retries.delay(reply_of(one), len(self.attempts), seed)
            if delay is None:
                return
            await asyncio.sleep(delay)


def _also(then: Callable[[], None], done: asyncio.Future[None]) -> None:
    then()
    if not done.done():
        done.set_result(None)


def merge_attempts(replies: Sequence[Reply]) -> Reply:
    """Return the reply of the last attempt, with the strikes on all of them."""
    last = replies[-1]
    if len(replies) == 1:
        return last
    ended = [reply.fault_ended for reply in replies if reply.fault_ended is not None]
    return dataclasses.replace(
        last,
        attempts=len(replies),
        faults=_together([strike for reply in replies for strike in reply.faults]),
        suspicions=_together([one for reply in replies for one in reply.suspicions]),
        fault_ended=max(ended, default=None),
        outlived_by=tuple(text for reply in replies for text in reply.outlived_by),
    )


def _together(found: Sequence[T]) -> tuple[T, ...]:
    """Return each object once."""
    return tuple({id(one): one for one in found}.values())

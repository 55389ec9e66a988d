"""Send clean requests before, during and after a load, whose replies are judged by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from .requests import PreparedRequest
from .task_set import RequestInApp

__all__ = ["Companions"]

FIRST = 100
"""Each of this many requests has a companion, and of the later ones each of so many."""


class Companions:
    """The companions of one load. Their numbers are negative.

    Args:
        make: A function for each of them that prepares it.
        send: A function of a prepared request and its number that sends it.
        done: A function that waits until all clients have their answers.
    """

    def __init__(
        self,
        make: Sequence[Callable[[], PreparedRequest]],
        send: Callable[[PreparedRequest, int], RequestInApp],
        done: Callable[[], Awaitable[None]],
    ) -> None:
        self._make = make
        self._send = send
        self._done = done
        self.sent: list[RequestInApp] = []

    async def send_all(self) -> None:
        """Send each of them, one after another."""
        for make in self._make:
            self._start(make)
            await self._done()

    def accompany(self, place: int) -> None:
        """Send the next one beside a request of the load."""
        if self._make and (place < FIRST or place % FIRST == 0):
            self._start(self._make[place % len(self._make)])

    def _start(self, make: Callable[[], PreparedRequest]) -> None:
        self.sent.append(self._send(make(), -1 - len(self.sent)))

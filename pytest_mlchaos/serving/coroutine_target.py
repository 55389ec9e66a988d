"""Serve a coroutine function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..core.clients import Client
from .requests import Answer, PreparedRequest

__all__ = ["CoroutineCall", "CoroutineTarget"]


class CoroutineTarget:
    """Serve a coroutine function of one argument."""

    def __init__(
        self,
        function: Callable[[Any], Awaitable[Any]],
        keep: Callable[[Any], Any],
        now: Callable[[], float],
    ) -> None:
        self._function = function
        self._keep = keep
        self._now = now

    async def start(self) -> None:
        """Do nothing: there is nothing to start."""

    async def stop(self) -> None:
        """Do nothing: there is nothing to stop."""

    def begin(
        self,
        request: PreparedRequest,
        payload: Any,
        client: Client | None,
        on_left: Callable[[], None],
    ) -> CoroutineCall:
        """Return the call of the function."""
        value = request.payload if payload is None else payload
        return CoroutineCall(self._function, value, self._keep, self._now, on_left)


class CoroutineCall:
    """One call of a coroutine function. A client that leaves cancels it."""

    def __init__(
        self,
        function: Callable[[Any], Awaitable[Any]],
        payload: Any,
        keep: Callable[[Any], Any],
        now: Callable[[], float],
        on_left: Callable[[], None],
    ) -> None:
        self._function, self._payload, self._keep, self._now = function, payload, keep, now
        self._on_left = on_left
        self._task: asyncio.Task[Any] | None = None
        self._left: float | None = None
        self._answer = Answer()
        self.begun = now()

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        return self._left is not None

    def leave(self) -> None:
        """Cancel the call."""
        if self._task is not None and self._left is None:
            self._left = self._now()
            self._on_left()
            self._task.cancel()

    async def run(self) -> None:
        """Await the function's value."""
        self._task = task = asyncio.current_task()
        try:
            value = await self._function(self._payload)
            self._answer = Answer({"value": self._keep(value)}, self._now())
        except (Exception, asyncio.CancelledError):
            if self._left is None:
                raise
        finally:
            self._task = None
            if self._left is not None:
                self._answer = Answer(left=self._left)
                if task is not None and task.uncancel():
                    raise asyncio.CancelledError  # the load is over as well

    def answer(self) -> Answer:
        """Return the value."""
        return Answer(left=self._left) if self._left is not None else self._answer

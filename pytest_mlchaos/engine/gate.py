"""An operation at a site during which a fault is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any

from ..core.clock import Clock
from ..core.interrupts import deferred
from ..core.sites import Visit
from .scopes import within

__all__ = ["Gate", "pause"]


async def pause(clock: Clock, seconds: float) -> None:
    """Let so many seconds of a clock pass in a coroutine; others run meanwhile."""
    seconds = clock.to_await(seconds)
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another event loop
        import anyio

        await anyio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


class Gate:
    """An operation at a site during which a fault is at work: ``with gate: operation()``."""

    __slots__ = ("_clock", "visit")

    def __init__(self, visit: Visit, clock: Clock) -> None:
        self.visit = visit
        self._clock = clock

    @property
    def payload(self) -> Any:
        """The payload to go on with."""
        return self.visit.payload

    def wait(self) -> None:
        """Let the delay that the faults asked for pass, then raise what they raise."""
        if self.visit.delay:
            self._clock.sleep(self.visit.delay)
        self.check()

    async def wait_async(self) -> None:
        """As ``wait``, in a coroutine: others run meanwhile."""
        if self.visit.delay:
            await pause(self._clock, self.visit.delay)
        self.check()

    async def run(self, begin: Callable[[], Awaitable[Any]]) -> Any:
        """Await what ``begin`` gives, with the delay inside: a network is slow once it has been asked; what is given up then cleans up."""
        visit = self.visit
        if not visit.delay or visit.error is not None or visit.deferred_actions or asyncio._get_running_loop() is None:
            await self.wait_async()
            return await begin()
        return await _DelayedInside(begin(), lambda: pause(self._clock, visit.delay))

    def check(self) -> None:
        """Do what the faults want done here, and raise what they raise."""
        while self.visit.deferred_actions:
            with within(""):  # a signal handler's files, say, are no part of the operation
                self.visit.deferred_actions.pop(0)()
        if isinstance(self.visit.error, StopIteration):
            raise StopIteration  # a fresh one, that nobody holds: a traceback keeps the loader alive, and its workers
        if self.visit.error is not None:
            raise self.visit.error

    def close(self) -> None:
        """The operation has ended; closing twice does no harm."""
        if self.visit.stack is not None:
            with deferred():
                self.visit.stack.close()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.visit.stack is not None:
            with deferred():
                self.visit.stack.__exit__(kind, error, trace)


class _DelayedInside:
    """Awaits something, and lets a delay pass where that waits for the first time; behind it, where it never does.

    A cancellation during the delay reaches it there, as one reaches a task: what it waits for is cancelled, and raises.
    """

    def __init__(self, inner: Awaitable[Any], pause: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._pause = pause

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self._inner.__await__()
        try:
            waits_for = next(steps)
        except StopIteration as end:
            yield from self._pause().__await__()
            return end.value
        except Exception:
            yield from self._pause().__await__()
            raise
        try:
            try:
                yield from self._pause().__await__()
            except asyncio.CancelledError as error:
                if not (asyncio.isfuture(waits_for) and waits_for.cancel()):
                    waits_for = steps.throw(error)
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # what is awaited has the say
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(sent) if hasattr(steps, "send") else next(steps)
        except StopIteration as end:
            return end.value
        finally:
            steps.close() if hasattr(steps, "close") else None

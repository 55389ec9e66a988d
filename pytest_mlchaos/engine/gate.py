"""Define the gate: an operation at a site during which a fault is active."""

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
    """Wait for ``seconds`` of a clock in a coroutine, while other tasks run."""
    seconds = clock.to_await(seconds)
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # a different event loop, such as trio's
        import anyio

        await anyio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


class Gate:
    """An operation at a site during which a fault is active: ``with gate: operation()``."""

    __slots__ = ("_clock", "visit")

    def __init__(self, visit: Visit, clock: Clock) -> None:
        self.visit = visit
        self._clock = clock

    @property
    def payload(self) -> Any:
        """Return the payload after the faults."""
        return self.visit.payload

    def wait(self) -> None:
        """Wait for the delay of the faults, then raise their exception."""
        if self.visit.delay:
            self._clock.sleep(self.visit.delay)
        self.check()

    async def wait_async(self) -> None:
        """Do the same as ``wait`` in a coroutine, while other tasks run."""
        if self.visit.delay:
            await pause(self._clock, self.visit.delay)
        self.check()

    async def run(self, begin: Callable[[], Awaitable[Any]]) -> Any:
        """Await the result of ``begin``, with the delay inside.

        The operation starts before the delay, as in a slow network. If it is cancelled during the
        delay, its own clean-up runs.
        """
        visit = self.visit
        if (
            not visit.delay
            or visit.error is not None
            or visit.deferred_actions
            or asyncio._get_running_loop() is None
        ):
            await self.wait_async()
            return await begin()
        return await _DelayedInside(begin(), lambda: pause(self._clock, visit.delay))

    def check(self) -> None:
        """Run the deferred actions of the faults, and raise their exception."""
        while self.visit.deferred_actions:
            # Their own work, for example a signal handler's files, is not part of the operation.
            with within(""):
                self.visit.deferred_actions.pop(0)()
        if isinstance(self.visit.error, StopIteration):
            # A new one: the traceback of a stored one would keep the loader and its workers alive.
            raise StopIteration
        if self.visit.error is not None:
            raise self.visit.error

    def close(self) -> None:
        """End the operation. A second call does nothing."""
        if self.visit.stack is not None:
            with deferred():
                self.visit.stack.close()
        self._finish()

    def _finish(self) -> None:
        """Run the actions of faults that strike after the operation."""
        while self.visit.final_actions:
            self.visit.final_actions.pop(0)()

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.visit.stack is not None:
            with deferred():
                self.visit.stack.__exit__(kind, error, trace)
        if kind is None:
            self._finish()


class _DelayedInside:
    """Await something, with a delay at its first wait, or at its end if it never waits.

    A cancellation during the delay is passed on like in a task: the inner future is cancelled, and
    raises.
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
                except BaseException as error:  # noqa: BLE001
                    # the awaited object decides what happens
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(sent) if hasattr(steps, "send") else next(steps)
        except StopIteration as end:
            return end.value
        finally:
            steps.close() if hasattr(steps, "close") else None

"""Keep the tasks of a load: those whose client waits, and those whose client has left."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.clients import Client
from ..core.replies import Reply
from ..engine.attribution import Scope, as_part_of
from ..engine.task_waits import line_of, name_of_task, runs_user_code
from ..errors import SimulatedCrash
from .requests import Handling

if TYPE_CHECKING:
    from .load_generators import Call

__all__ = ["RequestInApp", "TaskSet", "describe_task"]

NOTICE_SECONDS = 1.0
"""The time after which the place of a client that has left is free in any case."""
SETTLE_SECONDS = 0.001
"""The time after the end of a call whose client has left.

Generators that nothing refers to are closed in it.
"""
REMOTE_SETTLE_SECONDS = 0.2
"""The same for a server process. It gets the news from its socket."""


class RequestInApp:
    """A request in flight. Its client may leave before the app's call ends."""

    __slots__ = (
        "_ended",
        "_is_done",
        "_left",
        "_on_done",
        "call",
        "handling",
        "on_done",
        "reply",
        "scope",
        "slots",
        "task",
    )

    def __init__(self, handling: Handling, on_done: Callable[[RequestInApp], None]) -> None:
        self.handling = handling
        self._on_done = on_done
        self._is_done = self._left = False
        self._ended: list[tuple[str, float]] = []
        self.on_done: Callable[[], None] = lambda: None
        self.call: Call | None = None
        self.reply: Reply | None = None
        self.scope: Scope | None = None
        self.slots: asyncio.Semaphore | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        if self.reply is not None:
            return self.reply.left is not None
        return self._is_done

    def client_left(self) -> None:
        """Note that the client has left. Its place is free when the app's call has ended.

        The next client in its place would find an app that has not noticed yet.
        """
        if not self._is_done:
            self._left = True
            if self.reply is None and self.scope is not None:
                self._follow_tasks(self.scope)
            self._finish()
            asyncio.get_running_loop().call_later(NOTICE_SECONDS, self._release)

    def client_done(self) -> None:
        """Note that the app's call has ended. Free the place of its client."""
        self._finish()
        if self._left:
            remote = self.reply is not None and self.reply.remote
            seconds = REMOTE_SETTLE_SECONDS if remote else SETTLE_SECONDS
            asyncio.get_running_loop().call_later(seconds, self._release)
        else:
            self._release()

    @property
    def left(self) -> list[RequestInApp]:
        """Return this request if its client has left."""
        return [self] if self.has_left else []

    @property
    def has_answer(self) -> bool:
        """Return True if there is a reply, or a client that has left before it."""
        return self.reply is not None or (self.call is not None and self.call.has_left)

    def lose_patience(self) -> None:
        """Let the client leave, if it does not have its answer."""
        if self._is_done:
            return
        if self.call is not None:
            self.call.leave()
            self.handling.gave_up = self.call.has_left
            if self.handling.gave_up:
                self._release()  # its user does not wait for the app to notice
        elif self.task is not None:  # it waits for a place, or is on its way to the app
            self.handling.gave_up = True
            self.task.cancel()

    def _follow_tasks(self, scope: Scope) -> None:
        """Note when the tasks of the request end from now on, because its client has left."""
        scope.on_task = self._follow_task
        for task in scope.running():
            self._follow_task(task)

    def _follow_task(self, task: asyncio.Task[Any]) -> None:
        if runs_user_code(task):
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._ended.append((name_of_task(task), self.handling.now() - self.handling.arrival))

    def work_left(self) -> dict[str, Any]:
        """Return the tasks that the request has left behind: those that run, and when others ended."""
        return {
            "outlived_by": tuple(map(describe_task, self.running())),
            "tasks_started": () if self.scope is None else tuple(self.scope.task_names),
            "tasks_ended": tuple(self._ended),
        }

    def _finish(self) -> None:
        if not self._is_done:
            self._is_done = True
            self._on_done(self)
            self.on_done()

    def _release(self) -> None:
        slots, self.slots = self.slots, None
        if slots is not None:
            slots.release()

    def end(self) -> dict[str, Any]:
        """Return when the app's call has ended, and which of its tasks go on."""
        ended = self.handling.now() - self.handling.arrival
        assert self.scope is not None
        if not self.scope.tasks:
            return {"ended": ended}
        return {
            "ended": ended,
            "outlived_by": tuple(map(describe_task, self.running())),
            "tasks_started": tuple(self.scope.task_names),
        }

    def forget(self) -> None:
        """Free what only an open request needs."""
        assert self.reply is not None
        self.call = self.task = None
        if self.reply.left is None:
            self.scope = None

    def running(self) -> list[asyncio.Task[Any]]:
        """Return the tasks in user code that the request has started and that have not ended."""
        return [] if self.scope is None else list(filter(runs_user_code, self.scope.running()))

    def attributed(self, client: Client | None) -> Client | None:
        """Return the client, if a fault has changed it. Its strikes belong to this request."""
        if client is None:
            return None
        for behaviour in (client.leaves, client.reads, client.sends, client.ends):
            if behaviour is not None:
                behaviour.struck = self._certainly(behaviour.struck)
        return client if client.is_changed else None

    def _certainly(self, struck: Callable[[], None]) -> Callable[[], None]:
        def record() -> None:
            assert self.scope is not None
            with as_part_of(self.scope):
                struck()

        return record


class TaskSet:
    """The tasks of one load. The first error of one of them ends the load."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._errors: list[BaseException] = []
        self._parent: asyncio.Task[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._cancelled = False

    async def __aenter__(self) -> TaskSet:
        self._parent = asyncio.current_task()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def start(self, one: RequestInApp, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine of a request."""
        task = asyncio.get_running_loop().create_task(coroutine)
        one.task = task
        one.on_done = self._client_done
        self._open += 1
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def start_client(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine of a user, who sends requests."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._open += 1
        self._tasks.add(task)
        task.add_done_callback(self._user_ended)

    def start_beside(
        self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context
    ) -> None:
        """Run the coroutine of a request whose reply does not count. It is part of no scope."""
        task = asyncio.get_running_loop().create_task(coroutine, context=context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    @property
    def is_empty(self) -> bool:
        """Return True if no call is running."""
        return all(task.done() for task in self._tasks)

    async def clients_done(self) -> None:
        """Wait until each client has its answer or has left."""
        while self._open:
            await self._change()

    async def linger(
        self, seconds: float, left: Iterable[RequestInApp], *, follows: bool = False
    ) -> None:
        """Wait until all calls have ended, and the tasks that requests ``left`` behind.

        Wait for at most this time, and if ``follows`` is true, for all of it.
        """
        end = asyncio.get_running_loop().time() + seconds
        while pending := {*self._tasks, *(task for one in left for task in one.running())}:
            remaining = end - asyncio.get_running_loop().time()
            if remaining <= 0:
                return
            await asyncio.wait(pending, timeout=remaining)
        if follows:
            await asyncio.sleep(max(0.0, end - asyncio.get_running_loop().time()))

    def raise_first(self) -> None:
        """Raise the first error of a task, a simulated death before all others."""
        if self._errors:
            if self._cancelled and self._parent is not None:
                self._parent.uncancel()
            died = [error for error in self._errors if isinstance(error, SimulatedCrash)]
            error = (died or self._errors)[0]
            raise error from error.__cause__

    async def _change(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _client_done(self) -> None:
        self._open -= 1
        if not self._open and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _user_ended(self, task: asyncio.Task[None]) -> None:
        self._ended(task)
        self._client_done()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._errors.append(error)
        if self._parent is not None and not self._parent.done() and not self._cancelled:
            self._cancelled = True
            self._parent.cancel()


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return a task's coroutine with the line where it waits."""
    line = line_of(task)
    return f"{name_of_task(task)}, in {line}" if line else name_of_task(task)

"""Scopes: strikes that are put down to a part of a trial, such as one request of many.

A context variable says in whose part code runs. It travels into tasks, into threads that get a copy of the context, and (``pools.py``)
into what is submitted to a pool of threads. A task that a request started need not work for it alone: a batching worker serves all. So a
task counts as part of the request only while the request waits for it. A strike in code that is part of none may have hit any in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..core.journal import Strike
from ..core.replies import Suspicion
from ..core.sites import Key
from .task_waits import waits_for

__all__ = ["Scope", "about", "attribute_strike", "branching", "carry_scope", "forget_scopes", "latest_end", "scope"]

_SCOPE: ContextVar[Scope | Branch | None] = ContextVar("mlchaos_scope", default=None)


@dataclasses.dataclass(slots=True, eq=False)
class Scope:
    """What struck in a part of a trial."""

    details: Mapping[str, Any]
    task: asyncio.Task[Any] | None
    """The task that it is; None where it is a call in a thread."""
    thread: int
    strikes: list[Strike] = dataclasses.field(default_factory=list)
    suspicions: list[Suspicion] = dataclasses.field(default_factory=list)
    """Strikes in code that is part of no scope, while this one was open."""
    ended: float | None = None
    """When the last of the strikes in its own thread was over: seconds on the trial's clock."""
    ended_elsewhere: float | None = None
    """The same of those that go on when the request is given up: in other threads, and in code that is part of no scope."""


@dataclasses.dataclass(slots=True, eq=False)
class Branch:
    """A task that was started in a scope."""

    scope: Scope
    task: asyncio.Task[Any] | None = None


_open: list[Scope] = []
"""The scopes that are open now, in the order in which they were opened."""


@contextlib.contextmanager
def scope(**details: Any) -> Iterator[Scope]:
    """Put what strikes inside down to one part of the trial; ``details`` go into the journal with each strike."""
    opened = Scope(details, _current_task(), threading.get_ident())
    before = _SCOPE.get()
    _SCOPE.set(opened)
    _open.append(opened)
    try:
        yield opened
    finally:
        if opened in _open:
            _open.remove(opened)
        _SCOPE.set(before)


def forget_scopes() -> None:
    """Between two tests none is open, whatever an interruption has left here."""
    _open.clear()
    _SCOPE.set(None)


def about() -> Mapping[str, Any]:
    """What is said of each strike here."""
    here = _here()
    if here is not None:
        return here.details
    in_flight = list(_open)
    if len(in_flight) <= 1:
        return in_flight[0].details if in_flight else {}
    return {f"one_of_{name}s": [one.details.get(name) for one in in_flight] for name in in_flight[0].details}


def attribute_strike(strike: Strike, ended: float, key: Key) -> None:
    """Remember a strike in the scope in which it happened, or in all that are open, where it is part of none."""
    here = _here()
    if here is not None:
        here.strikes.append(strike)
        if threading.get_ident() == here.thread:
            here.ended = max(ended, here.ended or ended)
        else:
            here.ended_elsewhere = max(ended, here.ended_elsewhere or ended)
        return
    in_flight = list(_open)
    suspicion = Suspicion(strike, tuple(one.details.get("request", 0) for one in in_flight), key)
    for one in in_flight:
        one.suspicions.append(suspicion)
        one.ended_elsewhere = max(ended, one.ended_elsewhere or ended)


def latest_end() -> float:
    """When the last strike on a request in flight is over; never counts as no time."""
    ends = [end for one in list(_open) for end in (one.ended, one.ended_elsewhere) if end is not None and end != math.inf]
    return max(ends, default=-math.inf)


def carry_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, as part of what submits it now, for a thread that has another context. Nothing else of the context is carried."""
    here = _here()

    def carrying(*args: Any, **kwargs: Any) -> Any:
        before = _SCOPE.get()
        _SCOPE.set(here)
        try:
            return function(*args, **kwargs)
        finally:
            _SCOPE.set(before)

    return carrying


def branching(previous: Callable[..., Any] | None) -> Callable[..., asyncio.Task[Any]]:
    """A task factory for event loops, in front of ``previous``: tasks that are started in a scope are branches of it."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        held, branch = _SCOPE.get(), None
        if held is not None and kwargs.get("context") is None:
            branch = Branch(held.scope if isinstance(held, Branch) else held)
            kwargs["context"] = contextvars.copy_context()
            kwargs["context"].run(_SCOPE.set, branch)
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **kwargs) if previous is None else previous(loop, coroutine, **kwargs)
        if branch is not None:
            branch.task = task
        return task

    return factory


def _here() -> Scope | None:
    """The scope that what runs here is part of, if that is certain."""
    held = _SCOPE.get()
    if held is None:
        return None
    scope, task = (held.scope, held.task) if isinstance(held, Branch) else (held, None)
    if _in_own_flow(scope):
        return scope
    if not isinstance(held, Branch):
        if not _in_loop():
            return scope  # a thread with a copy of its context
        task = _current_task()  # None in a callback, which a timer may have called
    return scope if task is not None and scope.task is not None and waits_for(scope.task, task) else None


def _in_own_flow(scope: Scope) -> bool:
    """Whether this is the very task, or the very thread, that the scope was opened in."""
    return threading.get_ident() == scope.thread if scope.task is None else _current_task() is scope.task


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None


def _current_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if _in_loop() else None

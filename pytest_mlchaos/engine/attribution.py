"""Attribute strikes to parts of a trial, for example to one request of many.

A context variable holds the current part. Tasks and threads with a copy of the context inherit it,
and ``thread_pools.py`` passes it to work that is submitted to a pool. A task that a request started
may work for others too: a batching worker serves all. So a task counts as part of the request only
while the request waits for it. A strike in code that is part of no request may have hit any request
in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ..core.journal import Strike
from ..core.replies import Suspicion
from ..core.sites import Key
from .task_waits import name_of_task, waits_for

__all__ = [
    "Scope",
    "about",
    "as_part_of",
    "aside",
    "attribute_strike",
    "branching",
    "carry_scope",
    "current_scope",
    "forget_scopes",
    "in_flight",
    "in_no_scope",
    "latest_end",
    "scope",
    "scope_beside",
    "tasks_of_scopes",
]

_SCOPE: ContextVar[Scope | Branch | None] = ContextVar("mlchaos_scope", default=None)
_CERTAIN: ContextVar[Scope | None] = ContextVar("mlchaos_certain_scope", default=None)
"""The scope of code that belongs to it for sure."""


@dataclasses.dataclass(slots=True, eq=False)
class Scope:
    """A part of a trial, with the strikes in it."""

    details: Mapping[str, Any]
    task: asyncio.Task[Any] | None
    """The task of this part. None for a call in a thread."""
    thread: int
    strikes: list[Strike] = dataclasses.field(default_factory=list)
    suspicions: list[Suspicion] = dataclasses.field(default_factory=list)
    """Strikes in code that is part of no scope, while this one was open."""
    ended: float | None = None
    """The end of the last strike in the scope's own thread, in seconds on the trial's clock."""
    ended_elsewhere: float | None = None
    """The end of the last strike in other threads, or in code that is part of no scope.

    Such a strike continues after the request has been cancelled.
    """
    tasks: list[weakref.ref[asyncio.Task[Any]]] = dataclasses.field(default_factory=list)
    """The tasks that were started in the scope."""
    task_names: list[str] = dataclasses.field(default_factory=list)
    """Their names, also when they are gone."""
    on_task: Callable[[asyncio.Task[Any]], object] | None = None
    """A function to call with each further task."""

    def running(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that were started in the scope and have not ended."""
        tasks = (reference() for reference in self.tasks)
        return [task for task in tasks if task is not None and not task.done()]


@dataclasses.dataclass(slots=True, eq=False)
class Branch:
    """A task that was started in a scope."""

    scope: Scope
    task: asyncio.Task[Any] | None = None


_open: list[Scope] = []
"""The open scopes, in the order in which they were opened."""
_beside: list[Scope] = []
"""The open scopes whose strikes belong to no reply."""
_outside: list[list[tuple[float, float]]] = []
"""Lists of strikes while no scope was open."""


@contextlib.contextmanager
def scope(**details: object) -> Iterator[Scope]:
    """Attribute the strikes inside to one part of the trial.

    ``details`` are added to the journal of each.
    """
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


@contextlib.contextmanager
def aside(**details: object) -> Iterator[Scope]:
    """Attribute the strikes inside to a part of the trial that is sound by itself.

    Strikes outside of all scopes are not attributed to it.
    """
    with scope(**details) as opened:
        _open.remove(opened)
        yield opened


@contextlib.contextmanager
def scope_beside(**details: object) -> Iterator[None]:
    """Attribute the strikes inside to no part of the trial, for example to a request whose reply
    does not count.
    """
    opened = Scope(details, _current_task(), threading.get_ident())
    before = _SCOPE.get()
    _SCOPE.set(opened)
    _beside.append(opened)
    try:
        yield
    finally:
        if opened in _beside:
            _beside.remove(opened)
        _SCOPE.set(before)


@contextlib.contextmanager
def as_part_of(opened: Scope) -> Iterator[None]:
    """Attribute strikes inside to a scope, also in a callback of a timer."""
    before = _CERTAIN.set(opened)
    try:
        yield
    finally:
        _CERTAIN.reset(before)


@contextlib.contextmanager
def in_no_scope() -> Iterator[list[tuple[float, float]]]:
    """Yield a list of the strikes inside while no scope is open: when each begins and ends."""
    strikes: list[tuple[float, float]] = []
    _outside.append(strikes)
    try:
        yield strikes
    finally:
        _outside[:] = [one for one in _outside if one is not strikes]


def forget_scopes() -> None:
    """Close all scopes between two tests, because an interruption may have left some open."""
    _open.clear()
    _beside.clear()
    _outside.clear()
    _SCOPE.set(None)


def in_flight() -> int:
    """Return the number of open scopes, for example of requests in flight."""
    return len(_open)


def tasks_of_scopes() -> set[asyncio.Task[Any] | None]:
    """Return the tasks of the open scopes, and those that were started in them."""
    scopes = [*_open, *_beside]
    return {one.task for one in scopes}.union(*(one.running() for one in scopes))


def about() -> Mapping[str, Any]:
    """Return the details for a strike in the current code."""
    here = _here()
    if here is not None:
        return here.details
    in_flight = list(_open)
    if len(in_flight) <= 1:
        return in_flight[0].details if in_flight else {}
    return {
        f"one_of_{name}s": [one.details.get(name) for one in in_flight]
        for name in in_flight[0].details
    }


def attribute_strike(
    strike: Strike, begun: float, ended: float, key: Key, *, lasts: bool = False
) -> None:
    """Record a strike in its scope, or in all open scopes if it is part of none.

    Args:
        strike: The strike.
        begun: The time at which it struck, in seconds on the trial's clock.
        ended: The time at which its effect ends.
        key: The key by which the visits of its site are counted.
        lasts: True if its effect goes on after the end of the scope, as an outage does.
    """
    here = _here()
    if here is not None:
        if not any(one is strike for one in here.strikes):
            here.strikes.append(strike)
        if threading.get_ident() == here.thread and not lasts:
            here.ended = max(ended, here.ended or ended)
        else:
            here.ended_elsewhere = max(ended, here.ended_elsewhere or ended)
        return
    in_flight = list(_open)
    # A request that its client has sent again may be there twice.
    numbers = dict.fromkeys(one.details.get("request", 0) for one in in_flight)
    suspicion = Suspicion(strike, tuple(numbers), key)
    if not in_flight:
        for strikes in _outside:
            strikes.append((begun, ended))
    for one in in_flight:
        one.suspicions.append(suspicion)
        one.ended_elsewhere = max(ended, one.ended_elsewhere or ended)


def latest_end() -> float:
    """Return the end of the last strike on a request in flight.

    A wait that never ends is left out.
    """
    ends = [
        end
        for one in list(_open)
        for end in (one.ended, one.ended_elsewhere)
        if end is not None and end != math.inf
    ]
    return max(ends, default=-math.inf)


def carry_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` as part of the current scope, for a thread with a different context.

    No other part of the context is carried over.
    """
    here = _here()

    def carrying(*args: object, **kwargs: object) -> Any:
        before = _SCOPE.get()
        _SCOPE.set(here)
        try:
            return function(*args, **kwargs)
        finally:
            _SCOPE.set(before)

    return carrying


def branching(previous: Callable[..., Any] | None) -> Callable[..., asyncio.Task[Any]]:
    """Return a task factory for event loops, on top of ``previous``.

    Tasks that start in a scope become its branches.
    """

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any
    ) -> asyncio.Task[Any]:
        held, branch = _SCOPE.get(), None
        if held is not None and kwargs.get("context") is None:
            branch = Branch(held.scope if isinstance(held, Branch) else held)
            kwargs["context"] = contextvars.copy_context()
            kwargs["context"].run(_SCOPE.set, branch)
        task: asyncio.Task[Any] = (
            asyncio.Task(coroutine, loop=loop, **kwargs)
            if previous is None
            else previous(loop, coroutine, **kwargs)
        )
        if branch is not None:
            branch.task = task
            branch.scope.tasks.append(weakref.ref(task))
            branch.scope.task_names.append(name_of_task(task))
            if branch.scope.on_task is not None:
                branch.scope.on_task(task)
        return task

    return factory


def current_scope() -> Scope | None:
    """Return the scope of the calling code, if it is certain."""
    return _here()


def _here() -> Scope | None:
    """Return the scope of the current code, if it is certain."""
    if (certain := _CERTAIN.get()) is not None:
        return certain
    held = _SCOPE.get()
    if held is None:
        return None
    scope, task = (held.scope, held.task) if isinstance(held, Branch) else (held, None)
    if _in_own_flow(scope):
        return scope
    if not isinstance(held, Branch):
        if not _in_loop():
            return scope  # a thread with a copy of the scope's context
        task = _current_task()  # None in a callback, for example of a timer
    return (
        scope
        if task is not None and scope.task is not None and waits_for(scope.task, task)
        else None
    )


def _in_own_flow(scope: Scope) -> bool:
    """Return True in the very task, or the very thread, in which the scope was opened."""
    return (
        threading.get_ident() == scope.thread
        if scope.task is None
        else _current_task() is scope.task
    )


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None


def _current_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if _in_loop() else None

"""Find the background tasks of an app, and throw an exception into one.

A background task is part of no request: a batching worker, a refresher, a queue's consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .attribution import is_of_request
from .task_waits import waits_for

__all__ = ["background_tasks", "throw"]

OURS = str(Path(__file__).resolve().parents[1])
"""The folder of this package, whose tasks drive the app."""
MAX_TURNS = 64
"""The number of turns of the event loop after which a task that never waits is given up."""


def background_tasks() -> list[asyncio.Task[Any]]:
    """Return the background tasks of the app in the running event loop, the oldest first.

    A task that only works for another background task is not among them.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return []
    found = [
        task
        for task in asyncio.all_tasks(running)
        if task is not asyncio.current_task() and not _is_ours(task) and not is_of_request(task)
    ]
    outermost = [
        task for task in found if not any(one is not task and waits_for(one, task) for one in found)
    ]
    return sorted(outermost, key=_number)


def _number(task: asyncio.Task[Any]) -> tuple[int, str]:
    """Return a key by which tasks are in the order in which they were made."""
    name = task.get_name()
    digits = name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else 0, name)


def _is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(OURS)


def throw(
    task: asyncio.Task[Any],
    error: BaseException,
    thrown: Callable[[], None],
    *,
    busy: bool = False,
) -> None:
    """Let a task find ``error`` where it waits. Call ``thrown`` when it will.

    Args:
        task: The task.
        error: The exception.
        thrown: It is called right before the exception takes effect.
        busy: True to wait until the task has continued, and waits again.
    """
    _throw(task, error, thrown, _innermost(task) if busy else None, MAX_TURNS)


def _throw(
    task: asyncio.Task[Any],
    error: BaseException,
    thrown: Callable[[], None],
    before: asyncio.Future[Any] | None,
    turns: int,
) -> None:
    if task.done() or not turns:
        return
    waits_on = _innermost(task)
    if waits_on is None or waits_on is before:
        task.get_loop().call_soon(_throw, task, error, thrown, before, turns - 1)
        return
    thrown()
    waits_on.set_exception(error)


def _innermost(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return the future that a task waits for, or that of a task which works for it."""
    for one in asyncio.all_tasks(task.get_loop()):
        if one is not task and waits_for(task, one):
            return _innermost(one)
    found = getattr(task, "_fut_waiter", None)
    if found is None or found.done() or isinstance(found, asyncio.Task):
        return None
    return found  # type: ignore[no-any-return]  # a private attribute has no type

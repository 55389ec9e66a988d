"""Find the background tasks of an app, and throw an exception into one.

A background task is part of no request: a batching worker, a refresher, a queue's consumer.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .attribution import tasks_of_scopes
from .task_waits import runs_user_code, waits_for

__all__ = ["background_tasks", "throw"]

OURS = str(Path(__file__).resolve().parents[1])
"""The folder of this package, whose tasks drive the app."""
MAX_TURNS = 64
"""The number of turns of the event loop after which a task that never waits is given up."""
STABLE_TURNS = 2
"""The number of turns for which a task must wait for the same future.

One that is about to wake could have something in its hands that only the event loop knows of.
"""


def background_tasks() -> list[asyncio.Task[Any]]:
    """Return the background tasks of the app in the running event loop, the oldest first.

    A task that only works for another background task is not among them.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return []
    others = asyncio.all_tasks(running) - tasks_of_scopes() - {asyncio.current_task()}
    found = [task for task in others if not _is_ours(task)]
    outermost = [
        task for task in found if not any(one is not task and waits_for(one, task) for one in found)
    ]
    # Those of libraries, for example of a client's pool, are not the app's own work.
    return sorted(filter(runs_user_code, outermost), key=_number)


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
    before = _innermost(task) if busy else None
    _throw(_Thrown(task, error, thrown, before))


@dataclasses.dataclass(slots=True)
class _Thrown:
    """An exception on its way to a task."""

    task: asyncio.Task[Any]
    error: BaseException
    thrown: Callable[[], None]
    before: asyncio.Future[Any] | None
    """The future that it waited for, and may not wait for now."""
    seen: asyncio.Future[Any] | None = None
    turns_seen: int = 0
    turns: int = 0


def _throw(one: _Thrown) -> None:
    if one.task.done() or one.turns > MAX_TURNS:
        return
    waits_on = _innermost(one.task)
    if waits_on is one.before:
        waits_on = None
    one.turns_seen = one.turns_seen + 1 if waits_on is one.seen else 0
    one.seen, one.turns = waits_on, one.turns + 1
    if waits_on is None or one.turns_seen < STABLE_TURNS:
        one.task.get_loop().call_soon(_throw, one)
        return
    one.task.add_done_callback(_retrieve)
    one.thrown()
    waits_on.set_exception(one.error)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from logging the error when the task is deleted.

    That can happen while pytest parses source code, and the log parses some too, which fails in
    Python 3.11.
    """
    if not task.cancelled():
        task.exception()


def _innermost(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return the future that a task waits for, or that of a task which works for it."""
    for one in asyncio.all_tasks(task.get_loop()):
        if one is not task and waits_for(task, one):
            return _innermost(one)
    found = getattr(task, "_fut_waiter", None)
    if found is None or found.done() or isinstance(found, asyncio.Task):
        return None
    return found  # type: ignore[no-any-return]  # a private attribute has no type

"""Find out which task waits for which, from the callbacks of the futures that tasks wait for."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from .user_code import is_users

__all__ = ["line_of", "name_of_task", "runs_user_code", "waits_for"]

_STEPS_OF_GENERATORS = frozenset({"async_generator_asend", "async_generator_athrow"})
_SEARCH_DEPTH = 2
"""The depth at which a task group's attributes hold the task that opened it."""


def waits_for(waiter: asyncio.Task[Any], task: asyncio.Task[Any]) -> bool:
    """Return True if ``waiter`` cannot continue before ``task`` has ended.

    It may wait directly, or through gather, wait_for or a task group. It does not wait for a task
    that only sets one of its futures, such as a batching worker.
    """
    seen: set[int] = set()
    to_see: list[Any] = [task]
    while to_see:
        one = to_see.pop()
        if one is waiter:
            return True
        if id(one) not in seen:
            seen.add(id(one))
            for callback, *_ in one._callbacks or ():
                to_see += _futures(_held_by(callback), _SEARCH_DEPTH)
    return False


def _held_by(callback: Any) -> list[Any]:
    """Return the objects that a callback uses: its instance, bound arguments and closure.

    Return none for user code.
    """
    function = inspect.unwrap(
        callback.func if isinstance(callback, functools.partial) else callback
    )
    code = getattr(function, "__code__", None)
    if code is not None and is_users(code.co_filename):
        return []
    held = (
        [*callback.args, *callback.keywords.values()]
        if isinstance(callback, functools.partial)
        else []
    )
    if getattr(function, "__self__", None) is not None:
        held.append(function.__self__)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    return held


def _futures(values: Iterable[Any], depth: int) -> Iterator[Any]:
    """Yield the futures among these values, and in the attributes of task groups."""
    for value in values:
        if asyncio.isfuture(value):
            yield value
        elif depth and _is_plumbing(value):
            yield from _futures(_attributes(value), depth - 1)


def _is_plumbing(value: object) -> bool:
    """Return True for an object that groups tasks in a library: its class is a context manager."""
    cls = type(value)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return (
        (hasattr(cls, "__aexit__") or hasattr(cls, "__exit__"))
        and isinstance(file, str)
        and not is_users(file)
    )


def _attributes(value: object) -> list[Any]:
    slots = [
        name
        for cls in type(value).__mro__
        for name in cls.__dict__.get("__slots__", ())
        if isinstance(name, str)
    ]
    return [
        *getattr(value, "__dict__", {}).values(),
        *(getattr(value, name, None) for name in slots),
    ]


def name_of_task(task: asyncio.Task[Any]) -> str:
    """Return the name of a task's coroutine."""
    coroutine: Any = task.get_coro()
    return str(getattr(coroutine, "__qualname__", type(coroutine).__name__))


def line_of(task: asyncio.Task[Any], others: Iterable[asyncio.Task[Any]] = ()) -> str:
    """Return the innermost ``await`` of a suspended task, in user code if possible.

    If it waits for one of the ``others`` that is in user code, return the line of that one.
    """
    frames = _frames(task.get_coro())
    own = _of_user(frames)
    for other in others:
        if other is not task and not other.done() and waits_for(task, other):
            own = _of_user(_frames(other.get_coro())) or own
    found = (own or frames)[-1:]
    return "".join(
        f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})" for frame in found
    )


def runs_user_code(task: asyncio.Task[Any]) -> bool:
    """Return True if a task is in user code, or has begun there.

    A library may start a task for itself at the first request, for example one that watches for
    the end of the server.
    """
    coroutine: Any = task.get_coro()
    code = getattr(coroutine, "cr_code", None)
    files = [frame.f_code.co_filename for frame in _frames(coroutine)]
    return any(map(is_users, [*files, *([] if code is None else [code.co_filename])]))


def _of_user(frames: list[types.FrameType]) -> list[types.FrameType]:
    return [frame for frame in frames if is_users(frame.f_code.co_filename)]


def _frames(coroutine: Any) -> list[types.FrameType]:
    """Return the frames of a suspended coroutine, the outermost first."""
    frames: list[types.FrameType] = []
    while coroutine is not None:
        if type(coroutine).__name__ in _STEPS_OF_GENERATORS:
            # It shows its generator only to the garbage collector.
            held = gc.get_referents(coroutine)
            coroutine = next((one for one in held if inspect.isasyncgen(one)), None)
        frame = next(
            (
                getattr(coroutine, name)
                for name in ("cr_frame", "gi_frame", "ag_frame")
                if hasattr(coroutine, name)
            ),
            None,
        )
        if frame is None:
            break
        frames.append(frame)
        coroutine = next(
            (
                getattr(coroutine, name)
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if hasattr(coroutine, name)
            ),
            None,
        )
    return frames

"""Delay plain functions that return something to await, or to enter with ``async with``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Generator
from typing import Any

from ..engine.gate import Gate

__all__ = ["DelayedItems", "call_in_loop", "in_event_loop"]


def in_event_loop() -> bool:
    """Return True if an event loop runs in this thread.

    A blocking delay would stop all its tasks.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def call_in_loop(function: Callable[..., Any], gate: Gate) -> Any:
    """Call a function in an event loop, under a fault.

    If it returns an awaitable, as methods of many clients do, the delay or the error happens when
    this is awaited. Only the call shows if it does. So for a function that blocks, the delay comes
    after the call.
    """
    with contextlib.ExitStack() as closing:
        closing.push(gate)
        gate.check()
        args, kwargs = gate.payload
        made = function(*args, **kwargs)
        if inspect.iscoroutine(made):
            closing.pop_all()
            return _await_result(made, gate)
        if inspect.isawaitable(made) or hasattr(made, "__aenter__"):
            closing.pop_all()
            return _Awaitable(made, gate)
        gate.wait()
        return made


async def _await_result(made: Any, gate: Gate) -> Any:
    try:
        with gate:
            return await gate.run(lambda: made)
    finally:
        if inspect.iscoroutine(made):
            made.close()  # if the fault has raised, it never started


class _Awaitable:
    """A stand-in for the returned object, until it is awaited or entered."""

    def __init__(self, made: Any, gate: Gate) -> None:
        self._made = made
        self._gate = gate

    def __await__(self) -> Generator[Any, Any, Any]:
        return _await_result(self._made, self._gate).__await__()

    async def __aenter__(self) -> Any:
        return await self._gate.run(self._made.__aenter__)

    async def __aexit__(self, *error: Any) -> Any:
        with self._gate:
            return await self._made.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


class DelayedItems:
    """An async generator under a fault: its first item is late, or is an error."""

    def __init__(self, items: Any, gate: Gate) -> None:
        self._items = items
        self._gate: Gate | None = gate

    def __anext__(self) -> Any:
        gate, self._gate = self._gate, None
        return self._items.__anext__() if gate is None else gate.run(self._items.__anext__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._items, name)

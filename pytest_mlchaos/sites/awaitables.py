"""Functions that are no coroutine functions and yet return something to be awaited, or entered by ``async with``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Generator
from typing import Any

from ..engine.gate import Gate

__all__ = ["DelayedItems", "call_in_loop", "in_event_loop"]


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread: a blocking delay would stop all that it serves."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def call_in_loop(function: Callable[..., Any], gate: Gate) -> Any:
    """Call a function in an event loop, under a fault: what it returns to be awaited is delayed, or fails, when it is awaited.

    Many clients' methods are such functions. Only the call tells; so a function that does block has its delay behind the call.
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
            made.close()  # where the fault has raised, it was never started


class _Awaitable:
    """Stands for what was returned, until it is awaited or entered."""

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
    """An asynchronous generator under a fault: its first item is late, or is an error."""

    def __init__(self, items: Any, gate: Gate) -> None:
        self._items = items
        self._gate: Gate | None = gate

    def __anext__(self) -> Any:
        gate, self._gate = self._gate, None
        return self._items.__anext__() if gate is None else gate.run(self._items.__anext__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._items, name)

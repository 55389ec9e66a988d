"""Free what the frames of an error hold, as a server does after it has logged the error."""

from __future__ import annotations

import asyncio
import contextlib
import dis
import inspect
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["free_frames"]

_YIELD = dis.opmap["YIELD_VALUE"]
_GENERATES = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def free_frames(error: BaseException | None) -> None:
    """Clear the frames of an error and of its causes.

    Without this, an async generator that the app has dropped would live as long as the reply. A
    frame that goes on is left alone, because clearing closes it: a batching worker caught the
    error, gave it to the request, and waits for the next one.
    """
    alive: set[types.FrameType] | None = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame in _frames(error.__traceback__):
            if frame.f_code.co_flags & _GENERATES and _may_go_on(frame):
                continue
            if frame.f_code.co_flags & inspect.CO_COROUTINE:
                alive = _suspended() if alive is None else alive
                if frame in alive:
                    continue
            with contextlib.suppress(RuntimeError):  # it is running
                frame.clear()
        error = error.__cause__ or error.__context__


def _frames(trace: types.TracebackType | None) -> Iterator[types.FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _may_go_on(frame: types.FrameType) -> bool:
    """Return True unless the frame of a generator ended at something else than a ``yield``."""
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == _YIELD


def _suspended() -> set[types.FrameType]:
    """Return the frames of all coroutines in which a task of this loop waits."""
    found: set[types.FrameType] = set()
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
            if frame is not None:
                found.add(frame)
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return found

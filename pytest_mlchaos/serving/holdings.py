"""Note what an app holds before, during and after a load."""

from __future__ import annotations

import asyncio
import gc
import types
from collections import Counter
from pathlib import Path
from typing import Any

from ..engine.resources import list_resources
from ..engine.task_waits import line_of, name_of_task
from ..engine.thread_frames import thread_frames
from ..engine.user_code import is_users
from ..runs.gauges import GaugeReader, find_gauges
from .golden_load import OWN_CALL, Gauge, Holdings

__all__ = ["Watch"]

_PACKAGE = str(Path(__file__).parents[1])
MOST_LOOKS = 200
"""The largest number of looks while the app works, and of those while it rests."""
MOST_STEPS = 2
"""Two different steps of a number show that it does not count requests."""


class Watch:
    """Watch what an app holds during one load."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._readers = find_gauges(app)
        self._gauges = {
            name: _Readings(reader, reader.read()) for name, reader in self._readers.items()
        }
        self._tasks = _waiting_tasks(loop)
        self._resources: list[dict[str, str]] = []
        self._looks = Counter[bool]()

    def look(self, *, rests: bool) -> None:
        """Read all numbers, while the app rests or while it works."""
        self._looks[rests] += 1
        if self._looks[rests] > MOST_LOOKS:
            return
        for readings in self._gauges.values():
            readings.add(rests=rests)
        if rests:
            self._resources.append(_resources())

    def end(self) -> Holdings:
        """Return what has changed since the start."""
        tasks = _waiting_tasks(self._loop)
        if tasks.keys() - self._tasks.keys():
            del tasks
            gc.collect()  # a task that nothing refers to is about to go
            tasks = _waiting_tasks(self._loop)
        names = {name: Counter(found.values()) for name, found in _grouped(tasks).items()}
        grown = Counter(_names(tasks)) - Counter(_names(self._tasks))
        return Holdings(
            tasks=dict(grown),
            places={name: next(iter(names[name]), "") for name in grown},
            resources=(*self._resources, _resources()),
            gauges={name: readings.end() for name, readings in self._gauges.items()},
        )


class _Readings:
    """The readings of one number."""

    def __init__(self, reader: GaugeReader, before: int) -> None:
        self._reader = reader
        self._before = before
        self._rests = [before]
        self._moved = False
        self._steps = set[int]()

    def add(self, *, rests: bool) -> None:
        value = self._reader.read()
        if rests:
            self._rests.append(value)
        elif value != self._before:
            self._moved = True
            if len(self._steps) < MOST_STEPS:
                self._steps.add(value - self._before)

    def end(self) -> Gauge:
        after = self._reader.read()
        rests, steps = (*self._rests, after), frozenset(self._steps)
        return Gauge(self._reader.kind, self._before, after, rests, self._moved, steps)


def _resources() -> dict[str, str]:
    """Return the descriptors, the child processes and the threads with code of the user, in words.

    Other threads are those of pools, which are there for the next request.
    """
    frames = {f"thread {ident}": frame for ident, frame in thread_frames().items()}
    return {
        key: f"{kind} {name}".strip()
        for key, (kind, name) in list_resources().items()
        if kind != "thread" or _runs_users_code(frames.get(key))
    }


def _runs_users_code(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False


def _waiting_tasks(loop: asyncio.AbstractEventLoop | None) -> dict[int, tuple[str, str]]:
    """Return the tasks that no timer will wake, each with its name and its line."""
    if loop is None or loop.is_closed():
        return {}
    timed = {
        id(part)
        for handle in getattr(loop, "_scheduled", ())
        if not handle.cancelled()
        for part in handle._args or ()
    }
    found = {}
    for task in asyncio.all_tasks(loop):
        waits_for: Any = getattr(task, "_fut_waiter", None)
        if id(waits_for) not in timed:
            code = getattr(task.get_coro(), "cr_code", None)
            own = code is not None and code.co_filename.startswith(_PACKAGE)
            found[id(task)] = (OWN_CALL if own else name_of_task(task), line_of(task))
    return found


def _names(tasks: dict[int, tuple[str, str]]) -> list[str]:
    return [name for name, _ in tasks.values()]


def _grouped(tasks: dict[int, tuple[str, str]]) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for key, (name, line) in tasks.items():
        found.setdefault(name, {})[key] = line
    return found

"""Find what an app holds: its semaphores and locks, and the sizes of its containers.

Each has the name by which the user's modules, or the app, reach it.
"""

from __future__ import annotations

import asyncio
import collections
import queue
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..engine.activity import TOOLS
from ..engine.user_code import is_users
from .module_globals import user_modules

__all__ = ["GaugeReader", "find_gauges"]

MAX_OBJECTS = 5_000
"""The largest number of objects that are looked at from the app, and again from the modules."""
MAX_DEPTH = 8
MAX_ITEMS = 50
"""The largest number of values of one container that are followed."""
_CONTAINERS = (dict, list, set, collections.deque)
_PACKAGE = str(Path(__file__).parents[1])
_LOCK = type(threading.Lock())


class GaugeReader(NamedTuple):
    """How to read one number.

    Attributes:
        kind: ``"slots"`` (fewer are a leak), ``"size"`` or ``"number"`` (more are one).
        read: A function that returns the number.
    """

    kind: str
    read: Callable[[], int]


def find_gauges(app: Any) -> dict[str, GaugeReader]:
    """Return what the user's modules and the app reach, by name."""
    found: dict[str, GaugeReader] = {}
    seen: set[int] = set()
    # A method or a handler of the user's may be wrapped in an object of ours.
    roots = [app, *getattr(app, "__dict__", {}).values()] if _is_ours(app) else [app]
    _follow([("app", root) for root in roots], found, seen)
    globals_ = [
        (f"{module.__name__}.{name}", value)
        for module in user_modules()
        for name, value in list(vars(module).items())
        if not name.startswith("__")
    ]
    # Later, so that the modules of a large project do not keep us from looking into the app.
    _follow(globals_, found, seen)
    return found


def _follow(roots: list[tuple[str, Any]], found: dict[str, GaugeReader], seen: set[int]) -> None:
    """Add what can be reached from these objects, the nearest first."""
    to_see = collections.deque((name, value, 0) for name, value in roots)
    most = len(seen) + MAX_OBJECTS
    while to_see and len(seen) < most:
        name, value, depth = to_see.popleft()
        if id(value) in seen or isinstance(value, types.ModuleType):
            continue
        seen.add(id(value))
        reader = _reader(value)
        if reader is not None:
            found[name] = reader
        if depth < MAX_DEPTH:
            for part, held in _parts(value):
                if type(held) is int and _is_users_instance(value):
                    attribute = part.removeprefix(".")
                    found[name + part] = GaugeReader("number", _attribute_of(value, attribute))
                elif type(held) not in (int, str, bytes, float, bool, type(None)):
                    to_see.append((name + part, held, depth + 1))


def _reader(value: Any) -> GaugeReader | None:
    if isinstance(value, (asyncio.Semaphore, threading.Semaphore)):
        return GaugeReader("slots", lambda: value._value)
    if isinstance(value, (asyncio.Lock, _LOCK)):
        return GaugeReader("slots", lambda: not value.locked())
    if isinstance(value, (asyncio.Queue, queue.Queue)):
        return GaugeReader("size", value.qsize)
    if type(value).__name__ == "CapacityLimiter" and hasattr(value, "available_tokens"):
        return GaugeReader("slots", lambda: int(min(value.available_tokens, sys.maxsize)))
    kind = next((kind for kind in _CONTAINERS if isinstance(value, kind)), None)
    if kind is None:
        return None
    size: Callable[[Any], int] = kind.__len__  # an override of a subclass is not called
    return GaugeReader("size", lambda: size(value))


def _attribute_of(value: Any, name: str) -> Callable[[], int]:
    def read() -> int:
        try:  # also of an instance with slots, and without any code of its class
            held = object.__getattribute__(value, name)
        except AttributeError:
            return -1
        return held if type(held) is int else -1

    return read


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds, each with the end of its name."""
    if isinstance(value, types.MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, types.FunctionType):
        if value.__code__.co_filename.startswith(_PACKAGE):
            return  # a wrapper of a site
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield f".{name}", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
    elif isinstance(value, dict):
        for key, held in list(value.items())[:MAX_ITEMS]:
            if isinstance(key, str):
                yield f"[{key!r}]", held
    elif isinstance(value, (list, tuple)):
        for place, held in enumerate(value[:MAX_ITEMS]):
            yield f"[{place}]", held
    elif _is_followed(type(value)):
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except (AttributeError, TypeError):
            return
        for name, held in list(attributes.items()):
            if not name.startswith("__"):
                yield f".{name}", held


def _is_followed(cls: type) -> bool:
    """Return True for a class of the user, or of a library. Its instances, or it, hold state."""
    package = str(getattr(cls, "__module__", "")).partition(".")[0]
    if cls is type:
        return True
    return package not in TOOLS and (
        package not in sys.stdlib_module_names or issubclass(cls, types.SimpleNamespace)
    )


def _is_ours(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in TOOLS


def _is_users_instance(value: object) -> bool:
    file = getattr(sys.modules.get(type(value).__module__), "__file__", None)
    return isinstance(file, str) and is_users(file)

"""Detect and undo what a run leaves in its process.

These are threads, child processes, values in user modules, and a changed working directory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from ..core.privacy import command_text
from ..engine.activity import TOOL_PROCESSES, is_alive
from ..engine.import_hooks import watch_imports
from ..runs.module_globals import GlobalContainers, user_modules

__all__ = ["Leftovers"]

EXIT_TIMEOUT_SECONDS = 2.0
"""Threads and processes that are ending get this long to end."""
_CHILDREN = Path("/proc/self/task")


class Leftovers:
    """Snapshot the process before a run, and find what is new afterwards."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._processes = set(_children())
        self._directory = os.getcwd()
        self._state = _State()
        self._containers = GlobalContainers()
        self._as_left: GlobalContainers | None = None

    @contextlib.contextmanager
    def following_imports(self) -> Iterator[None]:
        """Accept changes that imports make while the context is entered.

        They are not a run's doing, so they stay and count as part of the start.
        """
        before: list[_State] = []
        with (
            self._containers.following_imports(),
            watch_imports(
                lambda: before.append(_State()), lambda: self._state.take_over(before.pop())
            ),
        ):
            yield

    def look(self) -> None:
        """After the first run, check if it changed state that cannot be restored."""
        if self._as_left is None and self._state.changed():
            self._as_left = GlobalContainers()

    def restore(self) -> None:
        """Restore the plain containers of user modules, and their names if possible.

        If a class, an object or a cache changed, it may record that a name already has its value.
        Then the names keep their values.
        """
        self._containers.restore()
        if self._as_left is None:
            self._state.bind_again()

    def leave(self) -> None:
        """Restore the state before the first run, or the state after it.

        The second applies if the first could only be restored in part. No program would ever be in
        such a mixed state.
        """
        if self._as_left is not None:
            self._as_left.restore()
        else:
            self.restore()

    def in_globals(self) -> list[str]:
        """Return the names of user modules that are restored."""
        names = self._state.bound_anew() if self._as_left is None else []
        return names + [name for name in self._containers.changed() if name not in names]

    def kept(self) -> list[str]:
        """Return the names of user modules that keep a changed value.

        A new process would not have that value.
        """
        return [] if self._as_left is None else self._state.bound_anew()

    def directory(self) -> str | None:
        """Return the working directory if it changed, or None."""
        try:
            here = os.getcwd()
        except FileNotFoundError:
            return "a directory that is gone"
        return here if here != self._directory else None

    def running(self) -> list[str]:
        """Return the non-daemon threads and the child processes that are new and still run.

        They get a moment to end.
        """
        until = monotonic() + EXIT_TIMEOUT_SECONDS
        while (found := [*self._new_threads(), *self._new_processes()]) and monotonic() < until:
            sleep(0.01)
        return found

    def _new_threads(self) -> Iterator[str]:
        for thread in threading.enumerate():
            if (
                thread not in self._threads
                and not thread.daemon
                and thread is not threading.current_thread()
            ):
                yield f"the thread {thread.name}"

    def _new_processes(self) -> Iterator[str]:
        for pid in _children():
            if (
                pid not in self._processes
                and pid not in TOOL_PROCESSES
                and not _is_helper(pid)
                and is_alive(pid)
            ):
                yield f"the process {_command(pid)}"


_ABSENT = object()
_IMPORTED = (type, types.FunctionType, types.BuiltinFunctionType)
_PLAIN = (int, float, complex, str, bytes, type(None))
_CACHED = type(functools.lru_cache(lambda: None))


class _State:
    """The values of user modules' names, and state that cannot be restored.

    The second part has the attributes of their classes and objects, and the sizes of their caches.
    """

    def __init__(self) -> None:
        self._modules = {module: dict(vars(module)) for module in user_modules()}
        self._others = {id(holder): (holder, held) for holder, held in self._holders()}

    def bound_anew(self) -> list[str]:
        """Return the names (``module.name``) that were rebound or deleted.

        Names that an import filled are left out.
        """
        return [f"{module.__name__}.{name}" for module, name in self._bound_anew()]

    def bind_again(self) -> None:
        """Restore the values of those names."""
        for module, name in list(self._bound_anew()):
            before = self._modules[module].get(name, _ABSENT)
            if before is not _ABSENT:
                vars(module)[name] = before
            else:
                del vars(module)[name]

    def _bound_anew(self) -> Iterator[tuple[types.ModuleType, str]]:
        for module, names in self._modules.items():
            for name, value in {**dict.fromkeys(names, _ABSENT), **vars(module)}.items():
                before = names.get(name, _ABSENT)
                if (
                    not _is_same(before, value)
                    and not name.startswith("__")
                    and not _is_late(before, value)
                ):
                    yield module, name

    def changed(self) -> bool:
        found = {id(holder): held for holder, held in self._holders()}
        return any(
            key in found
            and (
                found[key].keys() != held.keys()
                or not all(_is_same(found[key][name], held[name]) for name in held)
            )
            for key, (_, held) in self._others.items()
        )

    def take_over(self, before: _State) -> None:
        """Treat changes since ``before`` as part of the start."""
        for module, names in self._modules.items():
            old = before._modules.get(module, {})
            names.update(
                (name, value)
                for name, value in vars(module).items()
                if old.get(name, _ABSENT) is not value
            )
        for holder, held in self._holders():
            earlier = before._others.get(id(holder), (holder, {}))[1]
            kept = self._others.get(id(holder))
            if kept is not None:
                kept[1].update(
                    (name, value)
                    for name, value in held.items()
                    if earlier.get(name, _ABSENT) is not value
                )
        for module in user_modules():
            self._modules.setdefault(module, dict(vars(module)))

    def _holders(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield the classes, objects and caches that user modules name, with their content."""
        for module, names in self._modules.items():
            for value in names.values():
                if isinstance(value, _CACHED):
                    yield value, {"size": value.cache_info().currsize}
                elif isinstance(value, type):
                    if value.__module__ == module.__name__:
                        yield value, dict(vars(value))
                elif sys.modules.get(type(value).__module__) in self._modules:
                    yield value, dict(getattr(value, "__dict__", None) or {})


def _is_late(before: object, value: object) -> bool:
    """Return True for a lazily imported value, which stays imported."""
    return isinstance(value, types.ModuleType) or (
        isinstance(value, _IMPORTED) and (before is None or before is _ABSENT)
    )


def _is_same(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, _PLAIN) and one == other)


def _children() -> list[int]:
    """Return this process's children (Linux)."""
    found: list[int] = []
    for task in _CHILDREN.glob("*/children") if _CHILDREN.is_dir() else ():
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _is_helper(pid: int) -> bool:
    """Return True for multiprocessing's own helpers, which live as long as this process."""
    trackers = (
        ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    )
    return any(
        getattr(getattr(sys.modules.get(module), one, None), name, None) == pid
        for module, one, name in trackers
    )


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return command_text(
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .decode(errors="replace")
            .rstrip("\0")
            .split("\0")
        )
    return str(pid)

"""What a run has left behind in its process: threads, child processes, names of user modules that are bound anew, another directory."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

from ..bystanders import OUR_PROCESSES
from ..global_containers import GlobalContainers
from ..places import is_users

__all__ = ["Leftovers"]

PATIENCE = 2.0
"""Seconds for threads and processes that are on their way out."""
_CHILDREN = Path("/proc/self/task")


class Leftovers:
    """What there was before a run; afterwards, what is new."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._processes = set(_children())
        self._directory = os.getcwd()
        self._names = _user_names()
        self._containers = GlobalContainers()

    def restore(self) -> None:
        """Put back what user modules hold in their globals, names that were bound anew among it."""
        for module, names in self._names.items():
            held = vars(module)
            for name, value in names.items():
                if held.get(name) is not value:
                    held[name] = value
            for name in held.keys() - names.keys():
                del held[name]
        self._containers.restore()

    def in_globals(self) -> list[str]:
        """Names of user modules whose value is another object now, or whose content has changed."""
        found = [
            f"{module.__name__}.{name}"
            for module, names in self._names.items()
            for name, value in vars(module).items()
            if names.get(name, _ABSENT) is not value and not name.startswith("__") and not isinstance(value, types.ModuleType)
        ]
        return found + [name for name in self._containers.changed() if name not in found]

    def directory(self) -> str | None:
        """The current directory, if it is another one."""
        try:
            here = os.getcwd()
        except FileNotFoundError:
            return "a directory that is gone"
        return here if here != self._directory else None

    def running(self) -> list[str]:
        """Threads that would keep a process from ending, and child processes, that still run; they are given a moment to end."""
        until = monotonic() + PATIENCE
        while (found := [*self._new_threads(), *self._new_processes()]) and monotonic() < until:
            sleep(0.01)
        return found

    def _new_threads(self) -> Iterator[str]:
        for thread in threading.enumerate():
            if thread not in self._threads and not thread.daemon and thread is not threading.current_thread():
                yield f"the thread {thread.name}"

    def _new_processes(self) -> Iterator[str]:
        for pid in _children():
            if pid not in self._processes and pid not in OUR_PROCESSES and not _is_helper(pid) and _is_alive(pid):
                yield f"the process {_command(pid)}"


_ABSENT = object()


def _user_names() -> dict[types.ModuleType, dict[str, object]]:
    """What the names of user modules are bound to."""
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(module, types.ModuleType) and isinstance(file, str) and is_users(file):
            found[module] = dict(vars(module))
    return found


def _children() -> list[int]:
    """The child processes of this one (Linux)."""
    found: list[int] = []
    for task in _CHILDREN.glob("*/children") if _CHILDREN.is_dir() else ():
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _is_helper(pid: int) -> bool:
    """Multiprocessing's own: they live as long as the process."""
    trackers = (
        ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    )
    return any(getattr(getattr(sys.modules.get(module), one, None), name, None) == pid for module, one, name in trackers)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return text if len(text) <= 60 else text[:57] + "..."
    return str(pid)

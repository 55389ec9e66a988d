"""Receive Python's audit events, which announce file operations before they happen."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from ...processes.fork_server import FORK_EVENT

__all__ = ["Listener", "hear"]

Listener = Callable[[str, tuple[Any, ...]], None]
"""Called with an event and its arguments, before the operation that they announce."""

STARTS = frozenset(
    {
        "subprocess.Popen",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "_posixsubprocess.fork_exec",
        FORK_EVENT,
    }
)
"""Events that start a process, which may write as well."""
_NAMES = frozenset(
    f"os.{name}"
    for name in (
        "chmod",
        "chown",
        "link",
        "mkdir",
        "remove",
        "rename",
        "rmdir",
        "symlink",
        "truncate",
        "utime",
    )
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LISTINGS = frozenset({"os.listdir", "os.scandir"})
"""Events that list a directory."""
_listeners: list[Listener] = []
_list_listeners: list[Listener] = []


def hear(listener: Listener, *, listings: bool = False) -> Callable[[], None]:
    """Report operations that may change files, mappings, and new processes to the listener.

    With ``listings``, report listed and opened directories, too. The returned function removes the
    listener.
    """
    _install()
    _listeners.append(listener)
    if listings:
        _list_listeners.append(listener)

    def remove() -> None:
        _listeners.remove(listener)
        if listings:
            _list_listeners.remove(listener)

    return remove


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listeners:
        return
    if _list_listeners and (event in LISTINGS or (event == "open" and not _is_written(arguments))):
        for listener in tuple(_list_listeners):
            listener(event, arguments)
        return
    if (
        event in _NAMES
        or event in STARTS
        or event == "mmap.__new__"
        or (event == "open" and _is_written(arguments))
    ):
        for listener in tuple(_listeners):
            listener(event, arguments)


def _is_written(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else None
    return not isinstance(flags, int) or bool(flags & _WRITES)


@functools.cache
def _install() -> None:
    """Install the hook once per process, because Python cannot remove an audit hook."""
    sys.addaudithook(_hook)

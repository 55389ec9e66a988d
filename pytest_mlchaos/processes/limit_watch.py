"""End a process that uses more than its test allows.

The supervisor looks at the use of all processes of a run, every 50 ms. Limits of the kernel would
be harder, but the subject can catch the error that most of them raise. A run that goes on after it
says nothing about recovery, and nothing shows that a limit was the reason. Looking also needs no
rights, as cgroups do, and it covers processes that the run starts.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.limits import Limits
from ..core.validation import format_seconds, size_text
from .process_tree import descendants

__all__ = ["LimitWatch"]

SECONDS_BETWEEN_LOOKS = 0.05
SHARE_OF_TIME = 0.05
"""Looking takes at most about this share of the time, also in a directory with many files."""


class LimitWatch:
    """Look at what a process uses.

    Args:
        limits: The limits.
        pid: The process. All processes below this one count.
        folders: The directories that count for ``limits.disk``.
    """

    def __init__(self, limits: Limits, pid: int, folders: Sequence[str]) -> None:
        self._limits, self._pid, self._folders = limits, pid, folders
        self._next = time.monotonic() + SECONDS_BETWEEN_LOOKS
        self._ended: dict[int, float] = {}

    def wait(self, left: float | None) -> float | None:
        """Return the seconds until the next look, or the given ones if these are fewer."""
        if not self._limits.names:
            return left
        until = max(0.0, self._next - time.monotonic())
        return until if left is None else min(left, until)

    def exceeded(self) -> str:
        """Return what is used too much of, in words, or an empty text."""
        start = time.monotonic()
        if not self._limits.names or start < self._next:
            return ""
        found = self._exceeded()
        end = time.monotonic()
        self._next = end + max(SECONDS_BETWEEN_LOOKS, (end - start) / SHARE_OF_TIME)
        return found

    def _exceeded(self) -> str:
        limits = self._limits
        if limits.memory is not None or limits.cpu is not None:
            processes = list(_processes([self._pid, *descendants()]))
            if limits.memory is not None and (used := _memory(processes, limits.memory)):
                return f"used {size_text(used)} of memory, and memory= allows {size_text(limits.memory)}"
            if limits.cpu is not None and (seconds := self._cpu(processes)) > limits.cpu:
                return (
                    f"used {format_seconds(seconds)} of processor time, and cpu= allows "
                    f"{format_seconds(limits.cpu)}"
                )
        if limits.disk is not None and (size := sum(map(_size, self._folders))) > limits.disk:
            return (
                f"has {size_text(size)} in its work directory, and disk= allows "
                f"{size_text(limits.disk)}"
            )
        return ""

    def _cpu(self, processes: Sequence[Any]) -> float:
        """Return the processor time of all processes, also of those that have ended by now."""
        for process in processes:
            for times in _asked(process.cpu_times):
                self._ended[process.pid] = times.user + times.system
        return sum(self._ended.values())


def _processes(pids: Sequence[int]) -> Iterator[Any]:
    import psutil  # a dependency of the extra process, which FreshProcesses has checked

    for pid in dict.fromkeys(pids):
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(pid)


def _asked(ask: Callable[[], Any]) -> list[Any]:
    """Return the answer in a list, or nothing if the process has ended."""
    import psutil

    try:
        return [ask()]
    except (psutil.Error, OSError):
        return []


def _memory(processes: Sequence[Any], limit: int) -> int:
    """Return the memory of the processes if it exceeds the limit, or 0.

    Pages that forked processes share count once. The kernel takes milliseconds to tell this, so it
    is only asked if the sum of all pages exceeds the limit.
    """
    used = sum(found.rss for one in processes for found in _asked(one.memory_info))
    if used > limit:
        full = [found for one in processes for found in _asked(one.memory_full_info)]
        used = sum(getattr(found, "pss", found.rss) for found in full)
    return used if used > limit else 0


def _size(folder: str) -> int:
    """Return the size of the files in a directory. Files may come and go meanwhile."""
    found = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += Path(path, name).lstat().st_size
    return found

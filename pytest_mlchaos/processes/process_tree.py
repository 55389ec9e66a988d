"""Find and end the processes below one: its children, their children, and orphans."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..core.privacy import command_text

__all__ = [
    "adopt_orphans",
    "children",
    "descendants",
    "die_with_parent",
    "end_all",
    "is_dying",
    "parents",
    "process_name",
    "reap",
    "threads",
]

_EXITING = 0x4
"""The kernel's flag of a process that is ending."""
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
_TASKS = Path("/proc/self/task")
KILL_TIMEOUT_SECONDS = 10.0
"""The time limit for killed processes to disappear."""
MAX_NAME_CHARACTERS = 80
"""The maximum length of a command line."""

OnExit = Callable[[int, int], object]
"""A function that receives the id and the ``os.waitpid`` status of an ended process."""


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of all processes below this one whose parent ends (Linux).

    Their session does not matter.
    """
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when ``parent`` ends (Linux)."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has ended before the call
        os._exit(1)


def reap(ended: OnExit = lambda pid, status: None) -> bool:
    """Collect the children that have ended. Return False if no children are left."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return True
            ended(pid, status)
    except ChildProcessError:
        return False


def end_all(known: Iterable[int] = (), ended: OnExit = lambda pid, status: None) -> None:
    """Kill all processes below this one.

    Orphans of killed processes become children of this one, and are next.
    """
    gone = time.monotonic() + KILL_TIMEOUT_SECONDS
    while reap(ended) and time.monotonic() < gone:
        for pid in (*known, *children()):
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)
        if not reap(ended):
            return
        time.sleep(0.001)


def is_dying(pid: int) -> bool:
    """Return True if a process is ending or has got SIGKILL (Linux).

    On a busy machine it may take some time until it is gone.
    """
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)", status, re.MULTILINE)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        killed = 1 << (signal.SIGKILL - 1)
        return any(int(mask, 16) & killed for mask in pending) or bool(int(fields[6]) & _EXITING)
    return False


def children() -> list[int]:
    """Return the children of this process, also ended ones that are not collected yet (Linux)."""
    try:
        return [
            int(pid) for task in _TASKS.iterdir() for pid in (task / "children").read_text().split()
        ]
    except OSError:  # a kernel without that file
        me = os.getpid()
        return [pid for pid, parent in parents() if parent == me]


def descendants(*above: int) -> list[int]:
    """Return the running processes below these ones, or below this one (Linux)."""
    if not above and not children():
        return []
    roots = set(above or [os.getpid()])
    below, found = set(roots), -1
    everyone = dict(parents())
    while found != len(below):
        found = len(below)
        below |= {pid for pid, parent in everyone.items() if parent in below}
    return sorted(below - roots)


def parents() -> Iterator[tuple[int, int]]:
    """Yield each running process with its parent (Linux)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in ("Z", "X"):
                yield int(path.parent.name), int(parent)


def process_name(pid: int) -> str:
    """Return the shortened command line of a process (Linux), or its id on other systems."""
    try:
        command = (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .decode(errors="replace")
            .rstrip("\0")
            .split("\0")
        )
        text = (
            command_text(command) if command[0] else Path(f"/proc/{pid}/comm").read_text().strip()
        )
    except OSError:
        return f"process {pid}"
    return text if len(text) <= MAX_NAME_CHARACTERS else f"{text[: MAX_NAME_CHARACTERS - 3]}..."


def threads() -> int:
    """Return the number of threads of this process, with those of C libraries.

    It is 0 on systems other than Linux.
    """
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0

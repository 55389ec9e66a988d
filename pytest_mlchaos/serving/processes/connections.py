"""Find the process of a server that has a connection (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...engine.scopes import INTERNAL_OPERATION, within
from ...processes.process_tree import parents

__all__ = ["holder_of", "listens", "processes_below"]

LISTEN = "0A"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def processes_below(root: int) -> list[int]:
    """Return the running processes below this one."""
    everyone, below, known = dict(parents()), {root}, 0
    while known != len(below):
        known = len(below)
        below |= {pid for pid, parent in everyone.items() if parent in below}
    return sorted(below - {root})


def listens(port: int, processes: Iterable[int]) -> bool:
    """Return True if one of these processes listens on the port."""
    with within(INTERNAL_OPERATION):
        names = {f"socket:[{inode}]" for local, _, inode in _sockets(state=LISTEN) if local == port}
        return any(_has(pid, name) for pid in processes for name in names)


def holder_of(client: int, server: int, processes: Iterable[int]) -> int | None:
    """Return the process that has accepted the connection between two ports, or None.

    If several share it, as after a fork, return the last one: workers are below their master.
    """
    with within(INTERNAL_OPERATION):
        ports = server, client
        # The inode is 0 until a process has accepted the connection.
        inodes = (inode for *found, inode in _sockets() if (*found,) == ports and inode != "0")
        inode = next(inodes, None)
        if inode is None:
            return None
        holders = [pid for pid in processes if _has(pid, f"socket:[{inode}]")]
    return holders[-1] if holders else None


def _sockets(state: str | None = None) -> Iterator[tuple[int, int, str]]:
    """Yield the local port, the remote port and the inode of each TCP socket."""
    for table in TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if state is None or fields[3] == state:
                local, remote = (int(one.rpartition(":")[2], 16) for one in fields[1:3])
                yield local, remote, fields[9]


def _has(pid: int, name: str) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_target(entry.path) == name for entry in entries)
    except OSError:
        return False


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""

"""Find the process of a server that has a connection (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...engine.scopes import INTERNAL_OPERATION, within
from ...processes.process_tree import parents

__all__ = ["holder_of", "processes_below"]

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def processes_below(root: int) -> list[int]:
    """Return the running processes below this one."""
    everyone, below, known = dict(parents()), {root}, 0
    while known != len(below):
        known = len(below)
        below |= {pid for pid, parent in everyone.items() if parent in below}
    return sorted(below - {root})


def holder_of(client: int, server: int, processes: Iterable[int]) -> int | None:
    """Return the process that has accepted the connection between two ports, or None.

    If several share it, as after a fork, return the last one: workers are below their master.
    """
    with within(INTERNAL_OPERATION):
        inode = next(_inodes(client, server), None)
        if inode is None:
            return None
        holders = [pid for pid in processes if _has(pid, f"socket:[{inode}]")]
    return holders[-1] if holders else None


def _inodes(client: int, server: int) -> Iterator[str]:
    """Yield the inode of the server's end. It is 0 until a process has accepted it."""
    for table in TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, remote, inode = fields[1], fields[2], fields[9]
            ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
            if ports == (server, client) and inode != "0":
                yield inode


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

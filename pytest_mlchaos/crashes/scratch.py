"""Make the directory of an exploration's copies, and remove those that killed sessions left.

An exploration keeps the contents of all crash states in it, which may be gigabytes. It removes the
directory at its end, also after Ctrl-C. After SIGKILL, pytest would keep it for days, because the
killed session has not released the lock of its temporary directories.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..core.interrupts import uninterruptible
from ..engine.scopes import GOLDEN_COPY_PREFIX, INTERNAL_OPERATION, within

__all__ = ["exploration_home", "remove_abandoned"]

LOCK_SUFFIX = ".lock"
"""The suffix of a file beside the directory, which its process keeps locked. The kernel unlocks it
when the process ends.
"""
SESSIONS = ("pytest-*", "pytest-*/popen-*")
"""The temporary directories of pytest's sessions, and those of xdist's workers."""


@uninterruptible
def exploration_home(scratch: Path) -> Iterator[Path]:
    """Make a directory for an exploration, and remove it at its end.

    Args:
        scratch: The temporary directory of the session.
    """
    home = scratch / f"{GOLDEN_COPY_PREFIX}{secrets.token_hex(8)}"
    with within(INTERNAL_OPERATION):
        _remove_abandoned_once(scratch)
        # Other sessions see the file when it is locked.
        new = home.with_name(f"{home.name}.new")
        lock = _lock(new)
        if lock is not None:
            new.rename(_lock_of(home))
        home.mkdir(mode=0o700)
    try:
        yield home
    finally:
        with within(INTERNAL_OPERATION):
            shutil.rmtree(home, ignore_errors=True)
            _unlock(lock, _lock_of(home))


@functools.cache
def _remove_abandoned_once(scratch: Path) -> None:
    remove_abandoned(scratch)


def remove_abandoned(scratch: Path) -> None:
    """Remove the directories of explorations whose processes have ended, of all sessions.

    Args:
        scratch: The temporary directory of this session. Those of others are found if pytest has
            chosen it.
    """
    folders = [scratch]
    base = next((one for one in scratch.parents if one.name.startswith("pytest-of-")), None)
    for pattern in SESSIONS if base is not None else ():
        folders += base.glob(pattern) if base is not None else ()
    for folder in folders:
        for lock in folder.glob(f"{GOLDEN_COPY_PREFIX}*{LOCK_SUFFIX}"):
            fd = _lock(lock)
            if fd is not None:
                shutil.rmtree(lock.with_name(lock.name.removesuffix(LOCK_SUFFIX)), True)
                _unlock(fd, lock)


def _lock_of(home: Path) -> Path:
    return home.with_name(f"{home.name}{LOCK_SUFFIX}")


def _lock(path: Path) -> int | None:
    """Lock a file and return its descriptor, or None if it cannot be locked now."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    fd = None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if fd is not None:
            os.close(fd)
        return None
    return fd


def _unlock(fd: int | None, path: Path) -> None:
    if fd is not None:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(fd)

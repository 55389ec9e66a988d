"""Count visits and strikes together with the processes that the subject forks."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from os import close, fstat, pread, pwrite  # the trial replaces what user code calls
from typing import Any, NamedTuple

from ..core.sites import Key
from .file_limit import FILE_LIMIT
from .scopes import INTERNAL_OPERATION, within

__all__ = ["Forks", "ForksAddress", "nameless_file"]

_NUMBER = struct.Struct("q")
_ON, _END, _FIRST = range(3)
"""The slots of the numbers before the log. The visits and strikes begin at the last one."""
MAX_RANKS = 64
"""The ranks that count their own visits and strikes. Later ones count together."""


class ForksAddress(NamedTuple):
    """Identify the file of a ``Forks`` for a process that has not inherited it."""

    process: int
    fd: int
    identity: tuple[int, int]
    keys: tuple[Key, ...]
    faults: int
    name: str
    children: int
    rank: int | None = None


class Forks:
    """Counters and messages in an unnamed file, which each forked process inherits.

    The file survives a process that is killed, with all messages of that process. Its lock is
    released with the process.

    Attributes:
        keys: The keys that are counted together.
        children: The number of processes that this one has forked.
        name: The name of this process: ``child 2``, or ``child 2.1`` for a child of that. Empty in
            the first process.
        rank: The rank of this process in a job that the subject has started, or None. The processes
            of a rank count together, and all processes without a rank do.
    """

    def __init__(self, keys: Sequence[Key], faults: int, fd: int | None = None) -> None:
        self.keys = tuple(keys)
        self._faults = faults
        self.children = 0
        self.name = ""
        self.rank: int | None = None
        self._width = len(keys) + faults
        self._slots = {key: _FIRST + index for index, key in enumerate(keys)}
        self._strikes = _FIRST + len(keys)
        self._log = self._read_to = (_FIRST + (1 + MAX_RANKS) * self._width) * _NUMBER.size
        self._lock = threading.Lock()
        self._fd = nameless_file() if fd is None else fd
        self._identity = _identity(self._fd)
        if fd is None:
            self._set(_END, self._log)
            self._set(_ON, 1)

    def address(self) -> ForksAddress | None:
        """Return what a process needs that is started afresh, or None if it cannot open the file."""
        if self._identity is None or not os.path.isdir("/proc/self/fd"):
            return None
        return ForksAddress(
            os.getpid(),
            self._fd,
            self._identity,
            self.keys,
            self._faults,
            self.name,
            self.children,
            self.rank,
        )

    @classmethod
    def at(cls, address: ForksAddress) -> Forks | None:
        """Open the file of a different process. Return None if it has closed it."""
        with within(INTERNAL_OPERATION):
            try:
                fd = os.open(f"/proc/{address.process}/fd/{address.fd}", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return None
        if _identity(fd) != address.identity:
            close(fd)
            return None
        forks = cls(address.keys, address.faults, fd)
        forks.name, forks.children, forks.rank = address.name, address.children, address.rank
        return forks

    # -- in each process ---------------------------------------------------------------------------

    def is_counted(self, key: Key) -> bool:
        """Return True if the visits of this key are counted together."""
        return key in self._slots

    def advance(self, key: Key) -> int:
        """Count a visit, and return its number from 1.

        Return 0 if no fault may strike here any more.
        """
        with self._locked() as mine:
            return self._add(self._visits(key)) if mine and self._is_on() else 0

    def passed(self, key: Key) -> int:
        """Return the number of visits."""
        return self._shared(self._visits(key))

    def struck(self, index: int) -> int:
        """Return how many times the scheduled fault of this index has struck."""
        return self._shared(self._strikes + self._group + index)

    def claim(self, index: int, times: int) -> bool:
        """Count a strike before it is made. Return False if there were enough strikes."""
        slot = self._strikes + self._group + index
        with self._locked() as mine:
            return mine and self._get(slot) < times and bool(self._add(slot))

    def release(self, index: int) -> None:
        """Undo a claim, if there was nothing to strike."""
        with self._locked() as mine:
            if mine:
                self._add(self._strikes + self._group + index, -1)

    def count_strike(self, index: int) -> None:
        """Count a strike."""
        with self._locked() as mine:
            if mine:
                self._add(self._strikes + self._group + index)

    # -- in a child --------------------------------------------------------------------------------

    def born(self) -> None:
        """Continue as a process that was just forked."""
        # A different thread of the parent may have held it.
        self._lock = threading.Lock()
        self.name = f"{self.name or 'child '}{'.' if self.name else ''}{self.children}"
        self.children = 0

    def tell(self, kind: str, *content: object) -> None:
        """Append a message to the log."""
        data = pickle.dumps((kind, *content))
        with self._locked() as mine:
            if mine and self._is_on():
                end = self._get(_END)
                pwrite(self._fd, _NUMBER.pack(len(data)) + data, end)
                # Written last, so that a message cut off by a kill is ignored.
                self._set(_END, end + _NUMBER.size + len(data))

    # -- in the trial's process --------------------------------------------------------------------

    def told(self) -> list[tuple[Any, ...]]:
        """Return the messages since the last call."""
        messages = []
        with self._locked() as mine:
            end = self._get(_END) if mine else self._read_to
            while self._read_to < end:
                (size,) = _NUMBER.unpack(pread(self._fd, _NUMBER.size, self._read_to))
                messages.append(pickle.loads(pread(self._fd, size, self._read_to + _NUMBER.size)))
                self._read_to += _NUMBER.size + size
        return messages

    def begin(self, passed: dict[Key, int], struck: dict[int, int]) -> None:
        """Set the numbers to start from, before the first fork."""
        with self._locked():
            for key, number in passed.items():
                if key in self._slots:
                    self._set(self._visits(key), number)
            for index, number in struck.items():
                self._set(self._strikes + self._group + index, number)

    def ranks(self) -> dict[int, tuple[dict[Key, int], dict[int, int]]]:
        """Return the numbers of visits and strikes of each rank that has made visits."""
        with self._locked() as mine:
            data = pread(self._fd, self._log, 0) if mine else b""
        numbers = [number for (number,) in _NUMBER.iter_unpack(data.ljust(self._log, b"\0"))]
        found = {}
        for rank in range(MAX_RANKS):
            first = _FIRST + (1 + rank) * self._width
            own = numbers[first : first + self._width]
            if any(own):
                passed = dict(zip(self.keys, own, strict=False))
                found[rank] = passed, dict(enumerate(own[len(self.keys) :]))
        return found

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop strikes in the children inside this context."""
        self._switch(0)
        try:
            yield
        finally:
            self._switch(1)

    def close(self) -> None:
        """Stop strikes in the children for good. In a child, only close its own descriptor."""
        if not self.name:
            self._switch(0)
        with self._lock:
            if self._is_mine():
                close(self._fd)
            self._fd = -1

    def _switch(self, on: int) -> None:
        with self._locked() as mine:
            if mine:
                self._set(_ON, on)

    # -- the file ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Lock the file.

        Give False if it is closed, for example in a daemon that closes all inherited files.
        """
        import fcntl  # every system with os.fork has it

        with self._lock:
            if not self._is_mine():
                yield False
                return
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                with FILE_LIMIT.lifted():
                    yield True
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    @property
    def _group(self) -> int:
        """Return the offset of the slots of this rank."""
        return 0 if self.rank is None or self.rank >= MAX_RANKS else (1 + self.rank) * self._width

    def _visits(self, key: Key) -> int:
        return self._slots[key] + self._group

    def _is_mine(self) -> bool:
        return self._fd >= 0 and _identity(self._fd) == self._identity

    def _is_on(self) -> bool:
        return bool(self._get(_ON))

    def _shared(self, slot: int) -> int:
        with self._locked() as mine:
            return self._get(slot) if mine else 0

    def _add(self, slot: int, by: int = 1) -> int:
        number = self._get(slot) + by
        self._set(slot, number)
        return number

    def _get(self, slot: int) -> int:
        data = pread(self._fd, _NUMBER.size, slot * _NUMBER.size)
        return int(_NUMBER.unpack(data)[0]) if data else 0

    def _set(self, slot: int, number: int) -> None:
        pwrite(self._fd, _NUMBER.pack(number), slot * _NUMBER.size)


def nameless_file() -> int:
    """Return a descriptor of a new file that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mlchaos")
    with within(INTERNAL_OPERATION), tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        found = fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino

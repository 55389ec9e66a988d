"""Send messages between processes of one test run, as pickles with their length in front."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import MlchaosError

__all__ = ["Inbox", "Outbox", "read_message", "write_message"]

_LENGTH = struct.Struct("!Q")


def write_message(fd: int, message: object) -> None:
    """Write one message to a blocking file descriptor."""
    data = pickle.dumps(message)
    pending = memoryview(_LENGTH.pack(len(data)) + data)
    while pending:
        pending = pending[os.write(fd, pending) :]


def read_message(read: Callable[[int], bytes]) -> Any:
    """Read exactly one message, and return None if the other end is closed.

    ``read(n)`` returns at most n bytes.
    """
    head = _exactly(read, _LENGTH.size)
    data = None if head is None else _exactly(read, *_LENGTH.unpack(head))
    return None if data is None else pickle.loads(data)  # written by our own processes


def _exactly(read: Callable[[int], bytes], size: int) -> bytearray | None:
    found = bytearray()
    while len(found) < size:
        data = read(min(size - len(found), 1 << 20))
        if not data:
            return None
        found += data
    return found


class Outbox:
    """The writing end, which threads share. If the reader is gone, messages are dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owner = os.getpid()
        self._lock = threading.RLock()

    def __call__(self, *message: object) -> None:
        """Send a message.

        It has left this process when this returns. A forked child sends nothing.
        """
        if os.getpid() == self._owner:
            try:
                with self._lock, contextlib.suppress(BrokenPipeError):
                    write_message(self._fd, message)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                raise MlchaosError(
                    f"the subject closed file descriptor {self._fd}, by which its process reports "
                    f"to the test. Close only descriptors that the subject has opened"
                ) from None


class Inbox:
    """The reading end, which turns bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the messages that are complete with these bytes."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            # Written by our own processes.
            message = pickle.loads(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            yield message

    def wait(self, read: Callable[[], bytes]) -> Any:
        """Return the next message, or None if the other end is closed.

        Use it if one message is expected at a time.
        """
        while True:
            data = read()
            if not data:
                return None
            for message in self.feed(data):
                return message

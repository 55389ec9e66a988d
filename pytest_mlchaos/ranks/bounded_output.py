"""Keep the beginning and the end of what a process prints, so that memory stays bounded."""

from __future__ import annotations

__all__ = ["BoundedOutput"]

MAX_HEAD_BYTES, MAX_TAIL_BYTES = 1 << 16, 3 << 16
"""The number of bytes that are kept of the beginning, and of the end."""


class BoundedOutput:
    """The output of a process on one stream."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out = 0

    def feed(self, data: bytes) -> None:
        """Add what the process has printed."""
        room = MAX_HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = len(self._tail) - MAX_TAIL_BYTES
        if excess > 0:
            del self._tail[:excess]
            self.left_out += excess

    @property
    def text(self) -> str:
        """Return the text. A line says how much is missing in the middle."""
        if not self.left_out:
            return (self._head + self._tail).decode(errors="replace")
        head, tail = (part.decode(errors="replace") for part in (self._head, self._tail))
        return f"{head}\n[mlchaos: {self.left_out:,} bytes are left out here]\n{tail}"

    def mentions(self, name: bytes) -> bool:
        """Return True if the output has this name, or if that is not known any more."""
        return bool(self.left_out) or name in self._head + self._tail

"""Find the payloads in what gloo sends over a connection.

The side that connects sends the number of the pair first. Then each message has a header of six
numbers (bytes in total, kind, slot, offset, length, offset at the receiver) and, for two of the
four kinds, a payload of that length. The format is private to gloo.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .gloo_address import UnknownFormat

__all__ = ["Frames"]

_HEADER = struct.Struct("<6Q")
_PAIR_NUMBER = 8
_WITH_PAYLOAD = (0, 1)
_KINDS = 4
MAX_PAYLOAD = 1 << 40


class Frames:
    """The messages of one direction of one connection.

    ``feed`` must get each byte of it, from the first one.
    """

    def __init__(self, *, connects: bool) -> None:
        """Begin a stream. ``connects`` is True for the bytes of the side that has connected."""
        self._header = bytearray()
        self._skip = _PAIR_NUMBER if connects else 0
        self._payload = 0  # the length of the current payload
        self._left = 0  # its bytes that have not passed

    def feed(self, data: bytes | bytearray) -> Iterator[tuple[int, int, int, int]]:
        """Yield each piece of a payload in these bytes.

        A piece is (start in the data, number of bytes, position in its payload, size of its
        payload).

        Raises:
            UnknownFormat: It is not a header of a message.
        """
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
            elif self._left:
                step = min(self._left, end - at)
                yield at, step, self._payload - self._left, self._payload
                self._left -= step
                at += step
            else:
                step = min(_HEADER.size - len(self._header), end - at)
                self._header += data[at : at + step]
                at += step
                if len(self._header) == _HEADER.size:
                    self._payload = self._left = self._read_header()
                    self._header.clear()

    def _read_header(self) -> int:
        """Return the size of the payload of a message."""
        total, kind, _, _, length, _ = _HEADER.unpack(self._header)
        payload = length if kind in _WITH_PAYLOAD else 0
        if kind >= _KINDS or total != _HEADER.size + payload or payload > MAX_PAYLOAD:
            raise UnknownFormat(f"a message of {total} bytes of the kind {kind} over a connection")
        return int(payload)

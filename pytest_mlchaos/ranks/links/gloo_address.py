"""Read and rewrite the address of a rank in what gloo writes to the rendezvous store.

The format is private to gloo: the host name, an address, and the number of each pair. The address
is a ``sockaddr_storage`` and a sequence number. Whatever differs from that is refused.
"""

from __future__ import annotations

import dataclasses
import socket
import struct

from ...errors import MlchaosError

__all__ = ["LOCALHOST", "RankAddress", "UnknownFormat", "parse_address"]

_LENGTH = struct.Struct("<Q")
_SEQUENCE = struct.Struct("<q")
_FAMILY = struct.Struct("<H")
_SOCKADDR_STORAGE = 128
_NO_SEQUENCE = -1
MAX_HOST_NAME = 255
LOCALHOST = {int(socket.AF_INET): "127.0.0.1", int(socket.AF_INET6): "::1"}
"""The address at which the switch listens, by family."""
_HOST = {int(socket.AF_INET): slice(4, 8), int(socket.AF_INET6): slice(8, 24)}
_SCOPE = slice(24, 28)


class UnknownFormat(MlchaosError):
    """gloo's private format differs from the one that is known. See ``errors.MlchaosError``."""


@dataclasses.dataclass(frozen=True, slots=True)
class RankAddress:
    """The address of one rank in the store.

    Attributes:
        blob: The whole value in the store.
        start: The position of its ``sockaddr``.
        family: ``AF_INET`` or ``AF_INET6``.
        host: The packed address.
        port: The port, as the kernel keeps it (in network byte order).
    """

    blob: bytes
    start: int
    family: int
    host: bytes
    port: bytes

    @property
    def target(self) -> tuple[str, int]:
        """Return the address to connect to."""
        return socket.inet_ntop(self.family, self.host), int.from_bytes(self.port, "big")

    def connects_to(self, peer: RankAddress) -> bool:
        """Return True if gloo lets this rank connect to that one, and not the other way round.

        gloo compares the addresses, and then the ports as they are in memory.
        """
        ours, theirs = (
            (address.host, int.from_bytes(address.port, "little")) for address in (self, peer)
        )
        return ours > theirs

    def at_switch(self, port: int) -> bytes:
        """Return the value with the address of a port of the switch.

        The host is the unspecified address. It leads to this host, and it is below any address, so
        gloo's comparison has the same result as before.
        """
        changed = bytearray(self.blob)
        address = memoryview(changed)[self.start : self.start + _SOCKADDR_STORAGE]
        address[2:4] = port.to_bytes(2, "big")
        address[_HOST[self.family]] = bytes(len(self.host))
        if self.family == socket.AF_INET6:
            address[_SCOPE] = bytes(4)
        return bytes(changed)


def parse_address(blob: bytes, size: int) -> RankAddress:
    """Return the address in a value of the store, for a group of ``size`` ranks.

    Raises:
        UnknownFormat: The value has a different format.
    """
    name, at = _field(blob, 0, "the host name")
    if not 0 < len(name) <= MAX_HOST_NAME or not name.isascii():
        raise _unknown(f"a host name of {len(name)} bytes")
    start = at + _LENGTH.size
    address, end = _field(blob, at, "the address")
    if len(address) != _SOCKADDR_STORAGE + _SEQUENCE.size:
        raise _unknown(f"an address of {len(address)} bytes")
    if (pairs := len(blob) - end) not in (0, size * _SEQUENCE.size):
        raise _unknown(f"{pairs} bytes after the address, for {size} ranks")
    (sequence,) = _SEQUENCE.unpack_from(address, _SOCKADDR_STORAGE)
    if sequence != _NO_SEQUENCE:
        raise _unknown(f"the sequence number {sequence} in the address")
    (family,) = _FAMILY.unpack_from(address)
    if family not in _HOST:
        raise _unknown(f"an address of the family {family}")
    port = address[2:4]
    if port == bytes(2):
        raise _unknown("the port 0")
    return RankAddress(blob, start, family, address[_HOST[family]], port)


def _field(blob: bytes, at: int, what: str) -> tuple[bytes, int]:
    """Return a field with its length in front of it, and the position after it."""
    begin = at + _LENGTH.size
    if begin > len(blob):
        raise _unknown(f"only {len(blob)} bytes, without the length of {what}")
    (length,) = _LENGTH.unpack_from(blob, at)
    if begin + length > len(blob):
        raise _unknown(f"{what} of {length} bytes in {len(blob)} bytes")
    return blob[begin : begin + length], begin + length


def _unknown(found: str) -> UnknownFormat:
    return UnknownFormat(found)

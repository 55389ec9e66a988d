"""Filter the bodies of answers that the standard library reads from a socket.

Libraries above it (urllib3, requests, botocore) then see what a real cut gives them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import http.client
import io
import os
import socket
from collections.abc import Callable
from typing import Any

from ...core.network import Exchange, Flow, Rewriter
from ...engine.patching import Patches
from .answers import decoded, framing_headers
from .base import Network, mechanism

__all__ = ["FilteredFile", "filter_answer", "reset_error"]


def reset_error() -> ConnectionResetError:
    """Return the error that a socket raises after a reset."""
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


class FilteredFile(io.RawIOBase):
    """A file over the bytes of an answer, which are cut, changed or slow.

    Args:
        network: The network of the trial.
        file: The file with the bytes.
        exchange: What happens to them.
        length: The number of bytes, or None if it is not known.
    """

    def __init__(self, network: Network, file: Any, exchange: Exchange, length: int | None) -> None:
        self._network = network
        self._file = file
        self._exchange = exchange
        self._flow = Flow(exchange, length)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read the next bytes that arrive."""
        if self._flow.ended == "fin":
            return 0  # The server still keeps the connection open, so a read would wait.
        read = getattr(self._file, "read1", self._file.read)
        data = self._flow.feed(read(len(buffer)))
        if self._flow.ended:
            _end_connection(self._file)
        if self._flow.ended == "rst" and not data:
            raise reset_error()
        seconds = self._network.transferred(self._exchange, len(data))
        if seconds:
            self._network.controller.clock.sleep(seconds)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file, too."""
        if not self.closed:
            self._file.close()
        super().close()


def _end_connection(file: Any) -> None:
    """End the connection of an answer that was cut, so that no pool uses it again."""
    connection = getattr(getattr(file, "raw", None), "_sock", None)
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def filter_answer(network: Network, response: http.client.HTTPResponse, exchange: Exchange) -> None:
    """Let the body of an answer arrive as the exchange says."""
    if response.fp is not None and exchange.rewrite is not None:
        _rewrite(response, exchange.rewrite())
    if response.fp is None or (
        exchange.cut is None and exchange.corruption is None and exchange.pace is None
    ):
        return
    file: Any = response.fp
    length = response.length
    if length is None and exchange.needs_length:
        file, length = _whole(response, exchange, file)
        if response.chunked:
            response.fp = file
            return
    response.fp = io.BufferedReader(FilteredFile(network, file, exchange, length))


def _rewrite(response: http.client.HTTPResponse, rewriter: Rewriter) -> None:
    """Read an answer to its end, and let a different body arrive."""
    encoding = response.headers.get("content-encoding", "")
    whole = decoded(response.read(), encoding)
    body = rewriter.feed(whole) + rewriter.end()
    if not whole:
        return
    for name in framing_headers:
        del response.headers[name]
    response.headers["Content-Length"] = str(len(body))
    response.fp = io.BufferedReader(io.BytesIO(body))
    response.length, response.chunked = len(body), False


def _whole(
    response: http.client.HTTPResponse, exchange: Exchange, file: Any
) -> tuple[io.BytesIO, int]:
    """Read an answer of unknown length to its end.

    One in chunks becomes a single chunk, of which a part arrives.
    """
    if not response.chunked:
        body = file.read()
        return io.BytesIO(body), len(body)
    body = b""
    while size := int(file.readline().split(b";")[0], 16):
        body += file.read(size)
        file.readline()
    flow = Flow(exchange, len(body))
    arrives = flow.feed(body)
    end = b"" if flow.ended else b"\r\n0\r\n\r\n"
    return io.BytesIO(b"%x\r\n%s%s" % (len(body), arrives, end)), len(body)


@mechanism
def install(network: Network, patches: Patches) -> None:
    """Filter the answers whose exchange a library has left to this one."""
    original: Callable[..., Any] = http.client.HTTPConnection.getresponse

    @functools.wraps(original)
    def getresponse(self: http.client.HTTPConnection) -> http.client.HTTPResponse:
        response: http.client.HTTPResponse = original(self)
        exchange = network.left()
        if exchange is not None:
            filter_answer(network, response, exchange)
        return response

    patches.set(http.client.HTTPConnection, "getresponse", getresponse)

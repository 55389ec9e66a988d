"""Follow the messages of HTTP/1 in a stream of bytes, and write error responses."""

from __future__ import annotations

import http
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

from ...core.network import Exchange

__all__ = [
    "Body",
    "Head",
    "Messages",
    "Segment",
    "error_headers",
    "error_text",
    "reason_of",
    "request_body",
    "response_body",
    "write_error",
]

MAX_HEAD_BYTES = 1 << 20
Kind: TypeAlias = Literal["head", "frame", "body", "end"]
SLOW_DOWN = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    "<Message>Please reduce your request rate. (injected by mlchaos)</Message></Error>"
)


class Segment(NamedTuple):
    """A part of a message: its head, bytes between chunks, bytes of its body, or its end."""

    kind: Kind
    data: bytes = b""


class Body(NamedTuple):
    """The form of a body: its length if the head says it, or how its end is found."""

    form: Literal["none", "length", "chunked", "close"]
    length: int = 0


class Head:
    """The first line and the headers of a message."""

    def __init__(self, data: bytes) -> None:
        first, *lines = data.decode("latin-1").split("\r\n")
        self.first = first.split(" ", 2)
        self.headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.strip().lower()] = value.strip()

    @property
    def method(self) -> str:
        """Return the method of a request."""
        return self.first[0]

    @property
    def status(self) -> int:
        """Return the status of a response, or 0 if it has none."""
        return int(self.first[1]) if len(self.first) > 1 and self.first[1].isdigit() else 0


def _framed(headers: Mapping[str, str]) -> Body | None:
    if headers.get("transfer-encoding", "").lower().endswith("chunked"):
        return Body("chunked")
    length = headers.get("content-length", "")
    return Body("length", int(length)) if length.isdigit() else None


def request_body(head: Head) -> Body:
    """Return the form of the body of a request."""
    if head.method in ("CONNECT", "PRI"):  # a tunnel, or HTTP/2
        return Body("close")
    return _framed(head.headers) or Body("none")


def response_body(head: Head, method: str) -> Body:
    """Return the form of the body of a response to a request with this method."""
    if head.status == 101:
        return Body("close")
    if method == "HEAD" or head.status < 200 or head.status in (204, 304):
        return Body("none")
    return _framed(head.headers) or Body("close")


class Messages:
    """A reader of one direction of a connection.

    Args:
        body: A function that returns the form of the body after a head.
        start: The bytes with which a head begins, at most five. Without them, a letter. What begins
            differently is not HTTP/1, and passes as it is.
    """

    def __init__(self, body: Callable[[Head], Body], start: bytes = b"") -> None:
        self._body = body
        self._start = start
        self._kept = bytearray()
        self._state = "head"
        self._left = 0

    @property
    def ahead(self) -> int:
        """Return the number of bytes that follow in a body of known length."""
        return self._left if self._state == "length" else 0

    @property
    def ends_at_close(self) -> bool:
        """Return True if the end of the connection ends the body."""
        return self._state == "close"

    def skip(self, size: int) -> bool:
        """Leave out bytes of a body of known length. Return True at its end."""
        self._left -= size
        if not self._left:
            self._state = "head"
        return not self._left

    def feed(self, data: bytes) -> Iterator[Segment]:
        """Yield the segments in the next bytes of the stream."""
        while data:
            if self._state == "close":
                yield Segment("body", data)
                return
            if self._state in ("length", "chunk"):
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                yield Segment("body", part)
                if not self._left and self._state == "chunk":
                    self._state = "chunk end"
                elif not self._left:
                    self._state = "head"
                    yield Segment("end")
                continue
            line, data = self._line(data)
            if line is not None:
                yield from self._framing(line)

    def _line(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Return a head or a line of the framing if it is complete, and the rest."""
        end = b"\r\n\r\n" if self._state == "head" else b"\n"
        seen = max(0, len(self._kept) - 3)
        self._kept += data
        place = self._kept.find(end, seen)
        is_other = self._state == "head" and not self._can_begin(bytes(self._kept[:5]))
        if is_other or (place < 0 and len(self._kept) > MAX_HEAD_BYTES):
            self._state = "close"  # this is not HTTP
            kept, self._kept = bytes(self._kept), bytearray()
            return None, kept
        if place < 0:
            return None, b""
        kept, self._kept = bytes(self._kept), bytearray()
        return kept[: place + len(end)], kept[place + len(end) :]

    def _can_begin(self, begun: bytes) -> bool:
        """Return True if a head can begin with these bytes."""
        return self._start.startswith(begun) if self._start else begun[:1].isalpha()

    def _framing(self, line: bytes) -> Iterator[Segment]:
        if self._state == "head":
            body = self._body(Head(line))
            self._left = body.length
            states = {"none": "head", "chunked": "size", "close": "close", "length": "length"}
            empty = body.form == "none" or (body.form == "length" and not body.length)
            self._state = "head" if empty else states[body.form]
            yield Segment("head", line)
            if empty:
                yield Segment("end")
            return
        yield Segment("frame", line)
        if self._state == "size":
            size = line.split(b";")[0].strip()
            try:
                self._left = int(size, 16)
            except ValueError:
                self._state = "close"  # this is not a chunk
                return
            self._state = "chunk" if self._left else "trailer"
        elif self._state == "chunk end":
            self._state = "size"
        elif not line.strip():
            self._state = "head"
            yield Segment("end")


def reason_of(status: int) -> str:
    """Return the standard words for a status."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def error_text(exchange: Exchange) -> bytes:
    """Return the body of the answer that a fault gives."""
    status = exchange.status or 503
    return (SLOW_DOWN if status == 503 else f"{reason_of(status)} (injected by mlchaos)").encode()


def error_headers(exchange: Exchange) -> dict[str, str]:
    """Return the headers of the answer that a fault gives."""
    kind = "application/xml" if exchange.status == 503 else "text/plain"
    headers = {"Content-Type": kind, "Content-Length": str(len(error_text(exchange)))}
    if exchange.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(exchange.retry_after))
    return headers


def write_error(exchange: Exchange, *, method: str = "") -> bytes:
    """Return the whole answer that a fault gives. The connection ends after it."""
    status = exchange.status or 503
    headers = {**error_headers(exchange), "Connection": "close"}
    lines = [f"HTTP/1.1 {status} {reason_of(status)}", *(f"{n}: {v}" for n, v in headers.items())]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if method == "HEAD" else head + error_text(exchange)

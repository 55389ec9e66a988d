"""Filter the bytes of one answer over HTTP/1, before a client's own parser reads them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

from ...core.network import Exchange, Flow, Rewriter
from .http_messages import Body, Head, Messages, Segment, response_body

__all__ = ["AnswerFilter", "RewrittenAnswer", "decoded", "framing_headers"]

framing_headers = frozenset({"content-length", "transfer-encoding", "content-encoding"})
"""The headers that do not hold any more if a body is rewritten."""


def decoded(body: bytes, encoding: str) -> bytes:
    """Return a body without its compression. One in an unknown encoding stays as it is."""
    if encoding.strip().lower() in ("gzip", "x-gzip", "deflate"):
        try:
            return zlib.decompress(body, wbits=zlib.MAX_WBITS | 32)
        except zlib.error:
            return body
    return body


class RewrittenAnswer:
    """An answer whose body is rewritten, as a message in chunks.

    Args:
        rewriter: The filter of its body.
    """

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._encoding = ""
        self._packed = b""
        self._has_body = False

    def pass_segment(self, segment: Segment, *, has_body: bool = True) -> bytes:
        """Return what arrives of a segment of the message."""
        if segment.kind == "head":
            self._has_body = has_body
            return self._head(segment.data) if has_body else segment.data
        if not self._has_body:
            return segment.data
        if segment.kind == "body":
            if self._encoding:
                self._packed += segment.data
                return b""
            return _chunk(self._rewriter.feed(segment.data))
        return self._end() if segment.kind == "end" else b""

    def _head(self, data: bytes) -> bytes:
        first, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [first]
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            if name.strip().lower() == "content-encoding":
                self._encoding = value
            if name.strip().lower() not in framing_headers:
                kept.append(line)
        kept.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join(kept) + b"\r\n\r\n"

    def _end(self) -> bytes:
        self._has_body = False
        if not self._encoding:
            return _chunk(self._rewriter.end()) + b"0\r\n\r\n"
        whole = self._rewriter.feed(decoded(self._packed, self._encoding))
        return _chunk(whole + self._rewriter.end()) + b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


class AnswerFilter:
    """The bytes of one answer under the faults of its exchange.

    Attributes:
        ended: How the connection has ended early, if it has.
        is_over: True when the whole answer has passed.
    """

    def __init__(self, exchange: Exchange, method: str) -> None:
        self.ended: Literal["", "fin", "rst"] = ""
        self.is_over = False
        self._exchange = exchange
        self._method = method
        self._flow = Flow(exchange, None)
        self._messages = Messages(self._body, b"HTTP/")
        self._held: list[Segment] | None = None
        self._is_final = False
        self._has_body = False
        rewrite = exchange.rewrite
        self._rewritten = None if rewrite is None else RewrittenAnswer(rewrite())

    def feed(self, data: bytes) -> bytes:
        """Return what arrives of the next bytes."""
        arrives = b""
        for segment in self._messages.feed(data):
            if self._held is None:
                arrives += self._pass(segment)
                continue
            self._held.append(segment)
            if segment.kind == "end":
                arrives += self.end()
        return arrives

    def end(self) -> bytes:
        """Return what arrives of an answer of unknown length, at its end."""
        held, self._held = self._held or [], None
        if held:
            length = sum(len(segment.data) for segment in held if segment.kind == "body")
            self._flow = Flow(self._exchange, length)
        if self._rewritten is not None and self._messages.ends_at_close and not self.is_over:
            held = [Segment("end")]
        return self._passed(held)

    def _passed(self, segments: Iterable[Segment]) -> bytes:
        return b"".join(map(self._pass, segments))

    def _body(self, head: Head) -> Body:
        body = response_body(head, self._method)
        if head.status >= 200:
            self._flow = Flow(self._exchange, body.length if body.form == "length" else None)
            if self._exchange.needs_length and body.form in ("chunked", "close"):
                self._held = []
        self._is_final = head.status >= 200
        self._has_body = self._is_final and body.form != "none"
        return body

    def _pass(self, segment: Segment) -> bytes:
        if self.ended:
            return b""
        if self._rewritten is not None and self._is_final:
            self.is_over = self.is_over or segment.kind == "end"
            return self._rewritten.pass_segment(segment, has_body=self._has_body)
        if segment.kind == "body":
            arrives = self._flow.feed(segment.data)
            self.ended = self._flow.ended
            return arrives
        self.is_over = self.is_over or (segment.kind == "end" and self._is_final)
        return segment.data

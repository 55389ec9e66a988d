"""Filter the bytes of one answer over HTTP/1, before a client's own parser reads them."""

from __future__ import annotations

from typing import Literal

from ...core.network import Exchange, Flow
from .http_messages import Body, Head, Messages, Segment, response_body

__all__ = ["AnswerFilter"]


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
        return b"".join(map(self._pass, held))

    def _body(self, head: Head) -> Body:
        body = response_body(head, self._method)
        if head.status >= 200:
            self._flow = Flow(self._exchange, body.length if body.form == "length" else None)
            if self._exchange.needs_length and body.form in ("chunked", "close"):
                self._held = []
        self._is_final = head.status >= 200
        return body

    def _pass(self, segment: Segment) -> bytes:
        if self.ended:
            return b""
        if segment.kind == "body":
            arrives = self._flow.feed(segment.data)
            self.ended = self._flow.ended
            return arrives
        self.is_over = self.is_over or (segment.kind == "end" and self._is_final)
        return segment.data

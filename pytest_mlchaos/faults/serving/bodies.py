"""Rewrite the bodies of answers over HTTP: as a whole, or event by event."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from ...core.network import Exchange, Rewriter
from ...core.sites import Visit
from ..network import needs_http, note_exchange

__all__ = ["EventStream", "WholeBody", "rewritten"]


def rewritten(
    fault: Any, visit: Visit, what: str, make: Callable[[Callable[[], None]], Rewriter]
) -> Exchange:
    """Return the exchange with a filter of its answer. The strike is recorded when it changes it.

    Args:
        fault: The fault.
        visit: Its visit of the network.
        what: A few words on what needs HTTP.
        make: A function that returns the filter. It is given a function that records the strike.
    """
    exchange = note_exchange(visit)
    needs_http(fault, exchange, what, 'Use mlchaos.proxy(..., protocol="http")')
    struck = False

    def changed() -> None:
        nonlocal struck
        if not struck:
            struck = True
            visit.record_injection()

    visit.skip()
    return dataclasses.replace(exchange, rewrite=lambda: make(changed))


class WholeBody:
    """A body that is read to its end, and changed as a whole.

    Args:
        change: A function from a body to a different one, or to None if it stays.
        changed: It is called before a changed body arrives.
    """

    def __init__(
        self, change: Callable[[bytes], bytes | None], changed: Callable[[], None]
    ) -> None:
        self._change, self._changed = change, changed
        self._body = b""

    def feed(self, data: bytes) -> bytes:
        """Keep the bytes."""
        self._body += data
        return b""

    def end(self) -> bytes:
        """Return the changed body."""
        body, self._body = self._body, b""
        fresh = self._change(body) if body else None
        if fresh is None or fresh == body:
            return body
        self._changed()
        return fresh


class EventStream:
    """A stream of server-sent events, or of lines of JSON, one of which is struck.

    Args:
        kind: ``"cut"``, ``"empty"`` or ``"repeated"``.
        number: The number of the event.
        changed: It is called before the struck event arrives.
    """

    def __init__(self, kind: str, number: int, changed: Callable[[], None]) -> None:
        self._kind, self._number, self._changed = kind, number, changed
        self._kept = b""
        self._seen = 0
        self._is_cut = False

    def feed(self, data: bytes) -> bytes:
        """Return the events that are complete."""
        if self._is_cut:
            return b""
        self._kept += data
        arrives = b""
        while not self._is_cut:
            end = _end_of_event(self._kept)
            if not end:
                return arrives
            event, self._kept = self._kept[:end], self._kept[end:]
            arrives += self._passed(event)
        return arrives

    def end(self) -> bytes:
        """Return the rest."""
        return b"" if self._is_cut else self._kept

    def _passed(self, event: bytes) -> bytes:
        if not _has_data(event):
            return event
        number, self._seen = self._seen, self._seen + 1
        if number != self._number:
            return event
        self._changed()
        if self._kind == "repeated":
            return event + event
        if self._kind == "cut":
            self._is_cut = True
            return b""
        return b"data: \n\n" if _is_server_sent(event) else b"{}\n"


def _is_server_sent(data: bytes) -> bool:
    return data.lstrip(b"\r\n").startswith((b"data:", b"event:", b"id:", b"retry:", b":"))


def _end_of_event(data: bytes) -> int:
    """Return the length of the first event, or 0 if it is not complete."""
    if _is_server_sent(data):
        ends = [
            place + len(blank)
            for blank in (b"\n\n", b"\r\n\r\n")
            if (place := data.find(blank)) >= 0
        ]
        return min(ends, default=0)
    return data.find(b"\n") + 1


def _has_data(event: bytes) -> bool:
    """Return True for an event with data, or a line of JSON."""
    if _is_server_sent(event):
        lines = [line for line in event.splitlines() if line.startswith(b"data:")]
        return bool(lines) and lines[0][5:].strip() != b"[DONE]"
    try:
        return isinstance(json.loads(event), (dict, list))
    except ValueError:
        return False

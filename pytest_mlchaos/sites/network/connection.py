"""Pass the bytes of one connection of a proxy on, and carry out what happens to it."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING

from ...core.network import Exchange, Flow
from .answers import RewrittenAnswer
from .http_messages import Body, Head, Messages, Segment, request_body, response_body, write_error

if TYPE_CHECKING:
    from .proxy import Proxy

__all__ = ["Connection"]

BLOCK_BYTES = 1 << 18
PACED_SHARE = 0.05
"""The share of a second's bytes that pass at once at a limited bandwidth."""
GREETING_SECONDS = 0.5
RELAY_BLOCK_BYTES = 1 << 20
BUFFER_BYTES = 4 << 20
"""The size of the kernel's buffers. Larger ones mean fewer changes between threads."""
RELAY_BYTES = 1 << 16
"""A body with at least so many bytes ahead is passed on without a look at it."""


class _Ended(Exception):
    """The connection has ended."""


class Connection:
    """A connection of a client, and the one to the server behind the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, exchange: Exchange) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._exchange = exchange
        self._lock = threading.Lock()
        self._running = 1
        self._over = False  # nothing more is passed on
        self._asked = False  # the client has sent something since the last answer
        self._answers = 0
        self._is_tunnel = False  # the client has changed to a different protocol
        self._waiting: deque[tuple[Exchange, str]] = deque()
        self._threads: list[threading.Thread] = []

    # -- its life ----------------------------------------------------------------------------------

    def begin(self) -> Exchange | None:
        """Make the visit of a client that is not in this process. Return None after an error."""
        try:
            return self._proxy.begin()
        except BaseException:  # noqa: BLE001  # the controller keeps it, also a crash
            self._reset_on_close()
            self._leave()
            return None

    def start(self, exchange: Exchange) -> None:
        """Pass the bytes on, in threads of their own."""
        self._exchange = exchange
        self._run(self._from_client, "up")

    def stop(self) -> None:
        """End the connection. Its threads then end."""
        self._over = True
        for end in (self._client, self._server):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection with a reset (RST) of the client."""
        self._reset_on_close()
        self._over = True
        # The last thread closes the socket, which sends the reset. Wake those that wait.
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RD)
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)

    def join(self, seconds: float) -> None:
        """Wait until its threads have ended."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(seconds)

    def _reset_on_close(self) -> None:
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _run(self, target: object, name: str) -> None:
        def run() -> None:
            try:
                target()  # type: ignore[operator]
            except (OSError, _Ended):
                pass
            except BaseException:  # noqa: BLE001  # the controller keeps it, also a crash
                self.reset()
            finally:
                self._leave()

        thread = threading.Thread(
            target=run, name=f"mlchaos-proxy-{self._proxy.port}-{name}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _leave(self) -> None:
        """Close the sockets after the last thread."""
        with self._lock:
            self._running -= 1
            last = not self._running
        if last:
            for end in (self._client, self._server):
                if end is not None:
                    end.close()
            self._proxy.ended(self)

    # -- from the client to the server -------------------------------------------------------------

    def _from_client(self) -> None:
        exchange = self._exchange
        if exchange.failure == "refused":
            self.reset()
            return
        if exchange.failure == "blackhole":
            self._drain()
            return
        if exchange.failure == "reset":
            # So that the client has sent its request, unless it waits for a greeting.
            select.select([self._client], [], [], GREETING_SECONDS)
            self.reset()
            return
        try:
            self._server = socket.create_connection(self._proxy.upstream)
        except OSError:
            self.reset()
            raise
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._running += 1
        http = exchange.protocol == "http"
        self._run(self._http_answers if http else self._bytes_down, "down")
        try:
            if http:
                self._http_requests(self._server)
            else:
                self._bytes_up(self._server)
        except OSError:
            if self._over:
                raise
            self._drain()  # the server has closed: the client reads what has arrived
            return
        if self._over:
            self._drain()
        else:
            self._server.shutdown(socket.SHUT_WR)

    def _drain(self) -> None:
        """Read until the client closes, so that no reset takes its bytes away."""
        while self._client.recv(BLOCK_BYTES):
            pass

    def _bytes_up(self, server: socket.socket) -> None:
        flow = Flow(self._exchange, None, upload=True)
        if flow.is_quiet and self._exchange.pace is None:
            _relay(self._client, server, None)
            return
        while data := self._client.recv(BLOCK_BYTES):
            self._asked = True
            server.sendall(flow.feed(data))
            if flow.ended:
                self._cut()
                return

    def _http_requests(self, server: socket.socket) -> None:
        heads: list[Head] = []

        def body(head: Head) -> Body:
            heads.append(head)
            return request_body(head)

        messages, requests = Messages(body), 0
        exchange, flow = self._exchange, Flow(self._exchange, None, upload=True)
        while data := self._client.recv(BLOCK_BYTES):
            if self._is_tunnel:
                server.sendall(data)
                continue
            for kind, part in messages.feed(data):
                if kind == "head":
                    head = heads.pop()
                    method = head.method
                    if requests:
                        exchange = self._proxy.begin(request=requests, method=method)
                        flow = Flow(exchange, None, upload=True)
                    requests += 1
                    self._refuse_request(exchange)
                    if exchange.status is None:
                        self._waiting.append((exchange, method))
                if exchange.status is not None:
                    # A client that expects "100 Continue" sends no body before an answer.
                    if kind == "end" or "expect" in head.headers:
                        self._client.sendall(write_error(exchange, method=method))
                        self._cut()
                        return
                    continue
                server.sendall(flow.feed(part) if kind == "body" else part)
                if flow.ended:
                    self._cut()
                    return
            if flow.is_quiet and exchange.status is None and messages.ahead >= RELAY_BYTES:
                # The end of the stream is found by the next recv.
                messages.skip(_relay(self._client, server, messages.ahead))

    def _refuse_request(self, exchange: Exchange) -> None:
        if exchange.failure in ("refused", "reset"):
            self.reset()
            raise _Ended
        if exchange.failure == "blackhole":
            self._drain()
            raise _Ended

    # -- from the server to the client -------------------------------------------------------------

    def _bytes_down(self) -> None:
        assert self._server is not None
        flow = Flow(self._exchange, None)
        if flow.is_quiet and self._exchange.pace is None:
            _relay(self._server, self._client, None)
        else:
            while data := self._server.recv(BLOCK_BYTES):
                if self._asked or not self._answers:
                    self._asked = False
                    self._delay(self._exchange)
                self._send(self._exchange, flow, data)
        self._end_client()

    def _http_answers(self) -> None:
        server = self._server
        assert server is not None
        answer = _Answer()

        def body(head: Head) -> Body:
            answer.begin(head, self._waiting)
            self._is_tunnel = head.status == 101
            return answer.body

        messages = Messages(body, b"HTTP/")
        while data := server.recv(BLOCK_BYTES):
            for segment in messages.feed(data):
                self._pass_answer(answer, segment)
            if answer.is_quiet and messages.ahead >= RELAY_BYTES:
                messages.skip(_relay(server, self._client, messages.ahead))
        if messages.ends_at_close:
            self._pass_answer(answer, Segment("end"))
        self._end_client()

    def _pass_answer(self, answer: _Answer, segment: Segment) -> None:
        if segment.kind == "head":
            self._delay(answer.exchange)
        if answer.is_held:
            answer.held.append(segment)
            if segment.kind != "end":
                return
            for kept in answer.release():
                self._pass_segment(answer, kept)
        else:
            self._pass_segment(answer, segment)

    def _pass_segment(self, answer: _Answer, segment: Segment) -> None:
        if answer.rewritten is not None:
            has_body = answer.body.form != "none"
            self._client.sendall(answer.rewritten.pass_segment(segment, has_body=has_body))
        elif segment.kind == "body":
            self._send(answer.exchange, answer.flow, segment.data)
        elif segment.data:
            self._client.sendall(segment.data)

    def _send(self, exchange: Exchange, flow: Flow, data: bytes) -> None:
        """Send bytes of a body at the pace of the exchange, up to its early end."""
        arrives = flow.feed(data)
        rate = None if exchange.pace is None else exchange.pace.bandwidth
        size = len(arrives) if rate is None else max(1, int(rate * PACED_SHARE))
        for start in range(0, len(arrives), size or 1):
            part = arrives[start : start + size]
            self._wait(0.0 if rate is None else len(part) / rate)
            self._client.sendall(part)
        if flow.ended:
            if flow.ended == "rst":
                self.reset()
            else:
                self._cut()
            raise _Ended

    def _delay(self, exchange: Exchange) -> None:
        pace = exchange.pace
        if pace is not None:
            ended = pace.answers is not None and self._answers >= pace.answers
            if exchange.protocol == "http" or not ended:
                self._wait(pace.delay_of(self._answers))
        self._answers += 1

    def _wait(self, seconds: float) -> None:
        if seconds and self._proxy.closing.wait(seconds):
            raise _Ended

    def _cut(self) -> None:
        """End the connection in an orderly way (FIN), on both sides."""
        self._over = True
        self._end_client()
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)

    def _end_client(self) -> None:
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)


class _Answer:
    """The answer that is passing, with what happens to it."""

    def __init__(self) -> None:
        self.exchange = Exchange("")
        self.body = Body("none")
        self.flow = Flow(self.exchange, None)
        self.held: list[Segment] = []
        self.is_held = False
        self.rewritten: RewrittenAnswer | None = None

    @property
    def is_quiet(self) -> bool:
        """Return True if its bytes pass unchanged, at full speed."""
        changed = self.is_held or self.rewritten is not None or self.exchange.pace is not None
        return not changed and self.flow.is_quiet

    def begin(self, head: Head, waiting: deque[tuple[Exchange, str]]) -> None:
        """Begin the answer to the next request. Those before the final one change nothing."""
        if head.status < 200 and head.status != 101:
            self.exchange, self.body, self.rewritten = Exchange(""), Body("none"), None
            return
        self.exchange, method = waiting.popleft() if waiting else (Exchange(""), "")
        self.body = response_body(head, method)
        length = self.body.length if self.body.form == "length" else None
        self.flow = Flow(self.exchange, length)
        self.is_held = self.exchange.needs_length and self.body.form in ("chunked", "close")
        rewrite = self.exchange.rewrite
        self.rewritten = None if rewrite is None else RewrittenAnswer(rewrite())

    def release(self) -> list[Segment]:
        """Return the segments of an answer whose length is known now."""
        self.is_held = False
        held, self.held = self.held, []
        length = sum(len(segment.data) for segment in held if segment.kind == "body")
        self.flow = Flow(self.exchange, length)
        return held


def _relay(source: socket.socket, target: socket.socket, size: int | None) -> int:
    """Pass ``size`` bytes on, or all until the end. Return their number."""
    for end, option in ((source, socket.SO_RCVBUF), (target, socket.SO_SNDBUF)):
        end.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    view, passed = memoryview(bytearray(RELAY_BLOCK_BYTES)), 0
    while size is None or passed < size:
        wanted = len(view) if size is None else min(len(view), size - passed)
        got = source.recv_into(view[:wanted])
        if not got:
            break
        target.sendall(view[:got])
        passed += got
    return passed

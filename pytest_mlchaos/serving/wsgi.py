"""Pass requests to a WSGI app, as a server with threads does, and keep the responses."""

from __future__ import annotations

import collections
import io
import sys
import wsgiref.util
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from ..core.clients import Client, Leave, Pace
from ..core.phases import raised
from ..core.privacy import data_text, remember_text
from ..core.replies import Chunk
from ..errors import BadArgument
from .exchange import HIGH_WATER_BYTES
from .http_requests import AsgiRequest, RequestParts, decode_body, http_headers, load_httpx
from .requests import Answer, PreparedRequest

__all__ = ["WsgiTarget"]

UPLOAD_PARTS = 8
"""A slow client sends its body in this many parts."""


class WsgiTarget:
    """A WSGI app."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        load_httpx()
        self._app = app
        self._now = now
        self._sleep = sleep

    def start(self) -> None:
        """Do nothing: the protocol has no start-up."""

    def begin(self, request: PreparedRequest, payload: Any, client: Client | None) -> WsgiCall:
        """Return the call of the app for one request."""
        assert isinstance(request, AsgiRequest)
        parts = request.parts if payload is None else RequestParts.of(payload)
        if not isinstance(parts.body, bytes):
            raise BadArgument(
                f"a WSGI app reads the body of a request by blocking code. Give bytes or text as "
                f"the content of {data_text(request.given)}"
            )
        return WsgiCall(self._app, parts, parts.body, client, self._now, self._sleep)


class WsgiCall:
    """One request in the app."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        parts: RequestParts,
        body: bytes,
        client: Client | None,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._app = app
        self._response = Response(client, now, sleep)
        upload = Upload(body, None if client is None else client.sends, now, sleep)
        self._upload = upload
        self._environ = environ_of(parts, body, upload)
        self._error: Exception | None = None

    def run(self) -> None:
        """Let the app answer. Keep an error that it raises."""
        try:
            self._respond()
        except Exception as error:  # noqa: BLE001  # any error of the app is part of its reply
            raised(error)
            self._error = error

    def _respond(self) -> None:
        response = self._response
        iterable = self._app(self._environ, response.start)
        if isinstance(iterable, str) or not isinstance(iterable, Iterable):
            raise _refused(f"the app must return an iterable of bytes, got {data_text(iterable)}")
        try:
            for data in iterable:
                response.take(data)
                if response.left is not None:
                    return
            response.end()
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()

    def answer(self) -> Answer:
        """Return the answer."""
        response, error = self._response, self._error
        fields: dict[str, Any] = {"content": response.content, "status": response.status}
        if response.left is not None:
            # The server drops the app's errors, because its client has left.
            fields["late_error"] = error
        else:
            if response.status is None or (error is not None and not response.chunks):
                fields["status"] = 500
            if error is not None:
                fields["late_error" if response.finished is not None else "error"] = error
        if response.headers:
            fields["headers"] = http_headers(
                tuple(
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in response.headers
                )
            )
        if response.slowed or self._upload.slowed:
            fields["slowed"] = True
        decode_body(fields)
        return Answer(fields, response.finished, response.left, response.chunks, response.begun)


class Response:
    """The response of an app, as it arrives at the client.

    A client that has left is noticed when the server writes the next part to it.

    Attributes:
        status: The status, or None before ``start_response``.
        headers: The headers as pairs of text.
        chunks: The parts of the body, with the seconds since the request.
        finished: The time on the trial's clock at which the client had the whole response.
        left: The time at which the client left, or None.
        slowed: True if the app had to wait for its client.
    """

    def __init__(
        self, client: Client | None, now: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._client = client
        self._now = now
        self._sleep = sleep
        self._unread: collections.deque[tuple[float, int]] = collections.deque()
        self._sent = False
        self.begun = now()
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.chunks: list[Chunk] = []
        self.finished: float | None = None
        self.left: float | None = None
        self.slowed = False

    @property
    def content(self) -> bytes:
        """Return the body that has arrived."""
        return b"".join(chunk.data for chunk in self.chunks)

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take the status and the headers, as ``start_response`` of a server."""
        if exc_info:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise _refused("the app called start_response() a second time, without exc_info")
        self.status = _status_of(status)
        self.headers = [(str(name), str(value)) for name, value in headers]
        return self._write

    def _write(self, data: bytes) -> None:
        """Take a part of the body, as the callable that ``start_response`` returns."""
        self.take(data)
        if self.left is not None:
            reset = self._leave is not None and self._leave.how == "reset"
            raise (ConnectionResetError if reset else BrokenPipeError)(
                "the client has disconnected"
            )

    def take(self, data: bytes) -> None:
        """Take a part of the body."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise _refused(f"the app must yield bytes, got {data_text(data)}")
        if self.status is None:
            raise _refused("the app must call start_response() before the body")
        if not data:
            return
        self._sent = True
        self._leave_if_due()
        if self.left is None:
            arrival = self._arrival(len(data))
            self.chunks.append(Chunk(arrival - self.begun, bytes(data)))

    def end(self) -> None:
        """Note that the response is complete."""
        if self.status is None:
            raise _refused("the app returned without a call of start_response()")
        last = self.begun + self.chunks[-1].time if self.chunks else 0.0
        self.finished = max(self._now(), last)
        if self._client is not None:
            for follower in self._client.followers:
                follower(len(self.chunks))

    @property
    def _leave(self) -> Leave | None:
        return None if self._client is None else self._client.leaves

    def _leave_if_due(self) -> None:
        leave = self._leave
        if leave is None or self.left is not None:
            return
        last = self.chunks[-1].time if self.chunks else 0.0
        if leave.seconds is not None:
            if self._now() - self.begun < leave.seconds:
                return
            last = leave.seconds
        elif not leave.headers and len(self.chunks) < (leave.chunks or 0):
            return
        self.left = self.begun + last
        leave.struck()

    def _arrival(self, size: int) -> float:
        """Wait until the server's buffer has room. Return the time when the client has the data."""
        pace = None if self._client is None else self._client.reads
        now = self._now()
        if pace is None:
            return now
        before = max(now, self._unread[-1][0] if self._unread else self.begun + pace.pause)
        arrival = before + pace.seconds(size)
        self._unread.append((arrival, size))
        while sum(size for _, size in self._unread) > HIGH_WATER_BYTES:
            if not self.slowed:
                pace.struck()
            self.slowed = True
            self._sleep(max(0.0, self._unread[0][0] - self._now()))
            self._unread.popleft()
        return arrival


class Upload(io.RawIOBase):
    """The body of a request, which a slow client sends part by part."""

    def __init__(
        self,
        body: bytes,
        pace: Pace | None,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._body = memoryview(body)
        self._pace = pace
        self._sleep = sleep
        self._part = max(1, -(-len(body) // UPLOAD_PARTS))
        self._place = 0
        self.slowed = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for the next part."""
        size = len(buffer)
        if self._pace is not None and self._place < len(self._body):
            size = min(size, self._part)
            if not self.slowed:
                self.slowed = True
                self._pace.struck()
                self._sleep(self._pace.pause)
        data = self._body[self._place : self._place + size]
        if self._pace is not None:
            self._sleep(self._pace.seconds(len(data)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def environ_of(parts: RequestParts, body: bytes, upload: Upload) -> dict[str, Any]:
    """Return the environment of a request, as PEP 3333 describes it."""
    path = parts.raw_path.decode("latin-1") if not parts.path else parts.path
    port = parts.port or (443 if parts.scheme == "https" else 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": parts.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": parts.query.decode("latin-1"),
        "RAW_URI": (parts.raw_path + (b"?" + parts.query if parts.query else b"")).decode(
            "latin-1"
        ),
        "SERVER_NAME": parts.host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "123",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": parts.scheme,
        "wsgi.input": io.BufferedReader(upload),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": wsgiref.util.FileWrapper,
    }
    for raw, raw_value in parts.headers:
        name, value = raw.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        if key in environ:
            value = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
        environ[key] = value
    if body and "CONTENT_LENGTH" not in environ:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def _status_of(status: object) -> int:
    code = str(status).partition(" ")[0]
    if not code.isdecimal() or len(code) != 3:
        raise _refused(
            f"the app must give a status such as '{HTTPStatus.OK.value} OK' to start_response(), "
            f"got {data_text(status)}"
        )
    return int(code)


def _refused(text: str) -> RuntimeError:
    error = RuntimeError(text)
    remember_text(error, text)
    return error

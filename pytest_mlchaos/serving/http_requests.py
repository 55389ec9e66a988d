"""Convert a user's description of a request to what an ASGI app receives."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..core.clients import Client
from ..core.privacy import data_text
from ..core.validation import did_you_mean
from ..errors import BadArgument, MissingExtra
from .requests import PreparedRequest
from .websockets import WebSocketRequest, is_websocket, keywords_of

__all__ = [
    "HOST",
    "AsgiRequest",
    "RequestParts",
    "Requests",
    "decode_body",
    "http_headers",
    "load_httpx",
]

HOST = "http://testserver"
KEYWORDS = (
    "method",
    "url",
    "content",
    "data",
    "files",
    "json",
    "params",
    "headers",
    "cookies",
    "extensions",
)
_PLAIN = re.compile(r"/[\w/.~-]*(\?[\w/.~=&-]*)?", re.ASCII)
"""A path that needs no quoting."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


def load_httpx(what: str = "an ASGI app") -> Any:
    """Return the module httpx, which ``what`` needs."""
    try:
        import httpx
    except ImportError:
        raise MissingExtra(f"mlchaos.serve of {what}", "httpx", "serve") from None
    return httpx


@functools.lru_cache(maxsize=1024)
def http_headers(pairs: tuple[tuple[bytes, bytes], ...]) -> Any:
    """Return ``httpx.Headers``. Most replies of an app have the same."""
    return load_httpx().Headers(pairs)


def decode_body(fields: dict[str, Any]) -> None:
    """Decompress a body, as a client does."""
    headers = fields.get("headers")
    if headers is not None and "content-encoding" in headers and fields["content"]:
        response = load_httpx().Response(200, headers=headers, content=fields["content"])
        fields["content"] = response.content


class RequestParts:
    """The parts of a request that an ASGI app receives."""

    __slots__ = ("body", "headers", "host", "method", "path", "port", "query", "raw_path", "scheme")

    def __init__(
        self,
        method: str,
        path: str,
        raw_path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes],
        host: str = "testserver",
        port: int | None = 80,
        scheme: str = "http",
    ) -> None:
        self.method = method
        self.path = path
        self.raw_path = raw_path
        self.query = query
        self.headers = headers
        self.body = body
        self.host = host
        self.port = port
        self.scheme = scheme

    @classmethod
    def of(cls, request: Any) -> RequestParts:
        """Return the parts of an ``httpx.Request``."""
        stream = request.stream
        body = stream if not hasattr(stream, "__iter__") else b"".join(stream)
        url = request.url
        return cls(
            request.method,
            url.path,
            url.raw_path.split(b"?")[0],
            url.query,
            [(name.lower(), value) for name, value in request.headers.raw],
            body if isinstance(body, bytes) else aiter(body),
            url.host,
            url.port,
            url.scheme,
        )

    def scope(self, state: Mapping[str, Any], client: Client | None) -> dict[str, Any]:
        """Return the scope of an ASGI app.

        A server with the version 2.4 of the protocol, and only that, lets ``send`` raise. Others
        have 2.3, as uvicorn.
        """
        leave = None if client is None else client.leaves
        raises = leave is not None and leave.how == "send"
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4" if raises else "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "headers": self.headers,
            "scheme": self.scheme,
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "server": (self.host, self.port),
            "client": ("127.0.0.1", 123),
            "root_path": "",
            "state": dict(state),
            "extensions": {"http.response.trailers": {}},
        }


class AsgiRequest(PreparedRequest):
    """An HTTP request. ``payload`` is its ``httpx.Request``, which is made if a fault needs it."""

    __slots__ = ("_parts", "_request", "_url")

    def __init__(
        self, given: Any, parts: RequestParts | None, request: Any = None, url: str = HOST
    ) -> None:
        self._parts = parts
        self._request = request
        self._url = url
        if parts is not None:
            super().__init__(given, f"{parts.method} {parts.path}")
        else:
            super().__init__(given, f"{request.method} {request.url.path}")

    @property
    def parts(self) -> RequestParts:
        """Return what the app receives. A body that is a stream can be sent once."""
        return RequestParts.of(self._request) if self._parts is None else self._parts

    @property
    def payload(self) -> Any:
        """Return the ``httpx.Request``."""
        if self._request is None:
            assert self._parts is not None
            parts = self._parts
            url = parts.raw_path + (b"?" + parts.query if parts.query else b"")
            self._request = load_httpx().Request(
                parts.method, self._url + url.decode(), headers=parts.headers, content=parts.body
            )
        return self._request

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the method, the path and the client."""
        method, _, path = self.name.partition(" ")
        client = Client(remote=self._url != HOST)
        return {"method": method, "path": path, "client": client}


class Requests:
    """Convert a user's description of a request."""

    def __init__(self, url: str = HOST, *, websockets: bool = False) -> None:
        self._httpx = load_httpx()
        self._url = url
        self._takes_websockets = websockets

    @functools.cached_property
    def _client(self) -> Any:
        transport = self._httpx.ASGITransport(app=None)
        return self._httpx.AsyncClient(transport=transport, base_url=self._url)

    @functools.cached_property
    def _common(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of each request."""
        raw = self._client.build_request("GET", "/").headers.raw
        return [(name.lower(), value) for name, value in raw]

    def prepare(self, given: object) -> AsgiRequest | WebSocketRequest:
        """Return the request to send.

        ``given`` is ``"/path"``, ``(method, path)``, ``(method, path, json)``, a mapping of httpx's
        request keywords, an ``httpx.Request``, or a WebSocket: ``("WEBSOCKET", path, messages)``.
        """
        if is_websocket(given):
            return self._websocket(given)
        parts = self._plain(given)
        if parts is not None:
            return AsgiRequest(given, parts, url=self._url)
        request = (
            given
            if isinstance(given, self._httpx.Request)
            else self._client.build_request(**self._keywords(given))
        )
        if request.url.scheme not in ("http", "https"):
            raise BadArgument(
                f"mlchaos.serve sends only HTTP requests, got the scheme {request.url.scheme!r}"
            )
        if not isinstance(request.stream, self._httpx.AsyncByteStream):
            raise BadArgument(
                f"the body of {data_text(given)} can only be read by blocking code. Give bytes or "
                f"text as its content"
            )
        return AsgiRequest(given, None, request, self._url)

    def _websocket(self, given: object) -> WebSocketRequest:
        if not self._takes_websockets:
            raise BadArgument(
                f"a WebSocket needs an ASGI app in this process, got {data_text(given)}. Serve the "
                f"app itself"
            )
        keywords = keywords_of(given)
        handed_on = {name: keywords[name] for name in ("headers", "params") if name in keywords}
        request = self._client.build_request("GET", keywords["websocket"], **handed_on)
        return WebSocketRequest(given, RequestParts.of(request), keywords)

    def _plain(self, given: object) -> RequestParts | None:
        """Return the parts of a simple request, without httpx, which takes 100 µs."""
        method, url, body = "GET", given, b""
        headers = self._common
        if type(given) is tuple:
            if len(given) == 3:
                if type(given[2]) not in (dict, list):
                    return None
                try:
                    body = json.dumps(
                        given[2], ensure_ascii=False, separators=(",", ":"), allow_nan=False
                    ).encode()
                except (ValueError, TypeError):
                    return None
                headers = [
                    *headers,
                    (b"content-length", str(len(body)).encode()),
                    (b"content-type", b"application/json"),
                ]
            elif len(given) != 2:
                return None
            method, url = given[:2]
        if method not in _METHODS or type(url) is not str or not _PLAIN.fullmatch(url):
            return None
        if "/." in url:  # httpx resolves such paths
            return None
        if method != "GET" and not body:
            return None
        path, _, query = url.partition("?")
        return RequestParts(method, path, path.encode(), query.encode(), headers, body)

    def _keywords(self, given: object) -> dict[str, Any]:
        match given:
            case str() as url:
                keywords: dict[str, Any] = {"method": "GET", "url": url}
            case (str() as method, str() as url):
                keywords = {"method": method, "url": url}
            case (str() as method, str() as url, body):
                keywords = {"method": method, "url": url, "json": body}
            case Mapping():
                keywords = {"method": "GET", **given}
            case _:
                raise BadArgument(
                    "a request must be '/path', (method, path), (method, path, json), a dict of "
                    "httpx's request keywords "
                    f"or an httpx.Request, got {data_text(given)}"
                )
        self._check(keywords, given)
        return keywords

    def _check(self, keywords: dict[str, Any], given: object) -> None:
        for name in keywords:
            if name not in KEYWORDS:
                raise BadArgument(
                    f"a request has no keyword {name!r}{did_you_mean(str(name), KEYWORDS)}. The "
                    f"keywords are {', '.join(KEYWORDS)}"
                )
        url, method = keywords.get("url"), keywords["method"]
        if not isinstance(url, (str, self._httpx.URL)) or not str(url).startswith(
            ("/", "http:", "https:", "ws:", "wss:")
        ):
            raise BadArgument(f"the path of a request must begin with /, got {data_text(given)}")
        if not isinstance(method, str) or not method.isalpha():
            raise BadArgument(
                f"the method of a request must be a name such as 'GET' or 'POST', got "
                f"{data_text(given)}"
            )

"""Start and stop ASGI apps, and send them requests through httpx's transport."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ..core.privacy import data_text, error_text, remember_text
from ..core.validation import did_you_mean
from ..engine.user_code import is_users
from ..errors import BadArgument, MissingExtra, ServiceFailed
from .requests import Answer, PreparedRequest

__all__ = ["AsgiTarget", "Lifespan", "Requests"]

App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]],
    Awaitable[None],
]
CANCEL_GRACE_SECONDS = 1.0
"""The time that a cancelled task gets to end."""
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


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise MissingExtra("mlchaos.serve of an ASGI app", "httpx", "serve") from None
    return httpx


class AsgiTarget:
    """An ASGI app in an event loop: its lifespan and its replies."""

    def __init__(
        self, app: App, now: Callable[[], float], *, lifespan: bool, timeout: float
    ) -> None:
        self._httpx = _httpx()
        self._app = app
        self._now = now
        self._timeout = timeout
        self._uses_lifespan = lifespan
        self._lifespan: Lifespan | None = None
        self._state: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the app. Do nothing if the app does not support the lifespan protocol."""
        if self._uses_lifespan:
            self._lifespan = Lifespan(self._app, self._timeout)
            self._state = await self._lifespan.start()

    async def stop(self) -> None:
        """Shut the app down."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.stop()

    async def send(self, payload: object) -> Answer:
        """Send an ``httpx.Request`` through the app."""
        exchange = _Exchange(self._app, self._state, self._now)
        transport = self._httpx.ASGITransport(app=exchange, raise_app_exceptions=False)
        response = await transport.handle_async_request(payload)
        await response.aread()
        fields = {
            "status": response.status_code,
            "headers": response.headers,
            "content": response.content,
        }
        # Frameworks re-raise an error after they have sent its 500.
        late = exchange.finished is not None and response.status_code < 500
        return Answer(
            {**fields, "late_error" if late else "error": exchange.error}, exchange.finished
        )


class _Exchange:
    """Handle one request: note when the body was complete, and which error was raised."""

    def __init__(self, app: App, state: Mapping[str, Any], now: Callable[[], float]) -> None:
        self._app, self._state, self._now = app, state, now
        self.finished: float | None = None
        self.error: Exception | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Any],
        send: Callable[[Any], Any],
    ) -> None:
        async def noting(message: Mapping[str, Any]) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.finished = self._now()

        scope["state"] = dict(self._state)
        try:
            await self._app(scope, receive, noting)
            if self.finished is None:
                unfinished = RuntimeError("the app returned without completing its response")
                remember_text(unfinished, str(unfinished))
                raise unfinished
        except Exception as error:
            self.error = error
            raise


class Lifespan:
    """Start and shut down an app with the ASGI lifespan protocol."""

    def __init__(self, app: App, timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._said: dict[str, asyncio.Future[str | None]] = {}
        self._task: asyncio.Task[None] | None = None
        # If the app fails before it receives a message, it does not support the protocol.
        self._heard = False
        self._strange = False

    async def start(self) -> dict[str, Any]:
        """Start the app, and return the state that it shares with its requests.

        Raise ``ServiceFailed`` if it fails to start, or hangs.
        """
        state: dict[str, Any] = {}
        self._task = asyncio.get_running_loop().create_task(
            self._serve({"type": "lifespan", "asgi": {"version": "3.0"}, "state": state})
        )
        if not await self._phase("startup", "start-up"):
            error = self._task.exception()
            self._task = None
            if error is not None and (
                not isinstance(error, Exception) or isinstance(error, BadArgument)
            ):
                raise error
            if error is not None and self._heard and not self._strange:
                raise ServiceFailed(
                    f"the app failed at start-up: {error_text(error)} (if it does not support the "
                    f"lifespan protocol, give lifespan=False)"
                ) from error
        return state

    async def stop(self) -> None:
        """Shut the app down. Do nothing if it has no lifespan, or if its lifespan has ended."""
        task = self._task
        if task is None:
            return
        if not await self._phase("shutdown", "shut-down"):
            error = task.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            if error is not None:
                raise ServiceFailed(f"the app failed at shut-down: {error_text(error)}") from error

    async def _phase(self, name: str, words: str) -> bool:
        """Return True if the app reported that the phase is complete, False if its task ended
        before.
        """
        assert self._task is not None
        said = self._said[name] = asyncio.get_running_loop().create_future()
        self._to_app.put_nowait({"type": f"lifespan.{name}"})
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait({self._task, said}, return_when=asyncio.FIRST_COMPLETED)
                if name == "shutdown" or (said.done() and said.result() is not None):
                    await asyncio.wait({self._task})
        except TimeoutError:
            place = await _given_up(self._task)
            raise ServiceFailed(
                f"the app's {words} took longer than {self._timeout:g} s (timeout= of "
                f"mlchaos.serve){place}"
            ) from None
        if not said.done():
            return False
        if said.result() is not None:
            error = self._task.exception()
            raise ServiceFailed(
                f"the app failed at {words}: {error_text(error) if error else said.result()}"
            ) from error
        return True

    async def _serve(self, scope: dict[str, Any]) -> None:
        done: Any = self._app(scope, self._receive, self._send)
        if not inspect.isawaitable(done):
            raise BadArgument(
                f"mlchaos.serve: an ASGI app must return an awaitable, got {data_text(done)} from "
                f"{data_text(self._app)}. Make it async"
            )
        await done

    async def _receive(self) -> dict[str, str]:
        self._heard = True
        return await self._to_app.get()

    async def _send(self, message: Mapping[str, Any]) -> None:
        _, phase, outcome = [*str(message.get("type")).split("."), "", ""][:3]
        said = self._said.get(phase)
        if phase == "shutdown" and said is None:
            return  # Nothing waits for this message, because the app is being cancelled.
        if said is None or said.done() or outcome not in ("complete", "failed"):
            self._strange = True
            raise RuntimeError(
                f"the lifespan protocol does not allow a message of type {message.get('type')!r} "
                f"here"
            )
        lines = str(message.get("message") or "").strip().splitlines()
        said.set_result(
            None if outcome == "complete" else lines[-1] if lines else "no reason given"
        )


async def _given_up(task: asyncio.Task[None]) -> str:
    """Cancel a task, and return its innermost line of user code."""
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_GRACE_SECONDS)
    try:
        trace = None if not task.done() else task.result()
    except BaseException as error:  # noqa: BLE001
        # Usually a CancelledError, whose traceback shows the line.
        trace = error.__traceback__
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    own = [frame for frame in frames if is_users(frame.f_code.co_filename)]
    code = (own or frames)[-1].f_code if frames else None
    return (
        f"; it was in {code.co_name} ({code.co_filename}:{(own or frames)[-1].f_lineno})"
        if code
        else ""
    )


class Requests:
    """Convert a user's description of a request to an ``httpx.Request``."""

    def __init__(self) -> None:
        self._httpx = _httpx()
        self._client = self._httpx.AsyncClient(
            transport=self._httpx.ASGITransport(app=None), base_url=HOST
        )

    def prepare(self, given: object) -> PreparedRequest:
        """Return the request to send.

        ``given`` is ``"/path"``, ``(method, path)``, ``(method, path, json)``, a mapping of httpx's
        request keywords, or an ``httpx.Request``.
        """
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
        path = request.url.path
        return PreparedRequest(
            given, request, f"{request.method} {path}", {"method": request.method, "path": path}
        )

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

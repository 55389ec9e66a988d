"""``mlchaos.serve`` of ASGI apps: lifespan, requests, replies. Needs httpx; the apps are written by
hand, but for the last.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import functools
import gzip
import io
import sys
import textwrap
import threading
import types

import pytest

from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.errors import (
    BadArgument,
    GoldenRunFailed,
    MissingExtra,
    NotIsolated,
    ServiceFailed,
)
from tests.serving import serving_in

httpx = pytest.importorskip("httpx")
TICK = 0.02


@pytest.fixture
def serving(tmp_path):
    """Serve an app in a trial of these faults."""
    return functools.partial(serving_in, tmp_path)


async def respond(send, body=b"", status=200, kind=b"text/plain", *more):
    """A whole response."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"Content-Type", kind), *more],
        }
    )
    await send({"type": "http.response.body", "body": body})


class App:
    """Writes a log of its life; ``start``, ``stop`` and ``handle`` may be given."""

    def __init__(self, handle=None, start=None, stop=None):
        self.log, self.handle, self.start, self.stop = [], handle, start, stop

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
        elif self.handle is not None:
            await self.handle(scope, receive, send)
        else:
            self.log.append(scope["path"])
            await respond(send, str(scope["state"]).encode())

    async def live(self, scope, receive, send):
        for phase, act in (("startup", self.start), ("shutdown", self.stop)):
            assert (await receive())["type"] == f"lifespan.{phase}"
            self.log.append(phase)
            if act is not None:
                await act(scope, send)
            await send({"type": f"lifespan.{phase}.complete"})


# -- lifespan --------------------------------------------------------------------------------------


def test_an_app_starts_before_the_first_request_and_shuts_down_with_the_test(serving):
    """Once, however many loads there are; the state is handed to the requests."""

    async def start(scope, send):
        scope["state"]["client"] = 1

    app = App(start=start)
    with serving(app) as service:
        assert app.log == ["startup"]
        load = service.drive(["/a"])
        service.drive(["/b"])
        assert "shutdown" not in app.log
    assert app.log == ["startup", "/a", "/b", "shutdown"]
    assert load.replies[0].text == "{'client': 1}"


def test_an_app_shuts_down_when_the_test_fails(serving):
    """The failure is the test's own."""
    app = App()
    with pytest.raises(RuntimeError, match="the test's"), serving(app):
        raise RuntimeError("the test's")
    assert app.log == ["startup", "shutdown"]


def test_an_app_shuts_down_where_a_with_block_ends(serving):
    """Or where it is closed."""
    for end in ("with", "close"):
        app = App()
        with serving(app) as service:
            if end == "close":
                service.close()
            else:
                with service:
                    service.drive(["/a"])
            assert app.log[-1] == "shutdown"
        assert app.log.count("shutdown") == 1


def test_a_golden_run_starts_the_app_afresh(serving):
    """After a shut-down, and shuts it down again; what the app keeps in memory is then as the loads
    left it.
    """
    told = io.StringIO()  # which no golden run puts back

    async def handle(scope, receive, send):
        told.write(f"{scope['path']} ")
        await respond(send)

    async def start(scope, send):
        told.write("start ")

    async def stop(scope, send):
        told.write("stop ")

    app = App(handle, start, stop)
    with serving(app) as service:
        service.drive(["/a"])
        service.drive(["/b"]).assert_isolated()
        assert told.getvalue() == "start /a /b stop " * 2
        assert app.log == ["startup", "shutdown"]


async def asserts_http(scope, receive, send):
    """Refuses any other protocol."""
    assert scope["type"] == "http"
    await respond(send, b"ok")


async def ignores_types(scope, receive, send):
    """Answers whatever comes."""
    await respond(send, b"ok")


async def reads_first(scope, receive, send):
    """Takes the first message for a request's."""
    await receive()
    await respond(send, b"ok")


async def leaves(scope, receive, send):
    """Returns without a word."""
    if scope["type"] == "http":
        await respond(send, b"ok")


@pytest.mark.parametrize("app", [asserts_http, ignores_types, reads_first, leaves])
def test_an_app_that_does_not_speak_the_lifespan_protocol_works(serving, app):
    """Real servers support such apps."""
    with serving(app) as service:
        load = service.drive(["/"])
        load.assert_isolated()
    assert load.replies[0].text == "ok"


def test_lifespan_can_be_switched_off(serving):
    """For an app that stumbles over it."""
    app = App(start=1)
    with serving(app, lifespan=False) as service:
        service.drive(["/"])
    assert app.log == ["/"]


async def raises(scope, send):
    """A bug in start-up or shut-down."""
    raise KeyError("no model file")


async def says_failed(scope, send):
    """Send a traceback as text, as frameworks do."""
    for phase in ("startup", "shutdown"):
        with contextlib.suppress(RuntimeError):
            await send(
                {
                    "type": f"lifespan.{phase}.failed",
                    "message": "Traceback ...\nOSError: no model\n",
                }
            )
    await asyncio.sleep(1000)


async def says_failed_and_raises(scope, send):
    """Send a traceback and raise, like Starlette."""
    await send({"type": "lifespan.startup.failed", "message": "text"})
    raise OSError("no model")


async def hangs(scope, send):
    """Waits for what never comes."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            raises,
            "the app failed at start-up: KeyError: 'no model file' (if it does not support the "
            "lifespan protocol, give lifespan=False)",
        ),
        (says_failed_and_raises, "the app failed at start-up: OSError: no model"),
        (
            hangs,
            f"the app's start-up took longer than 0.03 s (timeout= of mlchaos.serve); it was in "
            f"hangs ({__file__}:",
        ),
    ],
)
def test_an_app_that_does_not_start_says_why(serving, start, message):
    """In a line, in bounded time; it is not served."""
    with pytest.raises(ServiceFailed) as caught, serving(App(start=start), timeout="30ms"):
        pytest.fail("it was served")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (raises, "the app failed at shut-down: KeyError"),
        (hangs, "the app's shut-down took longer than 0.15 s"),
    ],
)
def test_an_app_that_does_not_shut_down_fails_the_test(serving, stop, message):
    """And is a note where the test fails anyway."""
    with (
        pytest.raises(ServiceFailed) as caught,
        serving(App(stop=stop), timeout="150ms") as service,
    ):
        service.drive(["/"])
    assert str(caught.value).startswith(message)
    with (
        pytest.raises(RuntimeError, match="the test's") as caught,
        serving(App(stop=stop), timeout="150ms"),
    ):
        raise RuntimeError("the test's")
    assert caught.value.__notes__[0].startswith(f"mlchaos: then {message}")


def test_a_start_that_fails_without_any_fault_is_a_failed_golden_run(serving):
    """And no verdict on the load."""
    again = (start > 0 for start in range(9))  # a generator is not put back

    async def once(scope, send):
        if next(again):
            raise OSError("port in use")

    with serving(App(start=once)) as service:
        load = service.drive(["/"])
        with pytest.raises(
            GoldenRunFailed, match="without any fault, the app failed at start-up: OSError"
        ):
            load.golden  # noqa: B018


def test_an_app_whose_call_cannot_be_awaited_is_refused(serving):
    """It takes the three arguments, and does nothing."""
    with (
        pytest.raises(BadArgument, match="an ASGI app must return an awaitable, got"),
        serving(lambda scope, receive, send: None),
    ):
        pass


# -- requests and replies --------------------------------------------------------------------------


async def echo(scope, receive, send):
    """Tells what came."""
    body = b""
    while (message := await receive())["body"] or message["more_body"]:
        body += message["body"]
    headers = dict(scope["headers"])
    told = [
        scope["method"],
        scope["path"],
        scope["query_string"].decode(),
        body.decode(),
        headers.get(b"x-key", b"").decode(),
    ]
    await respond(send, repr(told).encode())


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("/health", ["GET", "/health", "", "", ""]),
        ("/a?b=c", ["GET", "/a", "b=c", "", ""]),
        (("DELETE", "/a"), ["DELETE", "/a", "", "", ""]),
        (("POST", "/a", [1]), ["POST", "/a", "", "[1]", ""]),
        (
            {"url": "/a", "params": {"b": "c"}, "headers": {"x-key": "k"}},
            ["GET", "/a", "b=c", "", "k"],
        ),
        ({"method": "PUT", "url": "/a", "content": b"raw"}, ["PUT", "/a", "", "raw", ""]),
        (httpx.Request("PATCH", "http://host/a", content="text"), ["PATCH", "/a", "", "text", ""]),
    ],
)
def test_requests_may_be_written_in_several_forms(serving, request_, expected):
    """And the same once more in the golden run."""
    with serving(App(echo)) as service:
        load = service.drive([request_])
        load.assert_isolated()
    assert eval(load.replies[0].text) == expected
    assert load.replies[0].request is request_


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (3, "a request must be '/path', (method, path)"),
        (("GET",), "a request must be"),
        ("health", "the path of a request must begin with /, got str of 6 characters"),
        (("/a", "GET"), "the path of a request must begin with /"),
        ({"ulr": "/a"}, "a request has no keyword 'ulr' (did you mean 'url'?)"),
        ({"params": {}}, "the path of a request"),
        ("ws://host/live", "sends only HTTP requests, got the scheme 'ws'"),
        ({"url": "/a", "content": iter([b"x"])}, "can only be read by blocking code"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(serving, request_, message):
    """Before any other is sent."""
    app = App()
    with serving(app) as service, pytest.raises(BadArgument) as caught:
        service.drive(["/a", request_])
    assert message in str(caught.value)
    assert "/a" not in app.log


def test_a_reply_has_status_headers_and_body(serving):
    """Decoded; JSON, or an error that shows nothing of it."""

    async def handle(scope, receive, send):
        if scope["path"] == "/json":
            await respond(
                send,
                gzip.compress(b'{"a": 1}'),
                201,
                b"application/json",
                (b"content-encoding", b"gzip"),
            )
        else:
            await respond(send, "grün".encode("latin-1"), 404, b"text/plain; charset=latin-1")

    with serving(App(handle)) as service:
        load = service.drive(["/json", "/text"])
    first, second = load.replies
    assert (first.status, first.json, first.headers["content-type"], first.ok) == (
        201,
        {"a": 1},
        "application/json",
        True,
    )
    assert (second.status, second.text, second.ok) == (404, "grün", True)
    with pytest.raises(
        BadArgument,
        match=r"the reply to request 1 \(GET /text\) is not JSON: 4 bytes, text/plain; charset=latin-1, status 404",
    ):
        second.json  # noqa: B018


async def by_path(scope, receive, send):
    """Fails in several ways."""
    match scope["path"]:
        case "/raises":
            raise ValueError("mine")
        case "/500":
            await respond(send, b"sorry", 500)
        case "/raises-behind-500":
            await respond(send, b"sorry", 500)
            raise ValueError("mine")
        case "/silent":
            return
        case "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ha", "more_body": True})
            raise ValueError("mine")
        case "/raises-late":
            await respond(send, b"done")
            raise ValueError("mine")
        case "/slow-late":
            await respond(send, b"done")
            await asyncio.sleep(10 * TICK)


@pytest.mark.parametrize(
    ("path", "ok", "outcome"),
    [
        ("/raises", False, "status 500, ValueError: mine"),
        ("/500", False, "status 500"),
        ("/raises-behind-500", False, "status 500, ValueError: mine"),
        (
            "/silent",
            False,
            "status 500, RuntimeError: the app returned without completing its response",
        ),
        ("/half", False, "status 200, ValueError: mine"),
        ("/raises-late", True, "status 200"),
    ],
)
def test_what_counts_as_an_error(serving, path, ok, outcome):
    """An exception, or a status of 500 or more, counts. An error after a good reply does not."""
    with serving(App(by_path)) as service:
        (reply,) = service.drive([path]).replies
    assert (reply.ok, reply.outcome) == (ok, outcome)
    assert (type(reply.late_error) is ValueError) == (path == "/raises-late")


def test_latency_ends_with_the_body(serving):
    """Background work comes after it."""
    with serving(App(by_path)) as service:
        assert service.drive(["/slow-late"]).latency(1) < 10 * TICK


def test_a_request_that_hangs_is_named(example):
    """When the trial's time is over."""
    example.with_tests("""
        import asyncio
        import os
        import select
        import threading

        async def app(scope, receive, send):
            if scope["path"] == "/hangs":
                waits = [os.pipe()[0]], [], [], 3
                threading.Thread(target=select.select, args=waits, daemon=True).start()  # which might bring something
                await asyncio.Event().wait()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        @chaos.settings(timeout="1500ms")
        def test_it(mlchaos):
            mlchaos.serve(app).drive(["/", "/hangs", "/"])
    """).run(failed=1).has(
        "TrialTimeout: the trial took longer than 1.5 s", "in flight: request 1 GET /hangs"
    )


def test_a_client_without_httpx_is_told_what_to_install(serving, monkeypatch):
    """A plain callable needs none."""
    monkeypatch.delitem(sys.modules, "httpx")
    real = builtins.__import__

    def importing(name, *rest):
        if name == "httpx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with (
        pytest.raises(
            MissingExtra,
            match=r"mlchaos.serve of an ASGI app.*needs httpx.*'pytest-mlchaos\[serve\]'",
        ),
        serving(App()),
    ):
        pass
    with serving(abs) as service:
        assert service.drive([-1]).replies[0].value == 1


# -- faults ----------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch):
    """A module ``a_store`` with an async and a plain dependency."""
    module = types.ModuleType("a_store")

    async def get(key):
        return key

    module.get, module.get_sync = get, lambda key: key
    monkeypatch.setitem(sys.modules, "a_store", module)
    return module


def failure(name, at):
    """A failure of one of the store's functions."""
    return create("dependency_failure", target=f"a_store:{name}", at=at)


def test_a_visit_tells_method_and_path(serving):
    """A fault can then strike some requests only."""
    where = lambda visit: (  # noqa: E731
        (visit.attributes["method"], visit.attributes["path"]) == ("POST", "/slow")
    )
    with serving(App(), create("latency_spike", delay=TICK, at=EVERY, where=where)) as service:
        load = service.drive(["/slow", ("POST", "/slow?x=1"), ("POST", "/")])
    assert [reply.number for reply in load.replies if reply.faults] == [1]
    assert load.replies[1].latency >= TICK


def test_a_start_that_needs_a_failing_dependency_fails(serving, store):
    """Faults strike in start-up, too; the golden start has none."""

    async def start(scope, send):
        scope["state"]["value"] = await store.get(1)

    with (
        pytest.raises(
            ServiceFailed, match="at start-up: ConnectionError: injected into a_store:get"
        ),
        serving(App(start=start), failure("get", 0)),
    ):
        pass
    with serving(App(start=start), failure("get", 1)) as service:
        service.drive(["/"]).assert_isolated()


def test_isolation_compares_statuses_and_json(serving, store):
    """Numbers within a tolerance; other bodies byte by byte."""
    seen = []

    async def handle(scope, receive, send):
        if scope["path"] == "/first":
            try:
                seen.append(await store.get(1))
            except ConnectionError:
                seen.append(2)
            return await respond(send)
        if scope["path"] == "/status":
            return await respond(send, status=200 + seen[-1])
        kind = b"application/json" if scope["path"] == "/json" else b"text/plain"
        return await respond(
            send,
            b'{"score": %d}' % seen[-1] if scope["path"] == "/json" else b"<%d>" % seen[-1],
            kind=kind,
        )

    for path, difference in {
        "/json": r"json\['score'\]: differs by 1 \(int\)",
        "/text": "content: texts differ from position 1 on",
        "/status": "status 202 instead of status 201",
    }.items():
        with serving(App(handle), failure("get", 0)) as service:
            load = service.drive(["/first", path])
            with pytest.raises(NotIsolated, match=rf"request 1 \(GET {path}\): {difference}"):
                load.assert_isolated()
            if path == "/json":
                load.assert_isolated(rtol=1)
            load.assert_isolated(by=lambda reply: reply.ok)


def test_an_app_of_a_framework_works(serving, store):
    """Plain endpoints in worker threads, dependencies, lifespan state, middleware, background
    tasks, streams.
    """
    fastapi = pytest.importorskip("fastapi")
    from fastapi.responses import StreamingResponse

    @contextlib.asynccontextmanager
    async def lifespan(app):
        lock = asyncio.Lock()  # bound to this loop
        yield {"lock": lock}

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def middleware(request, call_next):
        return await call_next(request)

    @app.get("/plain/{number}")
    def plain(number: int, found: int = fastapi.Depends(lambda: store.get_sync(1))):
        return {
            "number": number,
            "main": threading.current_thread() is threading.main_thread(),
            "found": found,
        }

    async def endpoint(request, number, tasks):
        async with request.state.lock:
            tasks.add_task(store.get, number)
            return {"number": await store.get(number)}

    endpoint.__annotations__ = {
        "request": fastapi.Request,
        "number": int,
        "tasks": fastapi.BackgroundTasks,
    }
    app.get("/async/{number}")(endpoint)

    @app.get("/stream")
    async def stream():
        async def lines():
            for number in range(3):
                yield f"{await store.get(number)}\n"

        return StreamingResponse(lines())

    with serving(app, failure("get_sync", 2)) as service:
        load = service.drive(
            [f"/{kind}/{n}" for n in range(4) for kind in ("plain", "async")], concurrency=3
        )
        assert load.availability == 7 / 8
        assert {
            reply.json["main"]
            for reply in load.replies
            if reply.name.startswith("GET /plain") and reply.ok
        } == {False}
        assert [reply.ok for reply in load.replies] == [not reply.faults for reply in load.replies]
        load.assert_isolated()
    with serving(app, failure("get", [1, 4])) as service:
        first, second, third = service.drive(["/stream", "/async/3", "/plain/4"]).replies
    assert (first.status, first.text) == (200, "0\n")
    assert ConnectionError in (type(first.error), type(first.late_error)), (
        "late where middleware closes the broken stream"
    )
    assert (second.json, type(second.late_error), second.ok) == ({"number": 3}, type(None), True)
    assert third.json["found"] == 1


@pytest.mark.parametrize("endpoint", ["async def", "def"])
def test_a_crash_in_an_endpoint_ends_the_test_or_restarts_the_run(example, endpoint):
    """In the loop, and in a worker thread."""
    pytest.importorskip("fastapi")
    source = """
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/")
        ENDPOINT home():
            visit("home.visited")
            return {}

        @chaos.crash(site="home.visited", at=1)
        def test_alone(mlchaos):
            mlchaos.serve(app).drive(["/"] * 3)

        @chaos.crash(site="home.visited", at=1)
        def test_run(mlchaos):
            run = mlchaos.run(lambda: [reply.status for reply in mlchaos.serve(app).drive(["/"] * 3).replies])
            assert run.restarts == 1
            run.assert_recovered()
    """
    outcome = example.with_tests(textwrap.dedent(source).replace("ENDPOINT", endpoint)).run(
        failed=1, passed=1
    )
    outcome.has(
        "CrashNotRestarted: the process died at home.visited 1 (injected by mlchaos), and nothing "
        "restarted it: mlchaos.serve does not"
    )

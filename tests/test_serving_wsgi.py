"""WSGI apps: their responses, streams, errors, and clients that leave."""

from __future__ import annotations

import contextlib
import sys
import time

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.plugin.fixture import Mlchaos

pytest.importorskip("httpx")
faults.load()
sites.load()


@pytest.fixture
def served(tmp_path):
    """Serve an app on a virtual clock, under these faults."""

    def serve(app, *faults):
        with trial(Schedule(faults), Patches(), clock="virtual") as controller:
            yield Mlchaos(tmp_path).serve(app), controller

    return contextlib.contextmanager(serve)


class Tokens:
    """Streams five tokens, 0.1 s apart, and notes how its streams end."""

    def __init__(self):
        self.ends = []

    def __call__(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return self.tokens()

    def tokens(self):
        made = 0
        try:
            for made in range(1, 6):
                time.sleep(0.1)
                yield b"data: %d\n\n" % made
        finally:
            self.ends.append(made)


def test_a_request_arrives_as_by_a_server(served):
    """The environment has what PEP 3333 asks for."""
    seen = []

    def app(environ, start_response):
        seen.append((environ, environ["wsgi.input"].read()))
        start_response("201 Created", [("X-Twice", "1"), ("X-Twice", "2")])
        return [b"a", b"", b"b"]

    headers = {"X-Two": "words", "Content-Type": "text/plain"}
    with served(app) as (service, _):
        request = {"method": "PUT", "url": "/ö/x?q=%20", "content": b"body", "headers": headers}
        (reply,) = service.drive([request]).replies
    assert (reply.status, reply.content, len(reply.chunks)) == (201, b"ab", 2)
    assert reply.headers.get_list("x-twice") == ["1", "2"]
    ((environ, body),) = seen
    names = ("REQUEST_METHOD", "QUERY_STRING", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_X_TWO")
    assert [environ[name] for name in names] == ["PUT", "q=%20", "4", "text/plain", "words"]
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/ö/x"
    assert body == b"body"


def test_the_environment_passes_the_validator_of_the_standard_library(served):
    """``wsgiref.validate`` checks both sides."""
    validate = pytest.importorskip("wsgiref.validate")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    checked = validate.validator(app)  # it takes any number of arguments
    with served(lambda environ, start: checked(environ, start)) as (service, _):
        (reply,) = service.drive(["/x?a=1"]).replies
    assert (reply.error, reply.content) == (None, b"fine")


def test_a_stream_keeps_the_time_of_each_token(served):
    """The app is a generator, whose close() is called."""
    app = Tokens()
    with served(app) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert (reply.tokens, app.ends) == (5, [5])
    assert reply.ttft == pytest.approx(0.1, abs=0.01)
    assert reply.itl == pytest.approx([0.1] * 4, abs=0.01)


@pytest.mark.parametrize(
    ("after", "chunks", "seconds", "made"),
    [(0, 0, 0, 1), ("response", 0, 0, 1), (2, 2, 0.2, 3), ("250ms", 2, 0.25, 3)],
)
def test_a_client_that_leaves_ends_the_stream(served, after, chunks, seconds, made):
    """At the next part that the server writes. close() is called."""
    app = Tokens()
    with served(app, create("client_disconnect", after=after, at=0)) as (service, controller):
        left, stays = service.drive(["/", "/"]).replies
    assert (left.tokens, left.left, stays.tokens) == (chunks, pytest.approx(seconds, abs=0.01), 5)
    assert app.ends == [made, 5]
    assert [strike.details["request"] for strike in controller.journal] == [0]
    assert (left.ok, left.ended) == (True, pytest.approx(0.1 * made, abs=0.01))


def test_a_client_that_has_its_response_does_not_leave(served):
    """Do not count a strike."""
    with served(Tokens(), create("client_disconnect", after=5, at=0)) as (service, controller):
        (reply,) = service.drive(["/"]).replies
    assert (reply.left, reply.tokens, len(controller.journal)) == (None, 5, 0)


@pytest.mark.parametrize(
    ("how", "error"), [("send", BrokenPipeError), ("reset", ConnectionResetError)]
)
def test_write_raises_if_the_client_has_left(served, how, error):
    """The callable that start_response returns."""
    raised = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"one")
        try:
            write(b"two")
        except OSError as caught:
            raised.append(type(caught))
            raise
        return []

    with served(app, create("client_disconnect", how=how, after=1, at=0)) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert (raised, reply.content, reply.ok) == ([error], b"one", True)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/before", 500, "before"),
        ("/after", 500, "after"),
        ("/between", 200, "between"),
        ("/nothing", 500, "without a call of start_response"),
        ("/text", 500, "must yield bytes, got str"),
        ("/none", 500, "must return an iterable of bytes, got None"),
        ("/twice", 500, "a second time"),
        ("/status", 500, "must give a status such as"),
    ],
)
def test_errors_of_an_app_are_its_reply(served, path, status, error):
    """Before and after the start of the response, and misuse of the protocol."""

    def parts():
        yield b"part"
        raise ValueError("between")

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/before":
            raise ValueError("before")
        if path == "/nothing":
            return []
        start_response("fine" if path == "/status" else "200 OK", [])
        if path == "/twice":
            start_response("200 OK", [])
        if path == "/after":
            raise ValueError("after")
        return {"/text": ["text"], "/none": None}.get(path, parts())

    with served(app) as (service, _):
        (reply,) = service.drive([path]).replies
    assert (reply.status, reply.ok) == (status, False)
    assert error in str(reply.error)


def test_an_error_page_replaces_the_response(served):
    """With exc_info, before the first part."""

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise ValueError("x")
        except ValueError:
            start_response("503 Busy", [], sys.exc_info())
        return [b"busy"]

    with served(app) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert (reply.status, reply.content, reply.ok, reply.error) == (503, b"busy", False, None)


@pytest.mark.parametrize(("of", "latency"), [("upload", 9), ("download", 101)])
def test_a_slow_client_makes_the_app_wait(served, of, latency):
    """When it reads the body, or when the server's buffer is full."""

    def app(environ, start_response):
        size = len(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [bytes(size * 50)] * 5

    rate = {"upload": 50, "download": 1000}[of]
    fault = create("slow_client", of=of, rate=rate, pause="1s", at=0)
    with served(app, fault) as (service, controller):
        slow, quick = service.drive(
            [{"method": "POST", "url": "/", "content": bytes(400)}] * 2
        ).replies
    assert (slow.slowed, quick.slowed, len(controller.journal)) == (True, False, 1)
    assert slow.latency == pytest.approx(latency, abs=0.1)


def test_requests_run_in_threads_at_once(served):
    """On the virtual clock."""

    def app(environ, start_response):
        time.sleep(10)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with served(app) as (service, controller):
        before = controller.clock.now()
        replies = service.drive([f"/{place}" for place in range(8)], concurrency=4).replies
        assert controller.clock.now() - before == pytest.approx(20, abs=0.1)
        assert not controller.clock.reason
    assert [reply.text for reply in replies] == [f"/{place}" for place in range(8)]


def test_a_framework_is_judged_against_its_golden_load(example):
    """A Flask app with an unsound cache fails, and its twin passes."""
    pytest.importorskip("flask")
    example.with_tests("""
        import flask
        import pytest

        class Store:
            def get(self, user):
                return user / 10

        store = Store()

        def make(sound):
            app, cache = flask.Flask(__name__), {}

            @app.post("/score")
            def score():
                user = flask.request.json["user"]
                if user not in cache:
                    try:
                        cache[user] = store.get(user)
                    except ConnectionError:
                        if sound:
                            return {"score": 0.5}
                        cache[user] = 0.5
                return {"score": cache[user]}

            return app

        @pytest.mark.parametrize("sound", [True, False])
        @chaos.dependency_failure(target="test_it:Store.get", at=1)
        def test_it(mlchaos, sound):
            users = [("POST", "/score", {"user": user}) for user in (1, 2, 2, 1)]
            load = mlchaos.serve(make(sound)).drive(users)
            load.assert_isolated()
    """).run(passed=1, failed=1).has("NotIsolated", "request 2")

"""WebSockets of a served ASGI app: messages both ways, refusals, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, NeverAnswered
from pytest_mlchaos.plugin.fixture import Mlchaos

pytest.importorskip("httpx")
faults.load()
sites.load()
ACCEPT = {"type": "websocket.accept"}


@pytest.fixture
def served(tmp_path):
    """Serve an app on a virtual clock, under these faults."""

    def serve(app, *faults):
        with trial(Schedule(faults), Patches(), clock="virtual") as controller:
            yield Mlchaos(tmp_path).serve(app, lifespan=False), controller

    return contextlib.contextmanager(serve)


def said(text):
    """Return a message of the app."""
    return {"type": "websocket.send", "text": text}


class Echo:
    """Answers each message after 0.1 s, and notes what it receives."""

    def __init__(self):
        self.received, self.errors = [], []

    async def __call__(self, scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send(ACCEPT)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                self.received.append(message["text"] or message["bytes"])
                await asyncio.sleep(0.1)
                await send(said(f"got {len(self.received)}"))
            self.received.append(message["code"])
        except OSError as error:
            self.errors.append(type(error).__name__)


class Ticker:
    """Sends a number each second in a task of its own, and waits for messages meanwhile."""

    async def __call__(self, scope, receive, send):
        await receive()
        await send({**ACCEPT, "subprotocol": scope["subprotocols"][0]})
        task = asyncio.create_task(self.tick(send))
        while (await receive())["type"] != "websocket.disconnect":
            pass
        task.cancel()

    async def tick(self, send):
        for number in range(5):
            await asyncio.sleep(1)
            await send(said(str(number)))


def test_messages_pass_both_ways(served):
    """Text, bytes and JSON. The client closes as soon as the app only waits for more."""
    app = Echo()
    with served(app) as (service, _):
        (reply,) = service.drive([("WEBSOCKET", "/ws", ["a", b"b", {"c": 1}])]).replies
    assert app.received == ["a", b"b", '{"c":1}', 1000]
    assert [message.data for message in reply.messages] == ["got 1", "got 2", "got 3"]
    times = [message.time for message in reply.messages]
    assert times == pytest.approx([0.1, 0.2, 0.3], abs=0.01)
    assert (reply.status, reply.close_code, reply.ok) == (101, 1000, True)
    assert (reply.tokens, reply.latency) == (3, pytest.approx(0.3, abs=0.01))


def test_the_client_waits_for_other_tasks_of_the_app(served):
    """Until nothing has arrived for some time. That time is not part of the latency."""
    request = {"websocket": "/ws?a=1", "subprotocols": ["ticks"], "headers": {"x-key": "1"}}
    with served(Ticker()) as (service, _):
        (reply,) = service.drive([request]).replies
    assert reply.value == list("01234")
    assert reply.latency == pytest.approx(5, abs=0.01)
    assert reply.headers["sec-websocket-protocol"] == "ticks"


def test_the_client_closes_after_a_number_of_messages(served):
    """With its code, and with pauses between its own messages."""
    app = Echo()
    request = {"websocket": "/", "send": ["a"], "receive": 2, "pause": "1s", "close": 4001}
    with served(app) as (service, _):
        (reply,) = service.drive([{**request, "send": list("abcd")}]).replies
    assert app.received == ["a", "b", 4001]
    assert (reply.value, reply.close_code) == (["got 1", "got 2"], 4001)
    assert reply.latency == pytest.approx(1.2, abs=0.01)


async def refuses(scope, receive, send):
    """Close before the handshake."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})


async def denies(scope, receive, send):
    """Answer the handshake by an HTTP response."""
    assert "websocket.http.response" in scope["extensions"]
    kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": 401, "headers": [(b"x-why", b"token")]})
    await send({"type": f"{kind}.body", "body": b"no token"})


async def closes(scope, receive, send):
    """Close because of a failure of the server."""
    await send(ACCEPT)
    await send(said("sorry"))
    await send({"type": "websocket.close", "code": 1011})


async def raises(scope, receive, send):
    """Fail after the handshake."""
    await send(ACCEPT)
    raise ValueError("broken")


async def returns(scope, receive, send):
    """Do not answer the handshake."""
    await receive()


@pytest.mark.parametrize(
    ("app", "status", "code", "ok", "error"),
    [
        (refuses, 403, 1008, True, ""),
        (denies, 401, None, True, ""),
        (closes, 101, 1011, False, ""),
        (raises, 101, 1011, False, "broken"),
        (returns, 500, None, False, "without accepting or closing"),
    ],
)
def test_each_end_of_a_connection_is_kept(served, app, status, code, ok, error):
    """Refusals, failures, and an app that does not answer."""
    with served(app) as (service, _):
        (reply,) = service.drive([("WEBSOCKET", "/", ["x"])]).replies
    assert (reply.status, reply.close_code, reply.ok) == (status, code, ok)
    assert error in str(reply.error or "")
    assert (reply.text, reply.headers.get("x-why")) == (
        ("no token", "token") if app is denies else ("", None)
    )


@pytest.mark.parametrize(
    ("how", "code", "errors"),
    [
        ("receive", 1001, []),
        ("send", None, ["OSError"]),
        ("reset", None, ["ConnectionResetError"]),
    ],
)
def test_a_client_that_leaves_is_reported_as_by_a_server(served, how, code, errors):
    """By ``receive``, and by an error of ``send``."""
    app = Echo()
    fault = create("client_disconnect", how=how, after="150ms", at=0)
    with served(app, fault) as (service, controller):
        left, stays = service.drive([("WEBSOCKET", "/", ["a", "b", "c"])] * 2).replies
    assert app.errors == errors
    assert [one for one in app.received if one in (1001, 1006)] == ([code] if code else [])
    assert (left.left, len(left.messages)) == (pytest.approx(0.15, abs=0.01), 1)
    assert (left.ok, len(stays.messages), len(controller.journal)) == (True, 3, 1)


@pytest.mark.parametrize(("after", "messages"), [(0, 0), ("response", 0), (2, 2), (9, 3)])
def test_a_client_leaves_at_its_moment(served, after, messages):
    """Before the handshake, after it, or after a number of messages. Not after its end."""
    with served(Echo(), create("client_disconnect", after=after, at=0)) as (service, controller):
        (reply,) = service.drive([("WEBSOCKET", "/", ["a", "b", "c"])]).replies
    assert len(reply.chunks) == messages
    assert len(controller.journal) == (after != 9)
    assert (reply.left is None) == (after == 9)


def test_an_app_that_never_answers_the_handshake_is_named(served):
    """With its line."""

    async def app(scope, receive, send):
        while True:
            await receive()

    with served(app) as (service, _), pytest.raises(NeverAnswered, match=r"WEBSOCKET /ws.* in app"):
        service.drive([("WEBSOCKET", "/ws")])


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([said("early")], "must send 'websocket.accept' or 'websocket.close' first"),
        ([ACCEPT, ACCEPT], "must send 'websocket.send' or 'websocket.close'"),
        ([ACCEPT, {"type": "websocket.send"}], "must send text or bytes"),
        ([ACCEPT, {"type": "websocket.close"}, said("late")], "after its close"),
    ],
)
def test_messages_out_of_order_are_refused(served, messages, error):
    """Raise an error in the app, as a server does."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    with served(app) as (service, _):
        (reply,) = service.drive([("WEBSOCKET", "/")]).replies
    assert error in str(reply.error)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("WEBSOCKET", "ws"), "the path of a WebSocket must begin with /"),
        (("WEBSOCKET", "/", "text"), "send of a WebSocket must be a list of messages"),
        (("WEBSOCKET", "/", [object()]), "must be text, bytes or JSON"),
        (
            {"websocket": "/", "sent": []},
            "a WebSocket has no keyword 'sent' (did you mean 'send'?)",
        ),
        ({"websocket": "/", "receive": 0}, "receive of a WebSocket must be a number of messages"),
        ({"websocket": "/", "close": 99}, "close of a WebSocket must be a close code from 1000"),
    ],
)
def test_a_wrong_description_is_refused(served, request_, message):
    """In one line."""
    with served(Echo()) as (service, _), pytest.raises(BadArgument) as caught:
        service.drive([request_])
    assert message in str(caught.value)


def test_a_wsgi_app_has_no_websockets(served):
    """Say what does."""
    wsgi = lambda environ, start_response: []  # noqa: E731
    with (
        served(wsgi) as (service, _),
        pytest.raises(BadArgument, match="a WebSocket needs an ASGI app"),
    ):
        service.drive([("WEBSOCKET", "/")])


def test_a_disconnect_finds_a_connection_that_leaks(example):
    """The sound twin passes."""
    example.with_tests("""
        import asyncio
        import pytest

        class Room:
            def __init__(self, sound):
                self.free, self.sound = asyncio.Semaphore(1), sound

            async def __call__(self, scope, receive, send):
                await self.free.acquire()
                await receive()
                await send({"type": "websocket.accept"})
                message = await receive()
                while message["type"] == "websocket.receive":
                    await asyncio.sleep(0.01)
                    await send({"type": "websocket.send", "text": "x"})
                    message = await receive()
                if self.sound or message["code"] == 1000:
                    self.free.release()

        @pytest.mark.parametrize("sound", [True, False])
        @chaos.client_disconnect(how="receive", at=0)
        def test_it(mlchaos, sound):
            room = mlchaos.serve(Room(sound), lifespan=False)
            room.drive([("WEBSOCKET", "/", ["a", "b"])] * 3).assert_isolated()
    """).run(passed=1, failed=1).has("NeverAnswered", "client_disconnect(")

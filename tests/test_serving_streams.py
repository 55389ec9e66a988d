"""Streams of a served ASGI app, and clients that leave or are slow."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import NeverAnswered
from pytest_mlchaos.plugin.fixture import Mlchaos

httpx = pytest.importorskip("httpx")
faults.load()
sites.load()
START = {"type": "http.response.start", "status": 200}
EVENTS = [(b"content-type", b"text/event-stream")]


@pytest.fixture
def served(tmp_path):
    """Serve an app on a virtual clock, under these faults."""

    def serve(app, *declared):
        with trial(Schedule(declared), Patches(), clock="virtual") as controller:
            yield Mlchaos(tmp_path).serve(app), controller

    return contextlib.contextmanager(serve)


class Tokens:
    """Sends ten tokens, 0.1 s apart, and notes how its calls end."""

    def __init__(self, *, reads=True, size=0):
        self.made, self.ends, self.heard, self.size = 0, [], [], size

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        listener = asyncio.create_task(self.listen(receive))
        try:
            await send({**START, "headers": EVENTS})
            for number in range(10):
                await asyncio.sleep(0.1)
                self.made += 1
                data = b"data: %d\n\n" % number + bytes(self.size)
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body"})
            self.ends.append("complete")
        except OSError as error:
            self.ends.append(type(error).__name__)
        finally:
            listener.cancel()

    async def listen(self, receive):
        while (message := await receive())["type"] != "http.disconnect":
            pass
        self.heard.append(message["type"])


def test_a_stream_keeps_the_time_of_each_token(served):
    """Each event is a token."""
    with served(Tokens()) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert reply.tokens == 10
    assert reply.ttft == pytest.approx(0.1, abs=0.01)
    assert reply.itl == pytest.approx([0.1] * 9, abs=0.01)
    assert [chunk.data for chunk in reply.chunks][3] == b"data: 3\n\n"


def test_tokens_are_counted_across_chunks(served):
    """An event may arrive in several chunks, and a chunk may hold several events."""

    async def app(scope, receive, send):
        await send({**START, "headers": EVENTS})
        for data in (b"data: 1\n", b"\ndata: 2\n\ndata: 3\n\n", b"data: 4"):
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body"})

    with served(app) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert (reply.tokens, len(reply.chunks)) == (4, 3)


@pytest.mark.parametrize(
    ("how", "end"),
    [("receive", "complete"), ("send", "OSError"), ("reset", "ConnectionResetError")],
)
def test_a_client_that_leaves_is_reported_as_by_a_server(served, how, end):
    """By ``receive``, and by an error of ``send`` in newer servers."""
    app = Tokens()
    with served(app, create("client_disconnect", how=how, after=3, at=0)) as (service, controller):
        left, stays = service.drive(["/", "/"]).replies
    assert (left.tokens, left.left, stays.tokens) == (3, pytest.approx(0.3, abs=0.01), 10)
    assert app.ends == ["complete", "complete"] if how == "receive" else [end, "complete"]
    assert app.heard == ["http.disconnect"]
    (strike,) = controller.journal
    assert (strike.details["request"], left.faults, left.ok) == (0, (strike,), True)


@pytest.mark.parametrize(
    ("after", "chunks", "seconds"),
    [(0, 0, 0), ("request", 0, 0), ("response", 0, 0), ("first_token", 1, 0.1), ("250ms", 2, 0.25)],
)
def test_a_client_leaves_at_its_moment(served, after, chunks, seconds):
    """Before the answer, after a part of it, or after a time."""
    with served(Tokens(), create("client_disconnect", after=after, at=0)) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert (len(reply.chunks), reply.left) == (chunks, pytest.approx(seconds, abs=0.01))


def test_a_client_that_has_its_response_does_not_leave(served):
    """Do not count a strike."""
    with served(Tokens(), create("client_disconnect", after=11, at=0)) as (service, controller):
        (reply,) = service.drive(["/"]).replies
    assert (reply.left, len(controller.journal)) == (None, 0)


def test_a_handler_that_goes_on_is_waited_for_and_named(served):
    """The load waits for a time, but not for ever."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await asyncio.sleep({"/short": 1, "/long": 1e6}[scope["path"]])

    fault = create("client_disconnect", after=0, at=[0, 1])
    with served(app, fault) as (service, controller):
        before = controller.clock.now()
        short, endless = service.drive(["/short", "/long"], concurrency=1).replies
        assert controller.clock.now() - before < 10
    assert (short.ended, short.still_at) == (pytest.approx(1, abs=0.01), "")
    assert endless.ended is None
    assert "app (" in endless.still_at


def test_tasks_that_outlive_a_request_are_kept(served):
    """With their lines."""
    background = []

    async def tick():
        await asyncio.sleep(1e6)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            background.append(asyncio.create_task(tick()))
            await send(START)
            await send({"type": "http.response.body"})

    with served(app) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert [text.partition(",")[0].rpartition(".")[2] for text in reply.outlived_by] == ["tick"]


def test_a_slow_reader_makes_send_wait(served):
    """Wait as soon as the server's buffer is full."""
    app = Tokens(size=20_000)
    fault = create("slow_client", of="download", rate="20KiB/s", at=0)
    with served(app, fault) as (service, controller):
        slow, quick = service.drive(["/", "/"]).replies
    assert (slow.slowed, quick.slowed, len(controller.journal)) == (True, False, 1)
    assert slow.latency == pytest.approx(200_090 / 20_480 + 0.1, abs=0.1)
    assert slow.ended < slow.latency  # the rest is in the server's buffer
    assert slow.ended > 5
    assert quick.latency == pytest.approx(1, abs=0.1)


def test_a_task_that_a_library_starts_for_itself_is_left_out(served):
    """Keep those that run user code, also through a library."""
    library = compile(
        "import asyncio\n"
        "async def watch():\n"
        "    await asyncio.sleep(1e6)\n"
        "async def run(items):\n"
        "    async for item in items: pass\n",
        asyncio.__file__,
        "exec",
    )
    names = {}
    exec(library, names)
    kept = []

    async def items():
        yield await asyncio.sleep(1e6)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            kept.extend(map(asyncio.create_task, (names["watch"](), names["run"](items()))))
            await asyncio.sleep(0)
            await send(START)
            await send({"type": "http.response.body"})

    with served(app) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert [text.partition(",")[0] for text in reply.outlived_by] == ["run"]


def test_the_latency_of_a_slow_client_does_not_count(served):
    """Judge what the app can do for the others."""
    fault = create("slow_client", of="upload", rate="1B/s", at=0)
    requests = [{"method": "POST", "url": "/", "content": bytes(100)}, "/"]
    with served(Tokens(), fault) as (service, _):
        service.drive(requests).assert_slo(max="2s")


def test_a_slow_reader_of_a_short_response_is_not_noticed(served):
    """Do not count a strike."""
    fault = create("slow_client", of="download", rate="1KiB/s", at=0)
    with served(Tokens(), fault) as (service, controller):
        service.drive(["/"])
    assert len(controller.journal) == 0


def test_a_slow_upload_arrives_in_chunks(served):
    """The body is sent in 8 parts."""
    sizes = []

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        while (message := await receive())["more_body"]:
            sizes.append(len(message["body"]))
        await send(START)
        await send({"type": "http.response.body"})

    fault = create("slow_client", of="upload", rate=100, pause="1s", at=0)
    with served(app, fault) as (service, _):
        (reply,) = service.drive([{"method": "POST", "url": "/", "content": bytes(800)}]).replies
    assert sizes == [100] * 8
    assert reply.latency == pytest.approx(9, abs=0.01)


def test_trailers_are_kept(served):
    """They end the response."""

    async def app(scope, receive, send):
        await send({**START, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]})

    with served(app) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert (reply.ok, reply.trailers["x-sum"]) == (True, "7")


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"type": "http.response.body"}], "must send 'http.response.start' first"),
        ([{**START}, {**START}], "must send 'http.response.body' next"),
        ([{**START}, *[{"type": "http.response.body"}] * 2], "after its response was complete"),
    ],
)
def test_messages_out_of_order_are_refused(served, messages, error):
    """Raise an error in the app, as a server does."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    with served(functools.partial(app)) as (service, _):
        (reply,) = service.drive(["/"]).replies
    assert error in str(reply.error or reply.late_error)


def test_a_bare_disconnect_finds_a_slot_that_leaks(example):
    """The sound twin passes."""
    example.with_tests("""
        import asyncio
        import pytest

        class App:
            def __init__(self, sound):
                self.slots, self.sound = asyncio.Semaphore(1), sound

            async def __call__(self, scope, receive, send):
                await self.slots.acquire()
                try:
                    await send({"type": "http.response.start", "status": 200})
                    for _ in range(3):
                        await asyncio.sleep(0.01)
                        await send({"type": "http.response.body", "body": b"x", "more_body": True})
                    await send({"type": "http.response.body"})
                except OSError:
                    if self.sound:
                        self.slots.release()
                    return
                self.slots.release()

        @pytest.mark.parametrize("sound", [True, False])
        @chaos.client_disconnect
        def test_it(mlchaos, sound):
            load = mlchaos.serve(App(sound), lifespan=False).drive(["/"] * 4)
            load.assert_isolated()
    """).run(passed=1, failed=1).has("NeverAnswered", "client_disconnect(", "reproduce:")


def test_a_stream_that_hangs_is_named_with_its_own_line(served):
    """A framework streams in a task of its own, and its call waits for that task."""
    responses = pytest.importorskip("starlette.responses")

    async def tokens():
        yield "a"
        await asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await responses.StreamingResponse(tokens())(scope, receive, send)

    with (
        pytest.raises(NeverAnswered, match=r"waits in tokens \(.*test_serving_streams.py:\d+\)"),
        served(app) as (service, _),
    ):
        service.drive(["/"])

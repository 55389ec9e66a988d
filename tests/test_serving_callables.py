"""Callables of each kind: generators, models, handlers of batches, and code in threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, NeverAnswered, ServiceFailed
from pytest_mlchaos.plugin.fixture import Mlchaos

faults.load()
sites.load()
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


@pytest.fixture
def served(tmp_path):
    """Serve an app on a virtual clock, under these faults."""

    def serve(app, *faults):
        with trial(Schedule(faults), Patches(), clock="virtual", timeout=30) as controller:
            yield Mlchaos(tmp_path).serve(app), controller

    return contextlib.contextmanager(serve)


# -- streams -----------------------------------------------------------------------------------------

ends = []


def numbers(count):
    """Yield numbers, 0.1 s apart."""
    try:
        for number in range(count):
            time.sleep(0.1)
            yield number
    finally:
        ends.append("closed")


async def numbers_async(count):
    """Do the same in an event loop."""
    try:
        for number in range(count):
            await asyncio.sleep(0.1)
            yield number
    except asyncio.CancelledError:
        ends.append("cancelled")
        raise
    finally:
        ends.append("closed")


@pytest.mark.parametrize("app", [numbers, numbers_async])
def test_the_items_of_a_generator_keep_their_times(served, app):
    """The value is their list."""
    with served(app) as (service, _):
        (reply,) = service.drive([4]).replies
    assert (reply.value, reply.tokens) == ([0, 1, 2, 3], 4)
    assert reply.ttft == pytest.approx(0.1, abs=0.01)
    assert reply.itl == pytest.approx([0.1] * 3, abs=0.01)


@pytest.mark.parametrize(
    ("app", "how", "end"),
    [
        (numbers, "receive", ["closed"]),
        (numbers_async, "receive", ["cancelled", "closed"]),
        (numbers_async, "send", ["closed"]),
    ],
)
def test_a_client_that_leaves_ends_a_generator(served, app, how, end):
    """By its close(), or a cancellation while it waits."""
    ends.clear()
    with served(app, create("client_disconnect", how=how, after=2, at=0)) as (service, controller):
        left, stays = service.drive([5, 5]).replies
    assert (left.value, left.left) == ([0, 1], pytest.approx(0.2, abs=0.01))
    assert ends == [*end, "closed"]
    assert (stays.value, left.ok, len(controller.journal)) == ([0, 1, 2, 3, 4], True, 1)


@pytest.mark.parametrize("how", ["receive", "send"])
@pytest.mark.parametrize("app", [numbers, numbers_async])
def test_a_client_that_has_all_items_does_not_leave(served, app, how):
    """Do not count a strike."""
    with served(app, create("client_disconnect", how=how, after=3, at=0)) as (service, controller):
        (reply,) = service.drive([3]).replies
    assert (reply.value, reply.left, len(controller.journal)) == ([0, 1, 2], None, 0)


def breaks(count):
    """Fail after the items."""
    yield from range(count)
    raise ValueError("broken")


async def breaks_async(count):
    """Do the same in an event loop."""
    for number in range(count):
        yield number
    raise ValueError("broken")


@pytest.mark.parametrize("app", [breaks, breaks_async])
def test_a_generator_that_fails_keeps_its_items(served, app):
    """With the error."""
    with served(app) as (service, _):
        (reply,) = service.drive([2]).replies
    assert (reply.value, str(reply.error), reply.ok) == ([0, 1], "broken", False)


# -- models ------------------------------------------------------------------------------------------


class Model:
    """Predict, and count the calls."""

    def __init__(self):
        self.calls = 0

    def predict(self, rows):
        """Return the sum of each row, and the number of the call."""
        self.calls += 1
        return [sum(row) for row in rows], self.calls


class AsyncModel:
    """Predict in an event loop."""

    async def predict(self, rows):
        """Return the sum of each row."""
        await asyncio.sleep(1)
        return [sum(row) for row in rows]


class Handler:
    """Handle batches, as a server of models calls it."""

    def __init__(self):
        self.weight = None

    def initialize(self, context):
        """Load the weights."""
        assert context.system_properties["model_dir"]
        context.metrics.add_time("load", 1)
        self.weight = 2

    def handle(self, data, context):
        """Return one answer for each row."""
        return [self.weight * row["body"]["x"] for row in data]


class Steps(Handler):
    """Handle batches in three steps."""

    handle = None

    def preprocess(self, data):
        """Return the rows."""
        return [row["body"]["x"] for row in data]

    def inference(self, rows):
        """Return the predictions."""
        return [self.weight * row for row in rows]

    def postprocess(self, rows):
        """Return the answers."""
        return rows


def handle_batch(data, context):
    """Handle batches in a function."""
    return [2 * row["body"]["x"] for row in data]


@pytest.mark.parametrize(
    ("app", "request_", "value"),
    [
        (Model(), [[1, 2]], ([3], 1)),
        (AsyncModel(), [[1, 2]], [3]),
        (Handler(), {"x": 3}, 6),
        (Steps(), {"x": 3}, 6),
        (handle_batch, {"x": 3}, 6),
        (handle_batch, {"body": {"x": 3}}, 6),
    ],
)
def test_a_model_is_served_by_its_methods(served, app, request_, value):
    """Objects with predict or handle, and a function of a batch and a context."""
    with served(app) as (service, _):
        (reply,) = service.drive([request_]).replies
    assert (reply.value, reply.error) == (value, None)


def test_a_patched_method_is_met_and_the_golden_run_has_a_fresh_model(served):
    """The state of the model is that of its start."""
    fault = create("call_failure", target="tests.test_serving_callables:Model.predict", at=1)
    with served(Model(), fault) as (service, _):
        load = service.drive([[[1]], [[2]], [[3]]])
        assert [reply.ok for reply in load.replies] == [True, False, True]
        with pytest.raises(AssertionError, match="request 2"):
            load.assert_isolated()  # the count of calls differs
        load.assert_isolated(by=lambda reply: reply.value and reply.value[0])


def test_a_handler_that_returns_a_wrong_number_of_answers_fails(served):
    """A server of models refuses that, too."""
    with served(lambda data, context: []) as (service, _):
        (reply,) = service.drive([{"x": 1}]).replies
    assert "must return a list of one answer" in str(reply.error)


class NoWeights(Handler):
    """Cannot be initialized."""

    def initialize(self, context):
        """Fail."""
        raise OSError("no weights")


@pytest.mark.parametrize(
    ("app", "error", "message"),
    [
        (Model, BadArgument, "must be an instance, got the class Model, which has predict()"),
        (Handler, BadArgument, "got the class Handler, which has handle()"),
        (object(), BadArgument, "or an object with predict(request) or handle(data, context)"),
        (NoWeights(), ServiceFailed, "the app failed at start-up: OSError"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(served, app, error, message):
    """In one line."""
    with pytest.raises(error) as caught, served(app):
        pass
    assert message in str(caught.value)


# -- threads -----------------------------------------------------------------------------------------


def predict(number):
    """Take a while."""
    time.sleep(0.01)
    return number * 2


def scored(number):
    """Answer in the thread of the request."""
    time.sleep(0.002)
    try:
        return predict(number)
    except RuntimeError:
        return None


async def in_executor(number):
    """Answer in the loop's pool."""
    return await asyncio.get_running_loop().run_in_executor(None, scored, number)


async def in_thread(number):
    """Answer in a thread with the context of the request."""
    return await asyncio.to_thread(scored, number)


def endpoint():
    """Return an app with a plain function as its endpoint."""
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.get("/{number}")(lambda number: scored(int(number)))
    return app


@needs_proc
@pytest.mark.parametrize("make", [lambda: scored, lambda: in_executor, lambda: in_thread, endpoint])
def test_threads_of_a_load_are_the_same_each_time(served, make):
    """Their visits, strikes and latencies, at no real time."""
    fault = create("call_failure", target="tests.test_serving_callables:predict", p=0.3)
    requests = [f"/{number}" for number in range(12)] if make is endpoint else range(12)
    seen = []
    for _ in range(3):
        with served(make(), fault) as (service, controller):
            replies = service.drive(requests, concurrency=6).replies
            strikes = [(strike.visit, str(strike.details)) for strike in controller.journal]
            seen.append((strikes, [reply.latency for reply in replies]))
            assert not controller.clock.reason
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0]


@needs_proc
def test_a_delay_in_a_thread_takes_no_real_time(served):
    """Eight requests at once wait for one virtual hour."""

    def slow(number):
        time.sleep(3600)
        return number

    with served(slow) as (service, controller):
        replies = service.drive(range(8), concurrency=8).replies
        assert not controller.clock.reason
    assert [round(reply.latency) for reply in replies] == [3600] * 8


lock, stop = threading.Lock(), threading.Event()


@pytest.fixture
def blocked():
    """Let the threads end that a test has blocked."""
    stop.clear()
    with lock:
        yield
    stop.set()


def locked_out(number):
    """Never answer."""
    with lock:
        pass


def never_woken(number):
    """Never answer."""
    stop.wait()


async def never_woken_in_thread(number):
    """Never answer."""
    await asyncio.to_thread(never_woken, number)


@needs_proc
@pytest.mark.parametrize(
    ("app", "concurrency", "line"),
    [
        (never_woken, 1, "request 0 waits in never_woken"),
        (never_woken, 2, "request 1 waits in never_woken"),
        (locked_out, 2, "request 1 waits in locked_out"),
        (never_woken_in_thread, 1, "waits in never_woken ("),
    ],
)
def test_a_deadlock_in_a_thread_is_told_with_its_line(served, blocked, app, concurrency, line):
    """At once. The next trial is not disturbed by the thread."""
    with served(app) as (service, _), pytest.raises(NeverAnswered) as caught:
        service.drive([1, 2], concurrency=concurrency)
    assert line in str(caught.value)
    with served(scored) as (service, controller):
        assert [reply.value for reply in service.drive([1, 2], concurrency=2).replies] == [2, 4]
        assert not controller.clock.reason


@needs_proc
def test_turns_are_given_up_for_a_thread_that_waits_outside(served):
    """For example for a socket, whose other end is in a thread without a turn."""
    import socket

    def asks(number):
        here, there = socket.socketpair()
        with here, there:
            thread = threading.Thread(target=lambda: there.sendall(b"x"))
            thread.start()
            data = here.recv(1)
            thread.join()
        return data

    with served(asks) as (service, _):
        replies = service.drive(range(4), concurrency=4).replies
    assert [reply.value for reply in replies] == [b"x"] * 4

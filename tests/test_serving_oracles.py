"""The judgements of a load: each fails on an unsound app, and passes on its sound twin."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import sys
import time
import types

import pytest

from pytest_mlchaos import Load, Reply, assert_row_independent, assert_slo
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.errors import (
    BadArgument,
    Drifted,
    Inconclusive,
    NoFallback,
    NotIsolated,
    NotReleased,
    NotRowIndependent,
    NotShed,
    QueueGrows,
    SilentlyWrong,
    SloMissed,
    Unfair,
    WorkGoesOn,
)
from pytest_mlchaos.oracles.binomial import judge_share, requests_to_decide, share_of_at_most
from pytest_mlchaos.runs.gauges import _attribute_of
from tests.serving import serving_in


@pytest.fixture
def serving(tmp_path):
    """Serve an app in a trial of these faults, on the virtual clock."""
    return functools.partial(serving_in, tmp_path, clock="virtual")


@pytest.fixture
def store(monkeypatch):
    """A module ``a_store`` with the dependency ``get``, which takes 1 ms."""
    module = types.ModuleType("a_store")

    async def get(key):
        await asyncio.sleep(0.001)
        return key

    module.get = get
    monkeypatch.setitem(sys.modules, "a_store", module)
    return module


def failure(at=EVERY, **keywords):
    """A failure of the dependency."""
    return create("dependency_failure", target="a_store:get", at=at, **keywords)


def reply(number, latency=0.0, **keywords):
    """A reply that is made by hand."""
    return Reply(number=number, request=number, name="", latency=latency, **keywords)


# -- assert_slo: confidence, goodput, streams ------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 99, 100])
def test_share_of_at_most_equals_the_sum_of_the_binomial_distribution(count):
    """It is the distribution function."""
    from math import comb

    for p in (0.001, 0.01, 0.3, 0.99):
        exact = sum(comb(100, k) * p**k * (1 - p) ** (100 - k) for k in range(count + 1))
        assert share_of_at_most(count, 100, p) == pytest.approx(exact, rel=1e-9)


def test_judge_share_knows_the_numbers_of_the_textbooks():
    """299 requests without an exception show a p99 with 95 % confidence, 298 do not."""
    assert judge_share(0, 298, 0.01, 0.95) == "undecided"
    assert judge_share(0, 299, 0.01, 0.95) == "within"
    assert requests_to_decide(0, 50, 0.01, 0.95) == 299
    assert judge_share(20, 100, 0.01, 0.95) == "over"
    assert requests_to_decide(1, 100, 0.01, 0.95) is None


@pytest.mark.parametrize(
    ("slow", "count", "error"),
    [(0, 400, None), (0, 100, Inconclusive), (5, 400, Inconclusive), (40, 400, SloMissed)],
)
def test_slo_with_confidence_has_three_verdicts(slow, count, error):
    """These requests are a sample of all requests."""
    latencies = [2.0] * slow + [0.1] * (count - slow)
    if error is None:
        assert_slo(latencies, p99=1, confidence=0.95)
        return
    with pytest.raises(error) as caught:
        assert_slo(latencies, p99=1, confidence=0.95)
    assert ("About 299 would decide" in str(caught.value)) == (slow == 0)


def test_slo_of_errors_with_confidence_is_inconclusive_at_few_requests():
    """One of ten failed: the rate of all requests may be above or below 5 %."""
    with pytest.raises(Inconclusive, match=r"an error rate of at most 0.05: 1 of 10 failed"):
        assert_slo([0.1] * 10, errors=1, error_rate=0.05, confidence=0.95)
    with pytest.raises(Inconclusive, match=r"an availability of at least 0\.9"):
        assert_slo([0.1] * 10, errors=1, availability=0.9, confidence=0.95)


def test_goodput_counts_requests_within_all_bounds():
    """A slow one and a failed one are not good; the rate counts good ones a second."""
    replies = [reply(n, latency=3.0 if n == 0 else 0.5, start=n, ok=n != 1) for n in range(10)]
    load = Load(replies)
    load.assert_slo(p50=1, goodput=0.8)
    load.assert_slo(p50=1, goodput="0.8/s")
    with pytest.raises(SloMissed, match=r"the goodput is 0.8, expected at least 0.9 \(8 of 10"):
        load.assert_slo(p50=1, goodput=0.9)
    with pytest.raises(SloMissed, match=r"expected at least 2 a second"):
        load.assert_slo(p50=1, goodput=2)
    with pytest.raises(BadArgument, match="goodput= counts the requests that meet all bounds"):
        load.assert_slo(goodput=0.9)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"p99": 1, "confidence": 1}, "confidence must be a share between 0 and 1"),
        ({"p99": 1, "goodput": "fast"}, "goodput must be a share up to 1"),
        ({"ttft_p99": 1}, "ttft_p99 needs more than latencies"),
        ({"ttft_p9x": 1}, "unknown bound 'ttft_p9x' (did you mean 'ttft_p99'?)"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds, message):
    """Never a pass."""
    with pytest.raises(BadArgument) as caught:
        assert_slo([1], **bounds)
    assert message in str(caught.value)


def test_slo_of_streams_needs_replies_with_tokens():
    """A bound that limits nothing is refused."""
    with pytest.raises(BadArgument, match="none of these 1 replies has a body"):
        Load([reply(0)]).assert_slo(ttft_p99=1)


# -- assert_row_independent ------------------------------------------------------------------------


def test_rows_that_are_predicted_for_themselves_pass():
    """Lists, arrays, and a handler that is async."""
    np = pytest.importorskip("numpy")
    rows = np.arange(24.0).reshape(12, 2)

    async def later(batch):
        return [{"score": float(row.sum())} for row in batch]

    for handler in (lambda batch: batch @ np.ones(2), later):
        assert_row_independent(handler, rows)
    assert_row_independent(lambda batch: [len(text) for text in batch], ["a", "bc", ""])


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda batch: [x - max(batch) for x in batch], "row 0 predicts differently in a batch"),
        (lambda batch: [1 / x for x in batch], r"with row 3 than alone: the batch raises Zero"),
        (sorted, "row 0 predicts differently in a batch with row 1"),
        (lambda batch: batch[:2], "2 predictions for a batch of 5 rows"),
        (lambda batch: batch if len(batch) < 3 else [0] * len(batch), "No single one of them"),
    ],
)
def test_rows_that_change_each_other_are_found(handler, message):
    """Normalisation over the batch, a bad row, a wrong order, a lost row, and the batch's size."""
    with pytest.raises(NotRowIndependent, match=message):
        assert_row_independent(handler, [3.0, 1.0, 2.0, 0, 5.0])


def test_a_handler_that_draws_random_numbers_is_inconclusive():
    """It differs from itself."""
    with pytest.raises(Inconclusive, match="row 0 alone predicts differently when"):
        assert_row_independent(lambda batch: [random.random() for _ in batch], [1, 2])
    with pytest.raises(BadArgument, match="each row fails alone"):
        assert_row_independent(lambda batch: 1 / 0, [1, 2])


# -- right, the fallback, or an error --------------------------------------------------------------


def with_fallback(store, fallback):
    """An app that answers with ``fallback`` if the store fails."""

    async def app(x):
        try:
            return await store.get(x)
        except ConnectionError:
            return fallback(x)

    return app


def without_fallback(store):
    """An app that fails if the store fails."""

    async def app(x):
        return await store.get(x)

    return app


def test_a_reply_that_is_silently_wrong_is_found(serving, store):
    """A struck request may get an error or the fallback, not a different answer."""
    with serving(with_fallback(store, lambda x: -1), failure(at=1)) as service:
        load = service.drive([5, 6, 7])
        load.assert_no_silent_wrong(or_fallback=-1)
        with pytest.raises(SilentlyWrong, match=r"1 of 3 replies\n  request 1: .*a_store:get"):
            load.assert_no_silent_wrong()
    with serving(without_fallback(store), failure(at=1)) as service:
        service.drive([5, 6, 7]).assert_no_silent_wrong()


def test_silent_wrong_judges_nothing_without_a_strike(serving, store):
    """A load that no fault struck shows nothing."""
    with serving(without_fallback(store), failure(at=1)) as service:
        service.drive([5, 6, 7])
        with pytest.raises(BadArgument, match="no fault struck while these 1 requests"):
            service.drive([5]).assert_no_silent_wrong()


def test_a_fallback_without_need_is_found(serving, store):
    """An app that never asks again once the store has failed, and its twin."""
    failed = []

    async def stuck(x):
        try:
            if failed:
                return "fallback"
            return await store.get(x)
        except ConnectionError:
            failed.append(x)
            return "fallback"

    with serving(stuck, failure(at=1)) as service:
        load = service.drive([5, 6, 7])
        load.assert_fallback(value="fallback")
        with pytest.raises(NoFallback, match=r"without need: 1 of 2 replies\n  request 2"):
            load.assert_fallback(value="fallback", when="struck")
        load.assert_fallback(value="fallback", when=lambda reply: reply.number >= 1)
    with serving(with_fallback(store, lambda x: "fallback"), failure(at=1)) as service:
        load = service.drive([5, 6, 7])
        load.assert_fallback(value="fallback", when="struck")
        with pytest.raises(NoFallback, match="request 2: "):
            load.assert_fallback(value="fallback", when=lambda reply: reply.number >= 1)


def test_recovery_time_ends_with_the_first_right_reply(serving, store):
    """An app that asks again only after a second."""
    closed_until = [0.0]

    async def breaker(x):
        now = asyncio.get_running_loop().time()
        if now < closed_until[0]:
            return "fallback"
        try:
            return await store.get(x)
        except ConnectionError:
            closed_until[0] = now + 1
            return "fallback"

    with serving(breaker, failure(at=2)) as service:
        load = service.drive(range(20), rate=10)
        assert load.recovery_time == pytest.approx(1, abs=0.11)
        load.assert_recovered(within="1.2s", p99=1)
        assert load.golden.recovery_time is None


@pytest.mark.slow
def test_predictions_that_drift_are_found(serving, store):
    """A fallback for all is a drift, one for a few is not."""
    pytest.importorskip("numpy")
    for at, error in [(EVERY, Drifted), ((3, 9), None)]:
        with serving(with_fallback(store, lambda x: 0.0), failure(at=at)) as service:
            load = service.drive([float(number) for number in range(60)])
            with pytest.raises(error) if error else contextlib.nullcontext():
                load.assert_no_drift()


def test_a_fault_that_hits_one_group_is_unfair(serving, store):
    """A fallback is a wrong answer of the group whose requests get it."""
    pytest.importorskip("scipy")
    hit = failure(at=range(1, 60, 2))
    with serving(with_fallback(store, lambda x: -1.0), hit) as service:
        load = service.drive([float(number) for number in range(60)])
        with pytest.raises(Unfair, match="for 'even'"):
            load.assert_no_bias_amplification(groups=["odd", "even"] * 30, at_most=0.3)
        halves = ["first", "first", "second", "second"] * 15
        load.assert_no_bias_amplification(groups=halves, at_most=0.4)


# -- overload --------------------------------------------------------------------------------------


def served_by(places, *, at_most=None):
    """An app with some workers that take 100 ms, which refuses a request if too many are in it."""
    workers, inside = asyncio.Semaphore(places), [0]

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        status = 200
        if at_most is not None and inside[0] >= at_most:
            status = 503
        else:
            inside[0] += 1
            async with workers:
                await asyncio.sleep(0.1)
            inside[0] -= 1
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    return app


@pytest.mark.slow
def test_an_app_that_lets_requests_wait_does_not_shed_load(serving):
    """Its twin refuses what it cannot serve."""
    pytest.importorskip("httpx")
    with serving(served_by(2)) as service:
        few, load = service.drive(["/"] * 24, rate=40), service.drive(["/"] * 100, rate=80)
        for judge in (few.assert_sheds_load, few.assert_bounded_queue):
            with pytest.raises(Inconclusive, match="which may be chance"):
                judge()
        with pytest.raises(NotShed, match=r"none of 100 requests was refused\n  the number of"):
            load.assert_sheds_load()
        with pytest.raises(QueueGrows, match="in the app grew from quarter to quarter"):
            load.assert_bounded_queue()
        with pytest.raises(QueueGrows, match=r"more than 4. The first too many is request \d+"):
            load.assert_bounded_queue(at_most=4)
    with serving(served_by(2, at_most=4)) as service:
        load = service.drive(["/"] * 60, rate=40)
        load.assert_sheds_load(within="10ms", p99="250ms")
        load.assert_bounded_queue(at_most=4)
        load.assert_bounded_queue()
        with pytest.raises(NotShed, match="p99 is"):
            load.assert_sheds_load(p99="150ms")


def test_a_refusal_that_comes_late_is_found(serving):
    """The client waits for nothing."""

    async def app(x):
        await asyncio.sleep(0.1 if x % 2 else 0.5)
        return 1 / (x % 2)

    with (
        serving(app) as service,
        pytest.raises(NotShed, match="request 0 was refused after 500 ms"),
    ):
        service.drive(range(8)).assert_sheds_load()


def test_an_app_that_is_not_overloaded_shows_no_shedding():
    """Never a pass."""
    load = Load([reply(number, latency=0.1, start=number) for number in range(20)])
    load.assert_bounded_queue()
    load.assert_bounded_queue(at_most=1)
    with pytest.raises(BadArgument, match="so it was not overloaded"):
        load.assert_sheds_load()
    with pytest.raises(BadArgument, match="1 requests show no trend"):
        Load([reply(0)]).assert_bounded_queue()


# -- work for a client that has left ---------------------------------------------------------------


class Generator:
    """An ASGI app that streams 40 tokens, one each 20 ms, and notices a client that leaves, or not."""

    def __init__(self, *, notices, in_task=False):
        self.notices = notices
        self.in_task = in_task

    async def tokens(self, gone):
        for number in range(40):
            if gone.is_set():
                return
            await asyncio.sleep(0.02)
            yield b"%d " % number

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        gone = asyncio.Event()

        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        watching = asyncio.create_task(watch()) if self.notices else None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.in_task:
            await self.passed_on(gone, send)
        else:
            async for token in self.tokens(gone):
                await send({"type": "http.response.body", "body": token, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        if watching is not None:
            watching.cancel()

    async def passed_on(self, gone, send):
        """Let a task of its own make the tokens."""
        queue = asyncio.Queue()

        async def make():
            async for token in self.tokens(gone):
                queue.put_nowait(token)
            queue.put_nowait(None)

        self.making = asyncio.create_task(make())
        while (token := await queue.get()) is not None:
            await send({"type": "http.response.body", "body": token, "more_body": True})


def leaving(**keywords):
    """A client that leaves after three chunks."""
    return create("client_disconnect", **{"after": 3, "at": 1, **keywords})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "in_task", "message"),
    [
        ("receive", False, r"request 1 .*: its call went on for 7\d\d ms"),
        ("receive", True, r"request 1 .*: its call went on for 7\d\d ms"),
        ("send", True, r"request 1 .*: its task .*make went on for 7\d\d ms"),
    ],
)
def test_work_that_goes_on_for_nobody_is_found(serving, how, in_task, message):
    """The app's own call, or a task that it has started. The twin stops."""
    pytest.importorskip("httpx")
    with serving(Generator(notices=False, in_task=in_task), leaving(how=how)) as service:
        load = service.drive(["/"] * 3)
        with pytest.raises(WorkGoesOn, match=message):
            load.assert_work_stops(within="100ms")
        load.assert_work_stops()
    with serving(Generator(notices=True, in_task=in_task), leaving(how=how)) as service:
        service.drive(["/"] * 3).assert_work_stops(within="100ms")


def test_work_for_a_client_without_patience_is_judged_without_faults(serving):
    """Each client leaves, in the golden run as well."""
    pytest.importorskip("httpx")

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await asyncio.sleep(3)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"late"})

    with serving(app) as service:
        load = service.drive(["/"] * 3, patience="1s")
        load.assert_work_stops(within="2500ms")
        with pytest.raises(WorkGoesOn, match="its call went on for 2 s"):
            load.assert_work_stops()


def test_work_is_not_judged_if_no_client_left(serving):
    """Never a pass."""
    with pytest.raises(BadArgument, match="no client left before it had its reply"):
        Load([reply(0)]).assert_work_stops()


@pytest.mark.slow
def test_a_worker_for_all_requests_is_not_the_work_of_the_first(serving):
    """It is started when the first request comes, whose client leaves."""
    pytest.importorskip("httpx")
    worker = []

    async def work(queue):
        while True:
            answer = await queue.get()
            await asyncio.sleep(0.01)
            answer.set_result(b"ok")

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        if not worker:
            queue = asyncio.Queue()
            worker[:] = [queue, asyncio.create_task(work(queue))]
        answer = asyncio.get_running_loop().create_future()
        worker[0].put_nowait(answer)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": await answer})

    with serving(app, leaving(after=0, at=0)) as service:
        service.drive(["/"] * 3).assert_work_stops(within="20ms")


# -- counted calls: circuit breakers, and work of shared workers -----------------------------------

BREAKER = """
    import asyncio
    import time

    class Store:
        async def get(self, key):
            await asyncio.sleep(0.01)
            return key

    store = Store()

    class Breaker:
        def __init__(self, opens, closes=True):
            self.opens, self.closes, self.failures, self.until = opens, closes, 0, 0.0

        async def __call__(self, key):
            if self.opens and self.failures >= 3 and (time.monotonic() < self.until or not self.closes):
                return "fallback"
            try:
                value = await store.get(key)
            except ConnectionError:
                self.failures += 1
                self.until = time.monotonic() + 1
                return "fallback"
            self.failures = 0
            return value
"""


@pytest.mark.slow
def test_a_circuit_must_open_and_close_again(example):
    """By the calls of the target, of which there are none while it is open."""
    tests = """
        import breaker, pytest

        @pytest.mark.parametrize("how", [(True,), (False,), (True, False)])
        @chaos.dependency_failure(target="breaker:Store.get", at=range(2, 7))
        def test_it(mlchaos, how):
            load = mlchaos.serve(breaker.Breaker(*how)).drive(range(60), rate=10)
            load.assert_circuit_opens("breaker:Store.get", after=3, within="1500ms")

        @chaos.dependency_failure(target="breaker:Store.get", at=2)
        def test_once(mlchaos):
            load = mlchaos.serve(breaker.Breaker(True)).drive(range(60), rate=10)
            load.assert_circuit_opens("breaker:Store.get", after=3)
    """
    outcome = example.with_file("breaker.py", BREAKER).with_tests(tests).run(passed=1, failed=3)
    outcome.has("the circuit stays closed: breaker:Store.get is still called after 3 failures")
    outcome.has("the circuit did not close again 1.5 s after the last fault")
    outcome.has("breaker:Store.get never failed 3 times in a row before a further request")


ENGINE = """
    import asyncio

    class Model:
        async def step(self, sequences):
            await asyncio.sleep(0.02)

    model = Model()

    class App:
        def __init__(self, aborts):
            self.aborts, self.sequences, self.engine = aborts, {}, None

        async def run(self):
            while self.sequences:
                await model.step(list(self.sequences))
                for number, (left, queue) in list(self.sequences.items()):
                    queue.put_nowait(left)
                    self.sequences[number] = (left - 1, queue)
                    if not left:
                        del self.sequences[number]
            self.engine = None

        async def __call__(self, scope, receive, send):
            if scope["type"] != "http":
                return
            queue = asyncio.Queue()
            self.sequences[id(queue)] = (30, queue)
            if self.engine is None:
                self.engine = asyncio.create_task(self.run())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            left = 1
            try:
                while left:
                    left = await queue.get()
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            finally:
                if self.aborts:
                    self.sequences.pop(id(queue), None)
            await send({"type": "http.response.body", "body": b""})
"""


@pytest.mark.slow
def test_a_shared_engine_must_stop_for_a_client_that_has_left(example):
    """It belongs to no request, so the calls of its model are judged."""
    pytest.importorskip("httpx")
    tests = """
        import engine, pytest

        @pytest.mark.parametrize("aborts", [True, False])
        @chaos.client_disconnect(how="send", after=3)
        def test_it(mlchaos, aborts):
            load = mlchaos.serve(engine.App(aborts)).drive(["/a", "/b"])
            load.assert_work_stops(within="100ms", of="engine:Model.step")
    """
    outcome = example.with_file("engine.py", ENGINE).with_tests(tests).run(passed=1, failed=1)
    outcome.has("engine:Model.step was called", "times more while no request was in the app")


# -- leaks -----------------------------------------------------------------------------------------


class TokenServer:
    """An app with two slots and a cache of running sequences. A client that leaves may leave these
    behind: ``leaks`` names what.
    """

    def __init__(self, leaks):
        self.leaks = leaks
        self.slots = asyncio.Semaphore(2)
        self.sequences, self.seen, self.served, self.running = {}, set(), 0, 0
        self.free, self.tokens = 4, 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        await self.slots.acquire()
        self.seen.add(scope["path"])  # it warms up
        key = object()
        self.sequences[key], self.running, self.free = [], self.running + 1, self.free - 1
        wait = asyncio.get_running_loop().create_future()
        watcher = asyncio.create_task(asyncio.wait([wait]))
        self.seen.add(watcher)
        sent, made = False, 0
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(4):
                self.tokens, made = self.tokens + 1, made + 1
                await asyncio.sleep(0.01)
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            sent = True
        finally:
            if sent or self.leaks != "slots":
                self.slots.release()
            if sent or self.leaks != "sequences":
                self.sequences.pop(key)
            if sent or self.leaks != "running":
                self.running -= 1
            if sent or self.leaks != "free":
                self.free += 1
            if sent or self.leaks != "tokens":
                self.tokens -= made
            if sent or self.leaks != "task":
                watcher.cancel()
            self.served += 1


@pytest.mark.parametrize(
    ("leaks", "message"),
    [
        ("slots", r"app.slots: 1 of 2 not released"),
        ("sequences", r"app.sequences: entries 1 instead of 0"),
        ("running", r"app.running: its value 1 instead of 0"),
        ("free", r"app.free: its value 3 instead of 4"),
        ("tokens", r"app.tokens: its value [23] instead of 0"),
        ("task", r"1 task wait, which waits in"),
        ("nothing", None),
    ],
)
def test_what_a_client_that_left_leaves_behind_is_found(serving, leaks, message):
    """Slots, entries, counts and tasks. What warms up, or only grows, does not leak.

    A number that does not count requests may be needed.
    """
    pytest.importorskip("httpx")
    with serving(TokenServer(leaks), leaving(how="send", after=2)) as service:
        load = service.drive(["/a", "/b", "/c"])
        if message is None:
            load.assert_no_leak()
            return
        doubtful = leaks == "tokens"
        with pytest.raises(Inconclusive if doubtful else NotReleased, match=message):
            load.assert_no_leak()
        load.assert_no_leak(ignore=leaks if leaks != "task" else "wait")


def test_one_more_connection_may_be_one_that_was_opened_again(serving, store):
    """One strike shows no growth, three do. The twin closes it."""
    kept = []

    def app_of(closes):
        async def app(x):
            try:
                return await store.get(x)
            except ConnectionError:
                one = socket.socket()
                kept.append(one)
                if closes:
                    one.close()
                return None

        return app

    for at, closes, error in [
        (1, False, Inconclusive),
        ((1, 2, 3), False, NotReleased),
        (1, True, None),
    ]:
        with serving(app_of(closes), failure(at=at)) as service:
            load = service.drive(range(6))
            with pytest.raises(error, match=r"[13] socket") if error else contextlib.nullcontext():
                load.assert_no_leak()
        while kept:
            kept.pop().close()


def test_the_globals_of_a_large_project_hide_no_leak(serving, monkeypatch):
    """Look at what the app holds first."""
    pytest.importorskip("httpx")
    for number in range(6_000):
        monkeypatch.setitem(globals(), f"constant_{number}", [number])
    with serving(TokenServer("slots"), leaving(how="send", after=2)) as service:
        load = service.drive(["/a", "/b", "/c"])
        with pytest.raises(NotReleased, match=r"app.slots: 1 of 2 not released"):
            load.assert_no_leak()


@pytest.mark.parametrize("sound", [True, False])
def test_a_wsgi_app_that_keeps_an_entry_is_found(serving, sound):
    """Its containers are read while it sleeps."""
    pytest.importorskip("httpx")
    running = {}

    def app(environ, start_response):
        def body():
            key = object()
            running[key] = True
            try:
                for _ in range(5):
                    time.sleep(0.01)
                    yield b"x"
                running.pop(key)
            finally:
                if sound:
                    running.pop(key, None)

        start_response("200 OK", [("content-type", "text/plain")])
        return body()

    with serving(app, leaving(after=2)) as service:
        load = service.drive(["/"] * 3)
        expected = pytest.raises(NotReleased, match=r"app.running: entries 1 instead of 0")
        with contextlib.nullcontext() if sound else expected:
            load.assert_no_leak()


def test_an_entry_that_a_failure_leaves_may_be_for_a_later_attempt(serving, store):
    """One shows no growth, one for each strike does."""

    def app_of():
        pending = {}

        async def app(x):
            pending[x] = True
            try:
                value = await store.get(x)
            except ConnectionError:
                return "later"
            del pending[x]
            return value

        return app

    for at, error in [(1, Inconclusive), ((1, 3), NotReleased)]:
        with serving(app_of(), failure(at=at)) as service:
            load = service.drive(range(6))
            with pytest.raises(error, match=r"app.pending: entries [12] instead of 0"):
                load.assert_no_leak()


def test_a_leak_needs_a_strike_or_enough_requests(serving, store):
    """Never a pass."""
    with serving(without_fallback(store), failure(at=1)) as service:
        service.drive([0, 1])
        with pytest.raises(BadArgument, match="no fault struck while these 2 requests"):
            service.drive([0, 1]).assert_no_leak()


# -- companions and tenants ------------------------------------------------------------------------


class Scored:
    """An ASGI app with ``/score`` and ``/health``, which a failure of the store may harm."""

    def __init__(self, store, bug):
        self.store, self.bug = store, bug
        self.failed = False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        status = 200
        if scope["path"] == "/health":
            status = 500 if self.failed else 200
        else:
            try:
                await self.store.get(1)
            except ConnectionError:
                status = 503
                if self.bug == "blocks":
                    time.sleep(3)
                self.failed = self.bug == "dies"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("dies", r"[1-9] of 8 companions\n  companion \d \(GET /\S+\): status 500 instead of"),
        ("blocks", r"miss their bounds, over 8 replies:\n  max is 3 s"),
        (None, None),
    ],
)
def test_a_health_endpoint_must_survive_a_fault(serving, store, bug, message):
    """Before, during and after the load, and in time."""
    pytest.importorskip("httpx")
    with serving(Scored(store, bug), failure(at=1)) as service:
        load = service.drive(["/score"] * 6, companions=["/health"])
        assert (len(load.replies), len(load.companions)) == (6, 8)
        load.assert_slo(error_rate=0.17)
        with pytest.raises(NotIsolated, match=message) if bug else contextlib.nullcontext():
            load.assert_companions(max="100ms")
        if bug == "dies":
            with pytest.raises(NotIsolated, match="companion"):
                load.assert_isolated()


def test_companions_are_not_struck_and_do_not_count(serving, store):
    """The fault counts the requests of the load alone. A load without companions is refused."""
    with serving(store.get, create("latency_spike", delay=2, at=0)) as service:
        load = service.drive([1, 2], companions=[7])
        assert [len(reply.faults) for reply in (*load.replies, *load.companions)] == [1, *[0] * 5]
        assert [reply.value for reply in load.companions] == [7] * 4
        load.assert_companions(max="100ms")
        with pytest.raises(BadArgument, match="the load has no companions"):
            service.drive([1]).assert_companions()
    with serving(len) as service, pytest.raises(BadArgument, match="companions= needs an app"):
        service.drive(["a"], companions=["b"])


def test_only_the_tenant_that_was_struck_may_suffer(serving, store):
    """Its other requests are excused, those of others are not."""
    down = set()

    async def app(request):
        tenant, shared = request
        try:
            await store.get(1)
        except ConnectionError:
            down.add("all" if shared else tenant)
        return "fallback" if down & {tenant, "all"} else "score"

    for shared in (False, True):
        with serving(app, failure(at=1)) as service:
            load = service.drive([(tenant, shared) for tenant in "abab"])
            with pytest.raises(NotIsolated):
                load.assert_isolated()
            with pytest.raises(NotIsolated) if shared else contextlib.nullcontext():
                load.assert_isolated(tenant=lambda reply: reply.request[0])
        down.clear()


class Slotted:
    """Counts without a dict."""

    __slots__ = ("count",)

    def __init__(self):
        self.count = 0


def test_the_numbers_of_an_instance_with_slots_are_read():
    """It has no dict."""
    held = Slotted()
    read = _attribute_of(held, "count")
    held.count = 3
    assert read() == 3
    del held.count
    assert read() == -1

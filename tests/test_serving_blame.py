"""To which request a strike is put down, what a golden load is, and how an app that never answers
is found. Torch-free.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import queue
import sys
import threading
import time
import types
import uuid
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest

from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.replies import Suspicion
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import (
    BadArgument,
    GoldenRunFailed,
    Inconclusive,
    NeverAnswered,
    NoFallback,
    NotIsolated,
    NotRecovered,
)
from pytest_mlchaos.plugin.fixture import Mlchaos
from pytest_mlchaos.serving import patience
from tests.serving import serving_in

TEXTS = ["a", "bb", "ccc", "dddd", "eeeee"]
LENGTHS = [1, 2, 3, 4, 5]


@pytest.fixture
def serving(tmp_path):
    """Serve an app in a trial of these faults."""
    return functools.partial(serving_in, tmp_path)


@pytest.fixture
def virtual(tmp_path):
    """Serve an app in a trial of these faults, on the virtual clock."""

    def serve(app, *schedule):
        return trial(Schedule(schedule), Patches(), clock="virtual"), lambda: Mlchaos(
            tmp_path
        ).serve(app)

    return serve


@pytest.fixture
def model(monkeypatch):
    """A module ``a_model`` with ``predict`` (a text's length) and ``encode`` (those of a batch)."""
    module = types.ModuleType("a_model")
    module.predict = lambda text: len(text)
    module.encode = lambda batch: [len(text) for text in batch]
    monkeypatch.setitem(sys.modules, "a_model", module)
    return module


def failure(name="predict", at=2):
    """A failure of the model."""
    return create("dependency_failure", target=f"a_model:{name}", at=at)


def fails(reply):
    """Return True if a reply is the injected failure, alone or in a group."""
    return "ConnectionError" in repr(reply.error)


# -- work in threads -------------------------------------------------------------------------------


async def in_executor(model, text):
    """A pool of its own."""
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, model.predict, text)


async def in_thread(model, text):
    """The loop's pool."""
    return await asyncio.to_thread(model.predict, text)


async def in_a_group(model, text):
    """A task of a group."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(in_thread(model, text))
    return task.result()


async def gathered(model, text):
    """One of two tasks."""
    return (await asyncio.gather(in_thread(model, text), asyncio.sleep(0)))[0]


async def waited_for(model, text):
    """A task with a time-out."""
    return await asyncio.wait_for(in_executor(model, text), 60)


def submitted(model, text):
    """A future's result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(model.predict, text).result()


def mapped(model, text):
    """A pool's map."""
    with ThreadPoolExecutor(1) as pool:
        return next(iter(pool.map(model.predict, [text])))


def in_a_pool_of_multiprocessing(model, text):
    """Threads of multiprocessing."""
    with ThreadPool(1) as pool:
        return pool.map(model.predict, [text])[0]


def in_a_bare_thread(model, text):
    """A thread without a pool."""
    found = []
    thread = threading.Thread(target=lambda: found.append(_outcome(model, text)))
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _outcome(model, text):
    try:
        return model.predict(text)
    except ConnectionError as error:
        return error


async def by_anyio(model, text):
    """AnyIO's threads."""
    anyio = pytest.importorskip("anyio")
    return await anyio.to_thread.run_sync(model.predict, text)


async def by_anyios_group(model, text):
    """A task of AnyIO's group."""
    anyio = pytest.importorskip("anyio")
    found = []

    async def one():
        found.append(await by_anyio(model, text))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
    return found[0]


WAYS = [
    in_executor,
    in_thread,
    in_a_group,
    gathered,
    waited_for,
    submitted,
    mapped,
    in_a_pool_of_multiprocessing,
    by_anyio,
    by_anyios_group,
]


def of(handler, model):
    """The handler as an app."""
    if asyncio.iscoroutinefunction(handler):

        async def app(text):
            return await handler(model, text)

        return app
    return functools.partial(handler, model)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("handler", WAYS)
def test_a_strike_in_a_pools_thread_belongs_to_the_request_that_submitted(
    serving, model, handler, concurrency
):
    """Whatever way leads there, and however many are in flight; so the wrong fallback is found."""
    with serving(of(handler, model), failure()) as service:
        load = service.drive(TEXTS, concurrency=concurrency)
        [struck] = [reply for reply in load.replies if reply.faults]
        assert fails(struck)
        assert not any(reply.suspicions for reply in load.replies)
        load.assert_isolated()
        load.assert_fallback(fails)
        with pytest.raises(NoFallback):
            load.assert_fallback(value="another")


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_strike_in_a_thread_that_nothing_tells_of_may_be_any_requests_in_flight(
    serving, model, concurrency
):
    """The one that was hit is told by its reply."""
    with serving(functools.partial(in_a_bare_thread, model), failure()) as service:
        load = service.drive(TEXTS, concurrency=concurrency)
        load.assert_isolated()
        load.assert_fallback(fails)
        with pytest.raises(NoFallback):
            load.assert_fallback(value="another")


def test_of_the_users_context_nothing_is_carried_into_a_pool(serving, model):
    """That would hide a mistake."""
    import contextvars

    user = contextvars.ContextVar("user", default="unknown")

    def app(name):
        user.set(name)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(user.get).result()

    with serving(app) as service:
        assert [reply.value for reply in service.drive(["ann", "bob"]).replies] == [
            "unknown",
            "unknown",
        ]


# -- workers that serve several requests -----------------------------------------------------------


class Worker:
    """A task that the first request starts, and that answers all, one after the other."""

    def __init__(self, model):
        self.model, self.queue = model, None

    async def __call__(self, text):
        if self.queue is None:
            self.queue = asyncio.Queue()
            self.task = asyncio.create_task(self.work())
        future = asyncio.get_running_loop().create_future()
        await self.queue.put((text, future))
        return await future

    async def work(self):
        while True:
            text, future = await self.queue.get()
            found = _outcome(self.model, text)
            future.set_exception(found) if isinstance(found, Exception) else future.set_result(
                found
            )


class Batcher:
    """Texts that come within 5 ms are one batch; a timer starts its work."""

    def __init__(self, work):
        self.work, self.pending = work, []

    async def __call__(self, text):
        future = asyncio.get_running_loop().create_future()
        self.pending.append((text, future))
        if len(self.pending) == 1:
            asyncio.get_running_loop().call_later(0.005, self.flush)
        return await future

    def flush(self):
        batch, self.pending = self.pending, []
        try:
            for (_, future), found in zip(
                batch, self.work([text for text, _ in batch]), strict=True
            ):
                future.set_result(found)
        except ConnectionError as error:
            for _, future in batch:
                future.set_exception(error)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_strike_in_a_worker_is_not_put_down_to_the_request_that_started_it(
    serving, model, concurrency
):
    """One request in flight is the one; of several, as many may differ as there were strikes."""
    with serving(Worker(model), failure()) as service:
        load = service.drive(TEXTS, concurrency=concurrency)
        assert [reply.number for reply in load.replies if fails(reply)] == [2]
        assert [reply.number for reply in load.replies if reply.faults] == (
            [2] if concurrency == 1 else []
        )
        load.assert_isolated()
        load.assert_fallback(fails)
        with pytest.raises(NoFallback, match="request 2"):
            load.assert_fallback(value="another")


def test_a_strike_that_no_reply_shows_is_inconclusive(serving, model):
    """The worker has tried again: whose fallback is missing cannot be told."""

    class Retrying(Worker):
        async def work(self):
            while True:
                text, future = await self.queue.get()
                found = _outcome(self.model, text)
                future.set_result(
                    self.model.predict(text) if isinstance(found, Exception) else found
                )

    with serving(Retrying(model), failure()) as service:
        load = service.drive(TEXTS, concurrency=3)
        with pytest.raises(
            Inconclusive, match=r"one of requests 0–2: all of them equal the golden run's"
        ):
            load.assert_fallback(fails)
        load.assert_fallback(fails, or_golden=True)
        load.assert_isolated()


def test_work_that_a_batch_shares_is_inconclusive_until_the_test_says_so(serving, model):
    """One strike harms all of it: ``by="batch"``."""
    with serving(Batcher(lambda texts: model.encode(texts)), failure("encode", at=0)) as service:
        load = service.drive(TEXTS, concurrency=3)
        with pytest.raises(
            Inconclusive,
            match=r"more replies differ .*: 3\n(.*\n)+.*hit one of requests 0–2\n.*by='batch'",
        ):
            load.assert_isolated()
        load.assert_isolated(by="batch")
        with pytest.raises(BadArgument, match="by must be a function of a reply or 'batch'"):
            load.assert_isolated(by="bach")


def test_an_error_that_fails_the_others_of_a_batch_is_no_isolation(serving, model):
    """If each request has a call of its own, the strike belongs to one request."""
    with serving(
        Batcher(lambda texts: [model.predict(text) for text in texts]), failure(at=1)
    ) as service:
        load = service.drive(TEXTS, concurrency=3)
        with pytest.raises(NotIsolated, match=r"2 of 5 replies(.*\n)+.*hit one of requests 0–2"):
            load.assert_isolated()


def test_candidates_are_named_shortly():
    """Consecutive candidates are named as a range."""
    assert str(Suspicion(None, (2, 3, 4, 5))) == "one of requests 2–5"
    assert str(Suspicion(None, (2, 4))) == "one of requests 2, 4"
    assert str(Suspicion(None, (2,))) == "request 2"


# -- golden loads ----------------------------------------------------------------------------------


class Connection:
    """Answers lie in it until they are fetched; one that is not fetched is the next user's."""

    def __init__(self):
        self.answers = []

    async def get(self, user):
        self.answers.append(user)
        await asyncio.sleep(0)
        await sys.modules["a_store"].get(user)
        return self.answers.pop(0)


@pytest.fixture
def store(monkeypatch):
    """A module ``a_store`` whose ``get`` waits a moment."""
    module = types.ModuleType("a_store")

    async def get(key):
        await asyncio.sleep(0)
        return key

    module.get = get
    monkeypatch.setitem(sys.modules, "a_store", module)


CONNECTION = Connection()


def in_a_closure():
    """The connection is a variable of a function."""
    connection = Connection()

    async def app(user):
        return await connection.get(user)

    return app


class InAClass:
    connection = Connection()

    async def __call__(self, user):
        return await type(self).connection.get(user)


async def in_a_module(user):
    """The connection is a global."""
    return await CONNECTION.get(user)


@pytest.mark.slow
@pytest.mark.parametrize("make", [in_a_closure, InAClass, lambda: in_a_module])
def test_a_golden_load_finds_no_state_that_a_fault_has_left(serving, store, make):
    """Each request gets the answer of the user before, but not in the golden load."""
    with serving(make(), create("call_failure", target="a_store:get", at=1)) as service:
        load = service.drive(range(5))
        assert [reply.value for reply in load.replies if reply.ok] == [0, 1, 2, 3]
        with pytest.raises(
            NotIsolated,
            match=r"3 of 4 replies during which no fault struck\n  request 2: value: differs by 1",
        ):
            load.assert_isolated()
        assert [reply.value for reply in load.golden.replies] == [0, 1, 2, 3, 4]
    CONNECTION.answers.clear()
    InAClass.connection.answers.clear()


IDS = itertools.count()


def test_what_two_golden_loads_differ_in_is_not_judged(serving, model):
    """Times and request ids; the rest is."""

    def app(text):
        found = _outcome(model, text)
        return {
            "id": uuid.uuid4().hex,
            "number": next(IDS),
            "at": time.time(),
            "text": f"took {time.time_ns()} ns",
            "value": found == "?",
        }

    with serving(app, failure()) as service:
        load = service.drive(TEXTS)
        load.assert_isolated()
        load.assert_recovered(within=0, error_rate=0)


def test_a_reply_that_differs_in_what_golden_loads_have_in_common_is_found(serving, model):
    """And what was not judged is named."""
    poisoned = []

    def app(text):
        found = _outcome(model, text)
        poisoned.extend([found] if isinstance(found, Exception) else [])
        return {"id": uuid.uuid4().hex, "value": 0 if poisoned else found}

    with (
        serving(app, failure()) as service,
        pytest.raises(NotIsolated, match=r"value\['value'\]: differs") as caught,
    ):
        service.drive(TEXTS).assert_isolated()
    assert "not judged, because two golden loads differ there: value['id']" in str(caught.value)


def test_an_app_that_cannot_be_made_fresh_is_said_to_be_so(serving, model):
    """If replies from before any fault differ from the golden ones, no fault is blamed."""
    left = (number for number in range(100, 0, -1))  # which nothing puts back

    def app(text):
        model.predict(text)
        return next(left) > 95

    with (
        serving(app, failure(at=4)) as service,
        pytest.raises(Inconclusive, match="the app cannot be reset"),
    ):
        service.drive(TEXTS).assert_isolated()


def test_an_app_that_always_fails_is_isolated_from_nothing(serving):
    """Its golden load says so."""

    def app(text):
        raise RuntimeError("not ready")

    with (
        serving(app, create("latency_spike", delay=0.001, at=0)) as service,
        pytest.raises(
            GoldenRunFailed,
            match=r"all 5 requests of this load fail.*request 0: RuntimeError: not ready",
        ),
    ):
        service.drive(TEXTS).assert_isolated()


@pytest.mark.slow
def test_a_cache_that_one_trial_has_filled_is_empty_in_the_next(example):
    """Else the fault would strike in the first trial alone."""
    example.with_file(
        "cached.py",
        """
        import functools
        def compute(text): return len(text)
        @functools.lru_cache
        def length(text): return compute(text)
        known = {}
        class Store:
            seen = None
            def get(self, text):
                if self.seen != text:
                    known[text], type(self).seen = length(text), text
                return known[text]
        store = Store()
        def app(text): return store.get(text)
        """,
    ).with_tests(
        """
        import cached
        @chaos.dependency_failure(target="cached:compute", error="ValueError")
        def test_it(mlchaos):
            load = mlchaos.serve(cached.app).drive(["a", "a", "bb"])
            load.assert_isolated()
            load.assert_fallback(lambda reply: isinstance(reply.error, ValueError))
        """
    ).run(passed=1)


@pytest.mark.slow
def test_what_a_test_does_to_an_app_is_gone_in_the_next_one(example):
    """Tests are isolated as if each had its own process. A fixture's tear-down still sees the
    changes.
    """
    example.with_file("app.py", "broken = False\ndef get(): return 1\n").with_tests(
        """
        import app, pytest

        def handler(request):
            if app.broken:
                return 0
            try:
                return app.get()
            except ConnectionError:
                app.broken = True
                return 0

        @pytest.fixture
        def seen():
            yield
            assert app.broken

        @pytest.mark.parametrize("time", [1, 2])
        @chaos.dependency_failure(target="app:get", at=1)
        def test_it(mlchaos, seen, time):
            load = mlchaos.serve(handler).drive([1, 2, 3])
            assert [reply.value for reply in load.replies] == [1, 0, 0]
        """
    ).run(passed=2)


@pytest.mark.slow
def test_a_searched_fallback_that_no_strike_ever_meets_is_refused(example):
    """All strikes fall between the requests."""
    example.with_tests(
        """
        import json
        @chaos.call_failure(target="json:dumps")
        def test_it(mlchaos):
            service = mlchaos.serve(lambda request: request)
            load = service.drive([1, 2])
            try:
                json.dumps(1)
            except RuntimeError:
                pass
            load.assert_fallback(value="WRONG")
        """
    ).run(failed=1).has("assert_fallback judged nothing")


# -- recovery, and breakers ------------------------------------------------------------------------


class Breaker:
    """Open for three requests once two in a row have failed."""

    def __init__(self, model, stays_open=3):
        self.model, self.stays_open, self.failed, self.left = model, stays_open, 0, 0

    def __call__(self, text):
        if self.left:
            self.left -= 1
            return {"value": 0, "fallback": True}
        found = _outcome(self.model, text)
        if isinstance(found, Exception):
            self.failed += 1
            self.left = self.stays_open if self.failed == 2 else 0
            return {"value": 0, "fallback": True}
        return {"value": found, "fallback": False}


FALLBACK = {"value": 0, "fallback": True}


def test_a_breaker_that_is_open_is_excused_by_its_fallback(serving, model):
    """The verdict names that way out; time that it may take is limited."""
    with serving(Breaker(model), failure(at=[1, 2])) as service:
        load = service.drive(TEXTS * 2)
        with pytest.raises(
            NotIsolated,
            match=r"3 of 8 replies(.*\n)+.*assert_isolated\(or_fallback=\.\.\., within=\.\.\.\)",
        ):
            load.assert_isolated()
        load.assert_isolated(or_fallback=FALLBACK)
        load.assert_isolated(or_fallback=lambda reply: reply.value["fallback"], within="1h")
        with pytest.raises(NotIsolated):
            load.assert_isolated(or_fallback={"value": 1, "fallback": True})
        with pytest.raises(NotIsolated):
            load.assert_isolated(or_fallback=FALLBACK, within=0)
        with pytest.raises(BadArgument, match="within= limits or_fallback="):
            load.assert_isolated(within="1s")


def test_a_fallback_before_any_fault_is_not_excused(serving, model):
    """A strike is what it is given for."""
    warm = []

    def app(text):
        warm.append(text)
        return (
            FALLBACK
            if len(warm) % 4 == 2 and _outcome(model, text)
            else {"value": len(text), "fallback": False}
        )

    with serving(app, failure(at=1)) as service:
        load = service.drive(TEXTS * 2)
        load.assert_isolated(or_fallback=FALLBACK)


def test_an_app_that_stays_with_its_fallback_has_not_recovered(serving, model):
    """Unless the test judges the service level alone."""
    with serving(Breaker(model, stays_open=100), failure(at=[1, 2])) as service:
        load = service.drive(TEXTS * 2)
        with pytest.raises(
            NotRecovered,
            match=r"different from the golden run .* after the last fault: 7 of 7 replies",
        ):
            load.assert_recovered(within=0, error_rate=0)
        load.assert_recovered(within=0, error_rate=0, like_golden=False)
    with serving(Breaker(model, stays_open=0), failure(at=[1, 2])) as service:
        service.drive(TEXTS * 2).assert_recovered(within=0, error_rate=0)


# -- delays ----------------------------------------------------------------------------------------


def test_a_delay_that_is_given_up_is_seen_by_the_callee(virtual, monkeypatch):
    """It has begun, as with a slow network: its own clean-up runs."""
    module, seen = types.ModuleType("a_store"), []

    async def get(key):
        seen.append("begun")
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return key

    async def stream(key):
        yield await get(key)

    module.get, module.stream = get, stream
    monkeypatch.setitem(sys.modules, "a_store", module)

    async def app(name):
        called = getattr(module, name)
        try:
            async with asyncio.timeout(0.05):
                return await called(1) if name == "get" else [item async for item in called(1)]
        except TimeoutError:
            return "fallback"

    for name in ("get", "stream"):
        seen.clear()
        trials, serve = virtual(app, create("call_delay", target=f"a_store:{name}", delay=10, at=0))
        with trials:
            load = serve().drive([name, name])
        assert [reply.value for reply in load.replies] == ["fallback", 1 if name == "get" else [1]]
        assert seen == ["begun", "cancelled", "begun"]


def test_a_callees_own_time_out_sees_the_delay(virtual, monkeypatch):
    """And what it does then is its reply."""
    module = types.ModuleType("a_store")

    async def get(key):
        try:
            async with asyncio.timeout(0.05):
                return await asyncio.sleep(0.001, key)
        except TimeoutError:
            return "late"

    async def at_once(key):
        return key

    module.get, module.at_once = get, at_once
    monkeypatch.setitem(sys.modules, "a_store", module)

    async def app(name):
        return await getattr(module, name)(name)

    faults = [
        create("call_delay", target=f"a_store:{name}", delay=10, at=0)
        for name in ("get", "at_once")
    ]
    trials, serve = virtual(app, *faults)
    with trials:
        replies = serve().drive(["get", "at_once"]).replies
    assert replies[0].value == "late"
    assert (replies[1].value, round(replies[1].latency)) == ("at_once", 10)


# -- apps that never answer ------------------------------------------------------------------------


async def unanswered(_):
    """Wait for an event that never comes."""
    await asyncio.get_running_loop().create_future()


async def polling(_):
    """Looks for ever."""
    while True:
        await asyncio.sleep(1)


def polling_in_a_thread(_):
    """Looks for ever."""
    while True:
        time.sleep(1)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (
            unanswered,
            r"nothing is scheduled, and no thread(.*\n)+  request 0, which waits in unanswered \(.*test_serving_blame.py:\d+\)",
        ),
        (
            polling,
            r"waited 701 times in \d+ s of virtual time(.*\n)+  request 0, which waits in polling ",
        ),
        (polling_in_a_thread, r"waited 701 times in \d+ s of virtual time"),
    ],
)
def test_a_request_that_is_never_answered_ends_the_test_at_once(virtual, monkeypatch, app, message):
    """With the line where it waits."""
    monkeypatch.setattr(patience, "MIN_POLLING_WAITS", 700)
    trials, serve = virtual(app)
    with pytest.raises(NeverAnswered, match=message), trials:
        serve().drive([1])


@pytest.fixture
def library_loop():
    """An event loop in a thread of its own, such as libraries keep for their calls."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_an_idle_event_loop_of_a_library_hides_no_hang(virtual, library_loop):
    """Nothing but new work wakes it."""
    trials, serve = virtual(unanswered)
    with pytest.raises(NeverAnswered, match="nothing is scheduled"), trials:
        serve().drive([1])


@pytest.fixture
def idle_worker():
    """A worker of an earlier test, which waits for work in user code."""
    work = queue.Queue()

    def serve():
        while work.get() is not None:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield work
    work.put(None)
    thread.join()


@pytest.mark.slow
def test_work_that_an_earlier_trial_has_left_hides_no_hang(virtual):
    """It never ends, but it cannot answer a request of this trial."""
    release = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        trials, serve = virtual(lambda request: pool.submit(release.wait))
        with trials:
            serve().drive([1])
        trials, serve = virtual(unanswered)
        try:
            with pytest.raises(NeverAnswered, match="nothing is scheduled"), trials:
                serve().drive([1])
        finally:
            release.set()


@pytest.mark.skipif(sys.platform != "linux", reason="the system shows where threads wait")
def test_a_worker_that_waits_at_its_queue_hides_no_hang(virtual, idle_worker):
    """Only a different thread wakes it."""
    trials, serve = virtual(unanswered)
    with pytest.raises(NeverAnswered, match="nothing is scheduled"), trials:
        serve().drive([1])


def test_what_another_event_loop_has_scheduled_is_waited_for(virtual, library_loop):
    """It may answer."""

    async def app(request):
        answer, here = asyncio.Event(), asyncio.get_running_loop()
        library_loop.call_soon_threadsafe(
            library_loop.call_later, 0.05, here.call_soon_threadsafe, answer.set
        )
        await answer.wait()
        return request

    trials, serve = virtual(app)
    with trials:
        assert [reply.value for reply in serve().drive([1]).replies] == [1]


def test_work_in_a_thread_is_waited_for(serving):
    """A request that waits for it does not hang; nor does one after it, whose pool is idle."""

    async def app(seconds):
        await asyncio.to_thread(time.sleep, seconds)
        return seconds

    with serving(app) as service:
        assert [reply.value for reply in service.drive([0.05, 0, 0.01]).replies] == [0.05, 0, 0.01]


def test_a_long_wait_is_no_polling(virtual):
    """Hours on the virtual clock take no time."""

    async def app(hours):
        await asyncio.sleep(hours * 3600)
        return hours

    trials, serve = virtual(app, create("latency_spike", delay="2h", at=EVERY))
    with trials:
        assert [round(reply.latency / 3600) for reply in serve().drive([1, 2]).replies] == [3, 4]


# -- test clients that run an app in a thread ------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("client", ["as_context", "without_context", "of_a_fixture", "websocket"])
def test_an_apps_time_out_fires_behind_a_test_client(example, client):
    """Its event loop runs in a thread of the test, on the same clock.

    With a thread that was there before, time is real, and the report says so.
    """
    pytest.importorskip("fastapi")
    outcome = (
        example.with_file(
            "served.py",
            """
        import asyncio
        from fastapi import FastAPI, WebSocket

        app = FastAPI()

        async def dependency():
            await asyncio.sleep(0.001)
            return 1

        async def value():
            try:
                async with asyncio.timeout(0.05):
                    return {"value": await dependency()}
            except TimeoutError:
                return {"value": "fallback"}

        @app.get("/x")
        async def x():
            return await value()

        @app.websocket("/ws")
        async def ws(socket: WebSocket):
            await socket.accept()
            await socket.send_json(await value())
        """,
        )
        .with_tests(
            f"""
        import pytest
        from fastapi.testclient import TestClient
        from served import app

        @pytest.fixture
        def client():
            with TestClient(app) as client:
                yield client

        def as_context():
            with TestClient(app) as client:
                return client.get("/x").json()

        def without_context():
            return TestClient(app).get("/x").json()

        def websocket():
            with TestClient(app).websocket_connect("/ws") as socket:
                return socket.receive_json()

        @chaos.call_delay(target="served:dependency", delay="10s", at=0)
        def test_it({"client" if client == "of_a_fixture" else ""}):
            found = {'client.get("/x").json()' if client == "of_a_fixture" else f"{client}()"}
            assert found == {{"value": "fallback"}}
        """
        )
        .run(passed=1)
    )
    assert ("1 on the real clock" in outcome.text) == (client == "of_a_fixture")


# -- strikes between requests ----------------------------------------------------------------------


@pytest.fixture
def tokens(monkeypatch):
    """A module ``a_store`` whose ``refresh`` an app calls once a second."""
    module = types.ModuleType("a_store")

    async def refresh():
        return time.monotonic() + 1.5

    module.refresh = refresh
    monkeypatch.setitem(sys.modules, "a_store", module)
    return module


class Refreshing:
    """An ASGI app whose token a task refreshes. It answers 503 while the token is expired."""

    def __init__(self, store):
        self.store, self.expires, self.task = store, 0.0, None

    async def refresh(self):
        while True:
            with contextlib.suppress(ConnectionError):
                self.expires = await self.store.refresh()
            await asyncio.sleep(1)

    async def __call__(self, scope, receive, send):
        if self.task is None:
            self.task = asyncio.create_task(self.refresh())
            await asyncio.sleep(0.001)
        status = 200 if time.monotonic() < self.expires else 503
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_a_strike_between_requests_has_a_time(virtual, tokens):
    """The app may take the time to recover, and give its fallback."""
    trials, serve = virtual(
        Refreshing(tokens), create("dependency_failure", target="a_store:refresh", at=2)
    )
    with trials:
        load = serve().drive(["/"] * 20, rate=3.3)
        assert [reply.status for reply in load.replies if not reply.ok] == [503]
        load.assert_recovered(within="2s", error_rate=0)
        load.assert_isolated(or_fallback=503, within="2s")
        with pytest.raises(NotRecovered):
            load.assert_recovered(within="0s", error_rate=0)


def test_a_strike_in_start_up_has_a_time(virtual, tokens):
    """The app may take the time to recover."""
    app = Refreshing(tokens)

    @contextlib.asynccontextmanager
    async def lifespan():
        app.task = asyncio.create_task(app.refresh())
        await asyncio.sleep(0.001)
        yield

    async def asgi(scope, receive, send):
        if scope["type"] == "http":
            await app(scope, receive, send)
            return
        async with lifespan():
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    trials, serve = virtual(asgi, create("dependency_failure", target="a_store:refresh", at=0))
    with trials:
        load = serve().drive(["/"] * 9, rate=3)
        assert [reply.status for reply in load.replies if not reply.ok] == [503] * 3
        load.assert_recovered(within="2s", error_rate=0)


def test_a_worker_that_caught_an_error_goes_on(virtual, model):
    """It gives the error to the request, whose frames are freed. Its own are alive."""

    class Worker:
        def __init__(self):
            self.queue = None

        async def work(self):
            while True:
                text, future = await self.queue.get()
                try:
                    future.set_result(model.predict(text))
                except ConnectionError as error:
                    future.set_exception(error)

        async def __call__(self, scope, receive, send):
            if self.queue is None:
                self.queue = asyncio.Queue()
                self.task = asyncio.create_task(self.work())
            future = asyncio.get_running_loop().create_future()
            await self.queue.put((scope["path"], future))
            body = str(await future).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    trials, serve = virtual(Worker(), failure(at=0))
    with trials:
        load = serve().drive(["/a", "/bb"])
        assert [reply.status for reply in load.replies] == [500, 200]

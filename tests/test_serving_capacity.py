"""``mlchaos.capacity``: workers, queues and service times on the virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, NeverAnswered, TargetNotFound
from pytest_mlchaos.plugin.fixture import Mlchaos

faults.load()
sites.load()


@pytest.fixture
def trial_of(tmp_path):
    """Open a trial of these faults on the virtual clock."""

    @contextlib.contextmanager
    def opened(*schedule):
        with trial(Schedule(schedule), Patches(), clock="virtual"):
            yield Mlchaos(tmp_path)

    return opened


@pytest.fixture
def models(monkeypatch):
    """A module ``some_models`` of functions and a class to limit."""
    module = types.ModuleType("some_models")

    class Model:
        def __init__(self, size):
            self.size = size

        async def predict(self, x):
            return self.size * x

    async def predict(x):
        return 2 * x

    async def stream(x):
        for token in range(x):
            yield token
            await asyncio.sleep(0.1)

    module.Model, module.predict, module.stream = Model, predict, stream
    module.predict_sync = lambda x: 2 * x
    module.predict_later = lambda x: predict(x)
    monkeypatch.setitem(sys.modules, "some_models", module)
    return module


def ms(load):
    """The latencies in whole milliseconds."""
    return [round(1e3 * reply.latency) for reply in load.replies]


def rounded(waits):
    """Waits in whole milliseconds."""
    return [round(1e3 * wait) for wait in waits]


def test_calls_queue_for_the_workers_in_their_order(trial_of, models):
    """Two at a time, 20 ms each."""

    async def app(x):
        return await models.predict(x)

    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:predict")
        load = mlchaos.serve(app).drive(range(6), concurrency=6)
        assert [reply.value for reply in load.replies] == [0, 2, 4, 6, 8, 10]
        assert ms(load) == [20, 20, 40, 40, 60, 60]
        assert rounded(capacity.waits) == [0, 0, 20, 20, 40, 40]
        assert (capacity.calls, capacity.max_queue, capacity.refused) == (6, 4, 0)
        assert capacity.utilisation == pytest.approx(1, abs=0.01)


def test_a_golden_load_finds_idle_workers_and_the_same_random_numbers(trial_of, models):
    """Without a fault, its latencies are the same, and it does not count."""

    async def app(x):
        return await models.predict(x)

    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:predict", 1, "exponential(20ms)")
        load = mlchaos.serve(app).drive(range(5), concurrency=5)
        golden = load.golden
        assert ms(golden) == ms(load)
        assert len(set(ms(load))) == 5
        assert capacity.calls == 5


def test_a_full_queue_refuses_calls(trial_of, models):
    """With the error of the test's choice."""

    async def app(x):
        return await models.predict(x)

    for error, kind in (
        (ConnectionRefusedError, ConnectionRefusedError),
        ("asyncio:QueueFull", asyncio.QueueFull),
        (OSError("full"), OSError),
    ):
        with trial_of() as mlchaos:
            capacity = mlchaos.capacity("some_models:predict", 1, queue=1, error=error)
            load = mlchaos.serve(app).drive(range(4), concurrency=4)
            assert [type(reply.error) for reply in load.replies] == [*2 * [type(None)], kind, kind]
            assert (capacity.calls, capacity.refused, capacity.max_queue) == (4, 2, 1)


def test_a_caller_that_gives_up_leaves_the_queue_or_frees_its_worker(trial_of, models):
    """Those behind it move up."""

    async def app(x):
        async with asyncio.timeout(x):
            return await models.predict(x)

    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:predict", 1, "1s")
        load = mlchaos.serve(app).drive([0.5, 0.1, 9, 9], concurrency=4)
        assert [type(reply.error) for reply in load.replies] == [
            TimeoutError,
            TimeoutError,
            type(None),
            type(None),
        ]
        assert ms(load) == [500, 100, 1500, 2500]
        assert capacity.left == 1


def test_a_plain_function_blocks_the_event_loop(trial_of, models):
    """Let a second request wait, although a worker is free, as in production."""

    async def app(x):
        await asyncio.sleep(0)
        return models.predict_sync(x)

    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:predict_sync", 2)
        load = mlchaos.serve(app).drive(range(3), concurrency=3)
        assert ms(load) == [20, 40, 60]
        assert rounded(capacity.waits) == [0, 0, 0]


def test_a_function_that_returns_a_coroutine_does_not_block(trial_of, models):
    """The caller waits when it awaits the result."""

    async def app(x):
        return await models.predict_later(x)

    with trial_of() as mlchaos:
        mlchaos.capacity("some_models:predict_later", 2)
        assert ms(mlchaos.serve(app).drive(range(3), concurrency=3)) == [20, 20, 40]


def test_calls_in_threads_queue_too(trial_of, models):
    """On the virtual clock, which all threads share."""

    async def app(x):
        return await asyncio.to_thread(models.predict_sync, x)

    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:predict_sync", 2, "1h")
        load = mlchaos.serve(app).drive(range(4), concurrency=4)
        assert not mlchaos.clock.reason
        assert sorted(round(reply.latency) for reply in load.replies) == [3600, 3600, 7200, 7200]
        assert capacity.max_queue == 2


def test_a_slow_call_holds_its_worker(trial_of, models):
    """Delay the calls behind it."""

    async def app(x):
        return await models.predict(x)

    slow = create("call_delay", target="some_models:predict", delay=1.0, at=0)
    with trial_of(slow) as mlchaos:
        mlchaos.capacity("some_models:predict", 1)
        assert ms(mlchaos.serve(app).drive(range(2), concurrency=2)) == [1020, 1040]


def test_a_stream_holds_its_worker_until_it_ends(trial_of, models):
    """Also if its reader leaves early."""

    async def app(x):
        async with contextlib.aclosing(models.stream(x)) as items:
            return [item async for item in items if item < 5]

    with trial_of() as mlchaos:
        mlchaos.capacity("some_models:stream", 1)
        assert ms(mlchaos.serve(app).drive([2, 3], concurrency=2)) == [220, 540]


def test_service_times_depend_on_the_arguments(trial_of, models):
    """With or without the instance, and with random numbers."""

    async def app(x):
        return await models.Model(x).predict(x)

    for time in (
        lambda x: x / 10,
        lambda self, x: self.size / 10,
        lambda x, rng: f"uniform({rng.randint(x, x)}00ms, {x}00ms)",
    ):
        with trial_of() as mlchaos:
            mlchaos.capacity("some_models:Model.predict", 9, time)
            assert ms(mlchaos.serve(app).drive([1, 2, 3], concurrency=3)) == [100, 200, 300]


def test_a_nested_call_needs_no_worker_of_its_own(trial_of, models):
    """A function that splits its batch and calls itself would wait for itself."""

    async def predict(x):
        return x if x < 2 else sum([await models.predict(part) for part in (x // 2, x - x // 2)])

    async def app(x):
        return await models.predict(x)

    models.predict = predict
    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:predict", 1)
        load = mlchaos.serve(app).drive([8, 8])
        assert [reply.value for reply in load.replies] == [8, 8]
        assert capacity.calls == 2


def test_a_call_that_waits_for_its_own_thread_is_told(trial_of, models):
    """The thread can never free the worker that it waits for."""

    def numbers():
        yield 1

    models.numbers = numbers
    with trial_of() as mlchaos:
        capacity = mlchaos.capacity("some_models:numbers", 1)
        first, second = models.numbers(), models.numbers()
        next(first)
        with pytest.raises(NeverAnswered, match="its own thread holds all of them"):
            next(second)
        assert capacity.calls == 2


def test_a_capacity_that_nothing_uses_is_an_error(trial_of, models):
    """Unless the test has looked at it."""
    with (
        pytest.raises(BadArgument, match=r"nothing called 'some_models:predict'"),
        trial_of() as mlchaos,
    ):
        mlchaos.capacity("some_models:predict")
    with trial_of() as mlchaos:
        assert mlchaos.capacity("some_models:predict").calls == 0


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"workers": 0}, "workers must be 1 or more"),
        ({"queue": -1}, "queue must be 0 or more"),
        ({"service_time": "fast"}, r"service_time must be a duration such as '20ms', or a dist"),
        ({"service_time": "exponental(1s)"}, r"did you mean 'exponential'"),
        ({"service_time": "lognormal(1s)"}, r"must be lognormal\(mean, sigma\)"),
        ({"service_time": "pareto(1s, 1)"}, "shape must be above 1"),
        ({"service_time": "uniform(2s, 1s)"}, "most must be at least 2 s"),
        ({"service_time": -1}, "service_time must be a duration"),
        ({"error": 3}, "error must be an exception or its name"),
    ],
)
def test_wrong_arguments_are_refused(trial_of, models, given, text):
    """In one line."""
    with trial_of() as mlchaos, pytest.raises(BadArgument, match=text) as caught:
        mlchaos.capacity("some_models:predict", **given)
    assert "\n" not in str(caught.value)


def test_a_service_time_that_raises_ends_the_load(trial_of, models):
    """The app cannot swallow that mistake of the test."""

    async def app(x):
        with contextlib.suppress(Exception):
            return await models.predict(x)

    said = "service_time is a function that raised"
    with pytest.raises(BadArgument, match=said), trial_of() as mlchaos:
        mlchaos.capacity("some_models:predict", service_time=lambda y, z: 1)
        mlchaos.serve(app).drive([1])
    with trial_of() as mlchaos, pytest.raises(TargetNotFound):
        mlchaos.capacity("some_models:nothing")

"""``mlchaos.serve`` of plain callables, and the judgements on a load. Torch-free, and without
httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import importlib
import os
import sys
import threading
import types
from collections import Counter, deque

import pytest

from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.engine.user_code import Project, for_project
from pytest_mlchaos.errors import (
    BadArgument,
    CrashNotRestarted,
    CrashSwallowed,
    NoFallback,
    NotIsolated,
    NotRecovered,
    SimulatedCrash,
    SloMissed,
)
from pytest_mlchaos.plugin.fixture import Mlchaos
from pytest_mlchaos.runs.user_state import UserState
from tests.serving import serving_in

TICK = 0.02


@pytest.fixture
def serving(tmp_path):
    """Serve an app in a trial of these faults."""
    return functools.partial(serving_in, tmp_path)


@pytest.fixture
def store(monkeypatch):
    """A module ``a_store`` with the dependencies ``get`` (async), ``get_sync`` and ``get_later``
    (returns a coroutine).
    """
    module = types.ModuleType("a_store")

    async def get(key):
        await asyncio.sleep(0)
        return key

    module.get = get
    module.get_sync = lambda key: key
    module.get_later = lambda key: get(key)
    monkeypatch.setitem(sys.modules, "a_store", module)
    return module


def spike(target=None, delay=TICK, at=EVERY):
    """A latency spike."""
    return create("latency_spike", target=target and f"a_store:{target}", delay=delay, at=at)


def failure(target, at=EVERY):
    """A failure of a dependency."""
    return create("dependency_failure", target=f"a_store:{target}", at=at)


# -- driving ---------------------------------------------------------------------------------------


def doubled(x):
    """Twice as much."""
    return 2 * x


async def doubled_async(x):
    """Twice as much."""
    await asyncio.sleep(0)
    return 2 * x


@pytest.mark.parametrize("app", [doubled, doubled_async])
@pytest.mark.parametrize("how", [{}, {"concurrency": 3}, {"rate": 1000}])
def test_replies_come_in_the_order_of_the_requests(serving, app, how):
    """With values, latencies and starts, however they were sent."""
    with serving(app) as service:
        load = service.drive(range(5), **how)
    assert [(reply.number, reply.request, reply.value) for reply in load.replies] == [
        (n, n, 2 * n) for n in range(5)
    ]
    assert all(
        reply.ok and reply.latency >= 0 and reply.status is None and not reply.faults
        for reply in load.replies
    )
    assert all(reply.start >= 0 for reply in load.replies)
    assert (load.error_rate, load.availability) == (0, 1)


@pytest.mark.parametrize("how", [{}, {"concurrency": 3}])
def test_what_a_request_raises_is_its_reply(serving, how):
    """The load goes on; the error counts."""

    async def fragile(x):
        return 1 / x

    for app in (fragile, lambda x: 1 / x):
        with serving(app) as service:
            load = service.drive([1, 0, 2, 0], **how)
        assert [reply.ok for reply in load.replies] == [True, False, True, False]
        assert isinstance(load.replies[1].error, ZeroDivisionError)
        assert (load.error_rate, load.availability) == (0.5, 0.5)


def test_a_request_that_cancels_itself_is_a_failed_reply(serving):
    """It does not end the load."""

    async def cancelled(x):
        if x == 1:
            raise asyncio.CancelledError
        return x

    with serving(cancelled) as service:
        load = service.drive([0, 1, 2])
    assert [reply.ok for reply in load.replies] == [True, False, True]


def test_one_event_loop_serves_all_loads(serving):
    """Clients bind themselves to the loop that they were made in."""

    async def loop(_):
        return id(asyncio.get_running_loop())

    with serving(loop) as service:
        loads = [service.drive([0]) for _ in range(2)]
        assert len({load.replies[0].value for load in (*loads, loads[0].golden)}) == 1
        assert [load.replies[0].number for load in loads] == [0, 1]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("end", ["with", "close"])
def test_a_service_that_is_over_holds_no_event_loop(serving, tmp_path, end):
    """Nor its file descriptors; a golden run that is asked for afterwards gets a loop of its own,
    and frees it.
    """

    async def app(_):
        return asyncio.get_running_loop().is_closed()

    def open_files():
        return len(os.listdir("/proc/self/fd"))

    with serving(doubled):
        before = open_files()
        for _ in range(3):
            service = Mlchaos(tmp_path).serve(app)
            with service if end == "with" else contextlib.nullcontext():
                load = service.drive([0])
            service.close() if end == "close" else None
            assert open_files() == before
            assert load.golden.replies[0].value is False
            assert open_files() == before


def test_the_threads_own_event_loop_stays_set(serving):
    """A loop that a thread has set stays set while an app is served, and afterwards."""

    async def app(_):
        return id(asyncio.get_running_loop())

    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        with serving(app) as service:
            assert service.drive([0]).replies[0].value != id(mine)
            assert asyncio.get_event_loop() is mine
        assert asyncio.get_event_loop() is mine
    finally:
        asyncio.set_event_loop(None)
        mine.close()


def test_a_plain_function_runs_in_the_tests_own_thread(serving):
    """Without an event loop around it; in threads where several are in flight."""

    def thread(_):
        asyncio.run(asyncio.sleep(0))
        return threading.current_thread() is threading.main_thread()

    with serving(thread) as service:
        assert [reply.value for reply in service.drive([0, 1]).replies] == [True, True]
        assert [reply.value for reply in service.drive([0, 1], concurrency=2).replies] == [
            False,
            False,
        ]


@pytest.mark.parametrize("how", [{"concurrency": 3}, {"concurrency": 3, "rate": 100_000}])
def test_no_more_are_in_flight_than_asked_for(serving, how):
    """And as many as that."""
    flying, most = set(), []

    async def app(x):
        flying.add(x)
        await asyncio.sleep(0.002)
        most.append(len(flying))
        flying.remove(x)

    with serving(app) as service:
        service.drive(range(12), **how)
    assert max(most) == 3


def test_arrivals_at_a_rate_wait_for_nobody(serving):
    """An open loop: a slow reply delays no other; with a limit, waiting for a slot is latency."""

    async def slow(x):
        await asyncio.sleep(10 * TICK if x == 0 else 0)

    with serving(slow) as service:
        free = service.drive(range(4), rate=1 / TICK)
        limited = service.drive(range(4), rate=1 / TICK, concurrency=1)
    assert [round(reply.start / TICK, 6) for reply in free.replies] == [0, 1, 2, 3]
    assert free.replies[0].latency >= 10 * TICK
    assert all(reply.latency < 7 * TICK for reply in free.replies[1:])
    assert limited.replies[1].latency >= 8.9 * TICK


# -- faults, and to which request they belong ------------------------------------------------------


@pytest.mark.parametrize("app", [doubled, doubled_async])
def test_a_spike_without_a_target_slows_the_request_itself(serving, app):
    """It counts requests."""
    with serving(app, spike(at=1)) as service:
        load = service.drive([1, 2, 3])
    assert [[strike.site for strike in reply.faults] for reply in load.replies] == [
        [],
        ["serve.request"],
        [],
    ]
    assert load.replies[1].latency >= TICK


@pytest.mark.parametrize("name", ["get", "get_sync", "get_later"])
def test_a_spike_with_a_target_slows_its_calls(serving, store, name):
    """An async function, a plain one, and a plain one that returns something to be awaited."""

    async def app(x):
        value = getattr(store, name)(x)
        return await value if asyncio.iscoroutine(value) else value

    with serving(app, spike(name, at=1)) as service:
        load = service.drive([1, 2, 3])
    assert [(reply.value, len(reply.faults)) for reply in load.replies] == [(1, 0), (2, 1), (3, 0)]
    assert load.replies[1].latency >= TICK


def test_what_is_awaited_is_delayed_without_blocking_the_loop(serving, store):
    """A timeout around it works, for any kind of function that made it."""

    async def app(x):
        try:
            return await asyncio.wait_for(store.get_later(x), 5 * TICK)
        except TimeoutError:
            return "fallback"

    with serving(app, spike("get_later", delay=5, at=1)) as service:
        load = service.drive([1, 2, 3], concurrency=3)
        load.assert_fallback(value="fallback")
    assert [reply.value for reply in load.replies] == [1, "fallback", 3]


def test_a_failure_behind_an_awaitable_comes_when_it_is_awaited(serving, store):
    """``when="after"``: the call has taken effect."""
    done = []

    async def effect(x):
        done.append(x)

    store.get_later = lambda x: effect(x)

    async def app(x):
        await store.get_later(x)

    with serving(
        app, create("dependency_failure", target="a_store:get_later", when="after", at=0)
    ) as service:
        load = service.drive([1])
    assert isinstance(load.replies[0].error, ConnectionError)
    assert done == [1]


def test_what_is_entered_by_async_with_is_delayed_on_entering(serving, store):
    """Clients return such objects from ``session.get(...)``."""

    @contextlib.asynccontextmanager
    async def session(key):
        yield key

    store.session = session

    async def app(x):
        async with store.session(x) as key:
            return key

    with serving(app, spike("session", at=0)) as service:
        load = service.drive([1, 2])
    assert [reply.value for reply in load.replies] == [1, 2]
    assert load.replies[0].latency >= TICK


def test_a_strike_belongs_to_the_request_in_whose_handling_it_happened(serving, store):
    """With many in flight, in tasks and threads that the request started."""

    async def app(x):
        if x % 3 == 0:
            return await store.get(x)
        if x % 3 == 1:
            return await asyncio.create_task(store.get(x))
        return await asyncio.to_thread(store.get_sync, x)

    where = lambda visit: visit.payload[0][0] in (1, 2, 6)  # noqa: E731
    schedule = [
        create("dependency_failure", target=f"a_store:{name}", at=EVERY, where=where)
        for name in ("get", "get_sync")
    ]
    with serving(app, *schedule) as service:
        load = service.drive(range(9), concurrency=9)
    assert [reply.number for reply in load.replies if reply.faults] == [1, 2, 6]
    assert [reply.number for reply in load.replies if not reply.ok] == [1, 2, 6]
    assert {strike.details["request"] for strike in load.faults} == {1, 2, 6}


def test_visits_are_numbered_alike_each_time(serving, store):
    """Many in flight in one loop: the same schedule gives the same journal and the same replies."""

    async def app(x):
        for _ in range(x % 3):
            await asyncio.sleep(0)
        return await store.get(x)

    seen = []
    for _ in range(3):
        with serving(app, failure("get", at=[2, 5])) as service:
            load = service.drive(range(10), concurrency=4)
            seen.append(([repr(s) for s in load.faults], [reply.ok for reply in load.replies]))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == 2


def test_faults_strike_in_no_golden_run_and_not_after_the_trial(serving, store):
    """And nothing stays patched."""
    original = store.get
    with serving(lambda x: asyncio.run(store.get(x)), failure("get")) as service:
        load = service.drive([1, 2])
        assert [reply.value for reply in load.golden.replies] == [1, 2]
        assert load.golden.error_rate == 0
        assert load.golden.faults == ()
        assert load.golden.golden is load.golden
    assert load.error_rate == 1
    assert store.get is original


def test_a_request_left_behind_ends_with_the_trial(serving):
    """Background tasks of the app do not outlive the test."""
    ended = []

    async def forever():
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(True)

    async def app(x):
        app.task = asyncio.create_task(forever())
        await asyncio.sleep(0)

    with serving(app) as service:
        service.drive([1])
        assert not ended
    assert ended == [True]


# -- judgements ------------------------------------------------------------------------------------


async def with_fallback(x):
    """The store's value, or a default."""
    try:
        return await sys.modules["a_store"].get(x)
    except ConnectionError:
        return "default"


def test_replies_under_a_fault_must_be_the_declared_fallback(serving, store):
    """By value, predicate, or status; the others are not judged."""
    with serving(with_fallback, failure("get", at=1)) as service:
        load = service.drive([1, 2, 3])
        load.assert_fallback(value="default")
        load.assert_fallback(lambda reply: isinstance(reply.value, str))
        with pytest.raises(
            NoFallback,
            match=r"1 of 1 replies given while a fault struck\n  request 1: value: texts differ from position 0",
        ):
            load.assert_fallback(value="other")
        with pytest.raises(
            NoFallback, match=r"request 1: a value, for which the predicate is false"
        ):
            load.assert_fallback(lambda reply: reply.value == 2)
        for wrong in ({}, {"expected": 3}):
            with pytest.raises(
                BadArgument,
                match=r"assert_fallback: (describe the fallback|expected must be a predicate)",
            ):
                load.assert_fallback(**wrong)
    with (
        serving(lambda x: asyncio.run(store.get(x)), failure("get", at=1)) as service,
        pytest.raises(NoFallback, match="1: ConnectionError:"),
    ):
        service.drive([1, 2, 3]).assert_fallback(value="default")


def test_an_app_that_tries_again_may_give_the_golden_reply(serving, store):
    """When the test says so."""

    async def retrying(x):
        with contextlib.suppress(ConnectionError):
            return await store.get(x)
        return await store.get(x)

    with serving(retrying, failure("get", at=1)) as service:
        load = service.drive([1, 2, 3])
        load.assert_fallback(value="default", or_golden=True)
        with pytest.raises(NoFallback):
            load.assert_fallback(value="default")


def test_a_fault_that_struck_elsewhere_leaves_no_fallback_to_judge(serving, store):
    """The test would prove nothing."""
    with serving(with_fallback, failure("get", at=0)) as service:
        service.drive([1])
        load = service.drive([1, 2])
        with pytest.raises(
            BadArgument, match="no fault struck while these 2 requests were handled"
        ):
            load.assert_fallback(value="default")


def test_a_fault_must_not_harm_the_other_requests(serving, store):
    """A poisoned cache changes the replies that come after; numbers within a tolerance pass."""
    cache = {}

    async def poisoned(x):
        if "scale" not in cache:
            try:
                cache["scale"] = await store.get(1.0)
            except ConnectionError:
                cache["scale"] = 0.5
        return x * cache["scale"]

    with serving(poisoned, failure("get", at=0)) as service:
        load = service.drive([1, 2, 3])
        with pytest.raises(
            NotIsolated,
            match=r"2 of 2 replies during which no fault struck\n  request 1: value: differs by 50 % \(float\)",
        ):
            load.assert_isolated()
        load.assert_isolated(rtol=0.5)
        load.assert_isolated(by=lambda reply: type(reply.value))


def test_requests_that_no_fault_meets_are_isolated(serving, store):
    """The replies equal the golden run's, the requests as they were given."""

    async def takes(request):
        return await store.get(request.pop("key"))

    with serving(takes, failure("get", at=1)) as service:
        service.drive([{"key": 1}, {"key": 2}, {"key": 3}]).assert_isolated()
    with (
        serving(takes, failure("get")) as service,
        pytest.raises(BadArgument, match="a fault struck during every reply"),
    ):
        service.drive([{"key": 1}]).assert_isolated()


def test_the_golden_run_plays_all_loads_again(serving):
    """State that builds up over loads is there in it, too; random numbers are the same. The service
    goes on from where it was.
    """
    import random

    class Counter:
        def __init__(self):
            self.count = 0

        def __call__(self, x):
            self.count += 1
            return self.count, random.random()

    with serving(Counter()) as service:
        loads = [service.drive([0, 0]) for _ in range(2)]
        for load in loads:
            load.assert_isolated()
        assert loads[1].golden.replies[1].value[0] == 4
        later = service.drive([0])
        assert later.replies[0].value[0] == 5
        later.assert_isolated()


def test_a_golden_run_finds_the_files_of_the_start(serving, tmp_path):
    """The trial's files are absent during the golden run, and restored afterwards."""
    work = tmp_path / "work"
    work.mkdir()

    def app(x):
        file = work / "log"
        file.write_text((file.read_text() if file.exists() else "") + x)
        return file.read_text()

    with trial(Schedule(), Patches()):
        service = Mlchaos(tmp_path, lambda: [work]).serve(app)
        service.drive(["a", "b"]).assert_isolated()
    assert (work / "log").read_text() == "ab"


CACHE = {"warm": {"hits": []}}
HITS = CACHE["warm"]["hits"]
RECENT = deque(maxlen=2)
SEEN = {0}
WORDS = Counter("a")


def test_a_module_that_was_foreign_to_one_test_may_be_the_users_in_another(tmp_path, monkeypatch):
    """Each test has a project: its own folder and its subject's belong to it."""
    (tmp_path / "recommender").mkdir()
    (tmp_path / "recommender/cached_app.py").write_text("CACHE = {}")
    monkeypatch.syspath_prepend(tmp_path / "recommender")
    app = importlib.import_module("cached_app")
    with for_project(Project((str(tmp_path / "elsewhere"),))):
        UserState()
    with for_project(Project((str(tmp_path / "recommender"),))):
        state = UserState()
        app.CACHE["key"] = "fallback"
        state.restore()
    monkeypatch.delitem(sys.modules, "cached_app")
    assert app.CACHE == {}


def test_a_golden_run_finds_the_global_containers_of_the_start(serving, store):
    """A fallback that stays in a module's cache harms the next request, so the app is not isolated.

    The trial's contents are restored.
    """

    async def app(key):
        HITS.append(key)
        RECENT.append(key)
        SEEN.add(key)
        WORDS["a"] += 1
        if key not in CACHE:
            try:
                CACHE[key] = await sys.modules["a_store"].get(key)
            except ConnectionError:
                CACHE[key] = "fallback"
        return CACHE[key], len(HITS), list(RECENT), sorted(SEEN), WORDS["a"]

    containers = CACHE, HITS, RECENT, SEEN, WORDS
    at_start = copy.deepcopy(containers)
    try:
        with serving(app, failure("get", at=0)) as service:
            load = service.drive([7, 7])
            with pytest.raises(NotIsolated, match="str instead of int"):
                load.assert_isolated()
            assert [reply.value for reply in load.golden.replies] == [
                (7, 1, [7], [0, 7], 2),
                (7, 2, [7, 7], [0, 7], 3),
            ]
            assert CACHE == {"warm": {"hits": [7, 7]}, 7: "fallback"}
            assert (HITS, list(RECENT), SEEN, WORDS) == ([7, 7], [7, 7], {0, 7}, {"a": 3})
            assert CACHE["warm"]["hits"] is HITS
    finally:
        for container, content in zip(containers, at_start, strict=True):
            container.clear()
            (container.extend if container in (HITS, RECENT) else container.update)(content)
        CACHE["warm"]["hits"] = HITS


PATH = sys.path
NAMES = globals()


def test_a_golden_run_leaves_the_containers_of_other_modules_alone(serving, monkeypatch):
    """A user's name for one (``from sys import path``) does not make it the user's. The names of a
    user's module are as at the start.
    """
    monkeypatch.setitem(globals(), "PATH", sys.path)  # another test may have put another list there

    def app(entry):
        found = entry in PATH, "a_new_name" in NAMES
        if entry not in PATH:
            PATH.append(entry)
            NAMES["a_new_name"] = entry
        return found

    try:
        with serving(app) as service:
            load = service.drive(["/nowhere/at/all"])
            assert load.replies[0].value == (False, False)
            assert load.golden.replies[0].value == (True, False)
    finally:
        sys.path.remove("/nowhere/at/all")
        NAMES.pop("a_new_name", None)


def test_an_slo_recovers_in_time_or_not(serving, store):
    """Counted from the end of the last fault to where the SLO holds for good."""
    down = []

    async def breaker(x):
        if down:
            down.pop()
            raise RuntimeError("open")
        try:
            return await store.get(x)
        except ConnectionError:
            down.extend("xxx")
            raise

    with serving(breaker, failure("get", at=2)) as service:
        load = service.drive(range(12), rate=20)
        load.assert_recovered(within="250ms", error_rate=0)
        with pytest.raises(
            NotRecovered,
            match=r"did not hold 50 ms after .*\n  the error rate is .*\n  it held .* from request 6 on",
        ):
            load.assert_recovered(within="50ms", error_rate=0)
        with pytest.raises(
            BadArgument, match="no request arrived 60 s or more after the last fault"
        ):
            load.assert_recovered(within="1m", error_rate=0)


@pytest.mark.parametrize("sound", [True, False])
def test_without_bounds_a_service_recovers_to_its_golden_run(serving, store, sound):
    """An app that answers with its fallback for ever does not."""
    down = []

    async def app(x):
        try:
            return "fallback" if down else await store.get(x)
        except ConnectionError:
            if not sound:
                down.append(x)
            return "fallback"

    with serving(app, failure("get", at=2)) as service:
        load = service.drive(range(6), rate=20)
        different = pytest.raises(NotRecovered, match="different from the golden run 50 ms after")
        with contextlib.nullcontext() if sound else different:
            load.assert_recovered(within="50ms")
        with pytest.raises(BadArgument, match="one bound or more"):
            load.assert_recovered(within="50ms", like_golden=False)


def test_a_delay_that_was_given_up_is_over(serving, store):
    """The time to recover counts from the moment at which the app stopped waiting."""

    async def app(x):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await store.get(x)

    with serving(app, spike("get", delay=60, at=0)) as service:
        load = service.drive(range(3))
        load.assert_recovered(within=0, max=10)
    assert load.replies[0].fault_ended < 10


def test_a_load_is_judged_by_its_slo(serving):
    """The worst replies are named."""
    with serving(lambda x: 1 / x, spike(at=2)) as service:
        load = service.drive([0, 1, 2, 3])
    load.assert_slo(p50="1s", max="10s", error_rate=0.25, availability=0.75)
    with pytest.raises(SloMissed) as caught:
        load.assert_slo(p99=TICK / 2, error_rate=0.1, availability=0.9)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the SLO is missed over 4 requests:"
    assert lines[1].startswith("  p99 is ")
    assert lines[1].endswith("ms, expected at most 10 ms (1 of 4 took longer)")
    assert lines[2] == "  the error rate is 0.25, expected at most 0.1 (1 of 4 failed)"
    assert lines[3] == "  the availability is 0.75, expected at least 0.9 (1 of 4 failed)"
    assert lines[4].startswith("  slowest: request 2, a value, ")
    assert lines[5] == "  first error: request 0, ZeroDivisionError: division by zero"


def test_a_test_says_what_counts_as_an_error(serving):
    """An exception always does."""
    with serving(lambda x: {"error": True} if x else 1 / x) as service:
        load = service.drive(
            [0, 1, 2], is_error=lambda reply: "error" in reply.value and reply.number == 1
        )
    assert [reply.ok for reply in load.replies] == [False, False, True]


# -- what does not count as a reply ----------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"concurrency": 2}])
@pytest.mark.parametrize("app", [doubled, doubled_async])
def test_a_crash_ends_the_test(serving, app, how):
    """No reply is made up; the cure is named."""
    crash = create("crash", site="serve.request", at=1)
    with (
        pytest.raises(CrashNotRestarted, match=r"Put serve\(\) and drive\(\) into a function"),
        serving(app, crash) as service,
    ):
        service.drive([1, 2, 3], **how)


def test_a_crash_under_run_starts_the_service_again(tmp_path):
    """The golden run is a separate start."""
    with trial(Schedule((create("crash", site="serve.request", at=1),)), Patches()):
        mlchaos = Mlchaos(tmp_path)
        run = mlchaos.run(
            lambda: [reply.value for reply in mlchaos.serve(doubled_async).drive([1, 2, 3]).replies]
        )
        assert (run.restarts, run.value) == (1, [2, 4, 6])
        run.assert_recovered()


def test_a_crash_that_the_app_swallows_is_found_out(serving, store):
    """No process survives its death."""

    async def swallows(x):
        try:
            return await store.get(x)
        except BaseException:  # noqa: BLE001  # the mistake under test
            return None

    crash = create("call_failure", target="a_store:get", error=SimulatedCrash("dead"), at=0)
    with (
        pytest.raises(CrashSwallowed, match=r"swallows\(\) swallowed it"),
        serving(swallows, crash) as service,
    ):
        service.drive([1])


def test_a_broken_fault_is_no_reply(example):
    """It is an error of the fault's, whatever the app makes of it."""
    outcome = example.with_tests("""
        @chaos.register
        class Broken(Fault):
            site = "serve.request"
            def apply(self, visit):
                return 1 / 0

        async def echo(x):
            return x

        @chaos.broken(at=0)
        def test_it(mlchaos):
            mlchaos.serve(echo).drive([1, 2])
    """).run(failed=1)
    outcome.has("FaultError: the fault Broken has a bug", "ZeroDivisionError")


def asgi2(scope):
    """An app of the old protocol."""


class Asgi2:
    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (3, "got 3 (int)"),
        ("module:app", "got str of 10 characters"),
        (asgi2, "is an ASGI 2 app"),
        (Asgi2, "is an ASGI 2 app"),
        (lambda: 3, "takes neither one, two nor three arguments"),
        (lambda a, b, c, d: 3, "takes neither one, two nor three arguments"),
    ],
)
def test_what_cannot_be_served_is_refused(serving, app, message):
    """In a line that says what can."""
    with pytest.raises(BadArgument) as caught, serving(app):
        pass
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("requests", "keywords", "message"),
    [
        ([], {}, "requests must not be empty"),
        ("text", {}, "must be a list of requests, got str of 4 characters"),
        ({"a": 1}, {}, "must be a list of requests"),
        (
            [1],
            {"concurrency": 0},
            "concurrency must be a number of requests, 1 or more, got 0 (int)",
        ),
        ([1], {"concurrency": True}, "got True (bool)"),
        ([1], {"rate": 0}, "rate must be requests a second, above 0, got 0 (int)"),
        ([1], {"rate": "10"}, "got '10' (str)"),
        ([1], {"is_error": 500}, "is_error must be a predicate"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(serving, requests, keywords, message):
    """Before any request is sent."""
    with serving(doubled) as service, pytest.raises(BadArgument) as caught:
        service.drive(requests, **keywords)
    assert message in str(caught.value)


def test_a_callable_that_gives_a_coroutine_is_refused(serving):
    """No code would await it."""
    with (
        serving(lambda x: doubled_async(x)) as service,
        pytest.raises(BadArgument, match="Serve the coroutine function itself"),
    ):
        service.drive([1])


def test_inside_an_event_loop_nothing_is_served(serving):
    """An async test is told so."""

    async def test():
        with serving(doubled_async):
            pass

    with pytest.raises(BadArgument, match="needs a plain test"):
        asyncio.run(test())


def test_a_service_that_is_over_says_so(serving):
    """A closed one is not driven; a golden run needs its trial."""
    with serving(doubled) as service:
        with service:
            load = service.drive([1])
        with pytest.raises(BadArgument, match="it was shut down"):
            service.drive([1])
    with pytest.raises(Exception, match="Use it in the body of the test"):
        load.golden  # noqa: B018


# -- in whole tests --------------------------------------------------------------------------------

SCORER = """
import asyncio

class Store:
    async def get(self, key):
        return key

store = Store()

async def unsound(x):
    return await store.get(x)

async def sound(x):
    try:
        return await store.get(x)
    except ConnectionError:
        return -1
"""


@pytest.mark.slow
def test_an_exploration_finds_the_request_that_breaks_it(example):
    """A fault that strikes outside of the judged load is allowed there."""
    outcome = (
        example.with_file("scorer.py", SCORER)
        .with_tests("""
        import scorer

        @chaos.dependency_failure(target="scorer:Store.get")
        def test_sound(mlchaos):
            service = mlchaos.serve(scorer.sound)
            service.drive([1, 2])
            load = service.drive([3, 4])
            load.assert_fallback(value=-1)
            load.assert_isolated()
            load.assert_slo(error_rate=0)

        @chaos.dependency_failure(target="scorer:Store.get")
        def test_unsound(mlchaos):
            mlchaos.serve(scorer.unsound).drive([1, 2]).assert_fallback(value=-1)
    """)
        .run(passed=1, failed=1)
    )
    assert outcome.reproduce == ["@chaos.dependency_failure(at=0, target='scorer:Store.get')"]
    outcome.has(
        "request 0: ConnectionError: injected into scorer:Store.get by mlchaos", "(request=0)"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "dependency_failure(target='scorer:Store.gett', at=0)",
            "Store has no attribute 'gett' (did you mean 'get'?)",
        ),
        (
            "dependency_failure(target='scorer:unsound', at=0)",
            "never struck: call scorer:unsound was never passed",
        ),
        ("latency_spike(at=7)", "never struck: serve.request was passed 2 times (visits 0 to 1)"),
        ("latency_spike(target='', at=7)", "latency_spike: target must be 'pkg.mod:function'"),
        (
            "dependency_failure(target='scorer:Store.get', error='NoSuch', at=0)",
            "dependency_failure: found no exception 'NoSuch'",
        ),
        ("dependency_failure(at=0)", "dependency_failure: missing 1 required"),
    ],
)
def test_a_fault_that_nothing_matches_is_an_error(example, fault, message):
    """Never a vacuous pass."""
    example.with_file("scorer.py", SCORER).with_tests(f"""
        import scorer

        @chaos.{fault}
        def test_it(mlchaos):
            mlchaos.serve(scorer.sound).drive([1, 2]).assert_fallback(value=-1)
    """).run(failed=1).has(message)


@pytest.mark.slow
def test_the_same_schedule_gives_the_same_journal(example):
    """With many in flight, and on xdist's workers."""
    pytest.importorskip("xdist")
    project = example.with_file("scorer.py", SCORER).with_tests("""
        import pytest, scorer

        @pytest.mark.parametrize("n", range(3))
        @chaos.dependency_failure(target="scorer:Store.get", p=0.3)
        @chaos.settings(seed=4)
        def test_it(mlchaos, n):
            mlchaos.serve(scorer.sound).drive(range(20), concurrency=5).assert_fallback(lambda reply: True)
    """)
    journals = []
    for number, how in enumerate(([], [], ["-n", "2"])):
        project.run(f"--mlchaos-journal={number}.jsonl", *how, fresh=bool(how), passed=3)
        journals.append(
            sorted((project.pytester.path / f"{number}.jsonl").read_text().splitlines())
        )
    assert journals[0] == journals[1] == journals[2]
    assert len(journals[0]) > 6


def test_the_state_of_an_app_in_a_different_test_module_is_restored(example):
    """The golden run finds it as it was at the start. A module that nothing uses is left out."""
    app = """
        seen = []

        def app(request):
            seen.append(request)
            return len(seen)
        """
    example.with_file("test_app_that_is_shared.py", app).with_file(
        "test_app_that_is_not_used.py", app
    ).with_tests("""
        import test_app_that_is_not_used as unused
        from test_app_that_is_shared import app
        from pytest_mlchaos.runs.user_state import UserState

        del unused

        def counted(request):
            return app(request)

        @chaos.latency_spike(delay="1s", at=0)
        def test_it(mlchaos):
            mlchaos.serve(counted).drive([1, 2, 3]).assert_isolated()
            held = {id(value) for value in UserState([counted])._alive}
            import test_app_that_is_not_used, test_app_that_is_shared
            assert id(test_app_that_is_shared.seen) in held and id(test_app_that_is_not_used.seen) not in held
    """).run(passed=1)

"""Traffic that is driven: open and closed loops, users who lose patience and try again."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, SloMissed
from pytest_mlchaos.plugin.fixture import Mlchaos
from tests.serving import serving_in  # noqa: F401  # it loads the faults


@pytest.fixture
def trial_of(tmp_path):
    """Open a trial of these faults on the virtual clock."""

    @contextlib.contextmanager
    def opened(*schedule):
        with trial(Schedule(schedule), Patches(), clock="virtual"):
            yield Mlchaos(tmp_path)

    return opened


async def wait(seconds):
    """Answer after this time."""
    await asyncio.sleep(seconds)
    return seconds


class SlowApp:
    """Answer ``/10`` after 10 s. ``told`` has the paths whose client left, and the time."""

    def __init__(self):
        self.told = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        await receive()
        gone = asyncio.ensure_future(self.gone(scope["path"], receive))
        await asyncio.sleep(float(scope["path"][1:]))
        gone.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def gone(self, path, receive):
        while (await receive())["type"] != "http.disconnect":
            pass
        self.told.append(path)


def tenths(values):
    """Seconds, rounded."""
    return [round(value, 1) for value in values]


def latencies(load):
    """The latencies in seconds."""
    return tenths(reply.latency for reply in load.replies)


# -- loops -----------------------------------------------------------------------------------------


def test_a_slow_reply_moves_no_arrival(trial_of):
    """The requests behind it wait for its place, which counts."""
    with trial_of() as mlchaos:
        load = mlchaos.serve(wait).drive([10, 0, 0, 0], rate=1, concurrency=1)
    assert tenths(reply.start for reply in load.replies) == [0, 1, 2, 3]
    assert latencies(load) == [10, 9, 8, 7]


def test_users_of_a_closed_loop_think_until_the_time_is_over(trial_of):
    """Two users, each with 1 s of work and 2 s of thought."""
    with trial_of() as mlchaos:
        load = mlchaos.serve(wait).drive([1], concurrency=2, duration="10s", think_time="2s")
        assert tenths(reply.start for reply in load.replies) == [0, 0, 3, 3, 6, 6, 9, 9]
        assert tenths(reply.start for reply in load.golden.replies) == [0, 0, 3, 3, 6, 6, 9, 9]
        load = mlchaos.serve(lambda x: x).drive([1], duration="10s", think_time="2s")
        assert tenths(reply.start for reply in load.replies) == [0, 2, 4, 6, 8]


def test_a_closed_loop_that_takes_no_time_is_refused(trial_of):
    """It would hardly ever reach its duration."""
    with trial_of() as mlchaos, pytest.raises(BadArgument, match="Give rate=, think_time= or num"):
        mlchaos.serve(lambda x: x).drive([1], duration="1h")


def test_replies_know_their_class(trial_of):
    """And the golden load has the same requests."""
    classes = {"fast": (0.5, 0.1), "slow": (0.5, 1.0)}
    with trial_of() as mlchaos:
        load = mlchaos.serve(wait).drive(40, classes=classes, rate=10)
        for replies in (load.replies, load.golden.replies):
            assert all((reply.group == "slow") == (reply.value == 1) for reply in replies)
        assert {reply.group for reply in load.replies} == {"fast", "slow"}


def test_the_same_seed_gives_the_same_load(trial_of):
    """To the last digit, and a different one a different load."""

    def load(seed):
        with trial_of() as mlchaos:
            service = mlchaos.serve(wait)
            how = {"rate": 9, "peak": 18, "pattern": "diurnal", "duration": "20s"}
            replies = service.drive([0.1, 0.5], **how, patience="400ms", retries=2, seed=seed)
        return [(reply.start, reply.latency, reply.attempts) for reply in replies.replies]

    first = load(0)
    assert first == load(0)
    assert first != load(1)


# -- patience --------------------------------------------------------------------------------------


def test_a_client_leaves_after_its_patience(trial_of):
    """The app is told, the place is free at once, and the request counts as an error."""
    app = SlowApp()
    with trial_of() as mlchaos:
        load = mlchaos.serve(app).drive(["/3", "/0.5"], patience="1s", linger="5s")
    assert app.told == ["/3"]
    assert [(reply.ok, reply.left and round(reply.left, 1)) for reply in load.replies] == [
        (False, 1),
        (True, None),
    ]
    assert tenths(reply.start for reply in load.replies) == [0, 1]
    assert (latencies(load), load.error_rate) == ([1, 0.5], 0.5)
    assert round(load.replies[0].ended) == 3
    with pytest.raises(SloMissed, match=r"the error rate is 0\.5"):
        load.assert_slo(error_rate=0)


def test_a_complete_answer_is_no_lost_patience(trial_of):
    """Although the app goes on in the background."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            await asyncio.sleep(9)

    with trial_of() as mlchaos:
        (reply,) = mlchaos.serve(app).drive(["/"], patience="1s").replies
    assert (reply.ok, reply.left) == (True, None)


def test_a_coroutine_whose_client_leaves_is_cancelled(trial_of):
    """Its clean-up runs."""
    cleaned = []

    async def handle(seconds):
        try:
            await asyncio.sleep(seconds)
        finally:
            cleaned.append(seconds)
        return seconds

    with trial_of() as mlchaos:
        load = mlchaos.serve(handle).drive([9, 0.5], patience="1s")
    assert cleaned == [9, 0.5]
    assert [reply.ok for reply in load.replies] == [False, True]
    assert latencies(load) == [1, 0.5]


def test_a_client_also_leaves_before_it_gets_a_place_or_reaches_the_app(trial_of):
    """The app never sees it."""
    spike = create("latency_spike", delay="9s", at=0)
    app = SlowApp()
    with trial_of(spike) as mlchaos:
        load = mlchaos.serve(app).drive(["/1", "/1"], rate=1e9, concurrency=1, patience="1500ms")
    assert app.told == []
    assert [reply.ok for reply in load.replies] == [False, False]
    assert [len(reply.faults) for reply in load.replies] == [1, 0]
    assert latencies(load) == [1.5, 1.5]


def test_a_plain_function_cannot_lose_its_client(trial_of):
    """It cannot be interrupted."""
    with trial_of() as mlchaos, pytest.raises(BadArgument, match="patience= needs an ASGI app"):
        mlchaos.serve(lambda x: x).drive([1], patience="1s")


# -- retries ---------------------------------------------------------------------------------------


def failing_first(times):
    """A coroutine function, and the function itself, that fail this many times."""
    calls = []

    def plain(x):
        calls.append(x)
        if len(calls) <= times:
            raise ConnectionError("no")
        return x

    async def handle(x):
        return plain(x)

    return plain, handle, calls


@pytest.mark.parametrize("kind", [0, 1])
def test_a_client_tries_again(trial_of, kind):
    """Its latency counts from the first attempt."""
    retries = {"number": 2, "backoff": "1s", "jitter": 0}
    app, calls = (made := failing_first(2))[kind], made[2]
    with trial_of() as mlchaos:
        load = mlchaos.serve(app).drive([7, 8], retries=retries)
    assert calls == [7, 7, 7, 8]
    assert [(reply.value, reply.attempts) for reply in load.replies] == [(7, 3), (8, 1)]
    assert latencies(load) == [3, 0]


def test_a_client_gives_up_after_its_retries(trial_of):
    """The last error is the reply's."""
    made = failing_first(9)
    with trial_of() as mlchaos:
        (reply,) = mlchaos.serve(made[1]).drive([7], retries=2).replies
    assert (type(reply.error), reply.attempts, len(made[2])) == (ConnectionError, 3, 3)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_policy_that_never_ends_is_told(trial_of, kind):
    """Although each attempt ends."""
    made = failing_first(10**9)
    with trial_of() as mlchaos, pytest.raises(BadArgument, match="retries must end, but request 0"):
        mlchaos.serve(made[kind]).drive([7], retries=lambda reply, attempts: "1s")


def test_a_client_that_loses_patience_tries_again_while_its_first_call_goes_on(trial_of):
    """Impatient users multiply the load."""
    app = SlowApp()
    with trial_of() as mlchaos:
        retries = {"number": 1, "backoff": "1s", "jitter": 0}
        (reply,) = mlchaos.serve(app).drive(["/3"], patience="2s", retries=retries).replies
    assert app.told == ["/3", "/3"]
    assert (reply.attempts, reply.ok, round(reply.left, 1)) == (2, False, 5)


def test_the_strikes_on_all_attempts_belong_to_the_reply(trial_of, monkeypatch):
    """A request that was struck and succeeded later does not count as a bystander."""
    module = types.ModuleType("a_dependency")

    async def get(x):
        return x

    module.get = get
    monkeypatch.setitem(sys.modules, "a_dependency", module)

    async def app(x):
        return await module.get(x)

    failure = create("dependency_failure", target="a_dependency:get", at=[0, 1])
    with trial_of(failure) as mlchaos:
        load = mlchaos.serve(app).drive([7, 8], rate=100, retries=2)
        assert [len(reply.faults) for reply in load.replies] == [1, 1]
        assert [reply.attempts for reply in load.replies] == [2, 2]
        load.assert_slo(error_rate=0)


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.slow  # schemathesis is slow to import
def test_requests_fit_an_openapi_schema(trial_of):
    """The same for the same seed."""
    pytest.importorskip("schemathesis")
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    @app.get("/items/{key}")
    async def read(key: int, limit: int = 3):
        return {"key": key, "limit": limit}

    def load():
        with trial_of() as mlchaos:
            return mlchaos.serve(app).drive(mlchaos.openapi(app), number=20).replies

    replies = load()
    assert all(reply.status == 200 for reply in replies)
    assert len({reply.json["key"] for reply in replies}) > 5
    assert [reply.json for reply in load()] == [reply.json for reply in replies]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (object(), r"app must have a method openapi\(\)"),
        ("/nowhere.json", "the schema must be a file of JSON"),
        ({"paths": {}}, "the schema has no path"),
    ],
)
def test_a_wrong_schema_is_refused(trial_of, schema, said):
    """In one line."""
    with trial_of() as mlchaos, pytest.raises(BadArgument, match=said) as caught:
        mlchaos.openapi(schema)
    assert "\n" not in str(caught.value).partition("\n  help:")[0]

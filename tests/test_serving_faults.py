"""Each fault of a service reveals an unsound app, and its sound twin passes. Torch-free."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import math
import re
import sys
import types
from pathlib import Path

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import NotShed, PayloadMismatch, TargetNotFound
from pytest_mlchaos.faults.serving.half_way import count_lines
from pytest_mlchaos.faults.serving.values import DEPTH, KINDS, dumps, malformed
from pytest_mlchaos.faults.serving.weights import NoWeights, damaged_model
from pytest_mlchaos.plugin.fixture import Mlchaos
from tests.serving import serving_in

SERVED = Path(__file__).parent / "served"
TOPICS = [file.name for file in SERVED.glob("pairs_*.py")]


def judge(example, *options):
    """Check that each sound app passes, and that a search finds the bug of each other."""
    for file in SERVED.glob("*.py"):
        example = example.with_file(file.name, file.read_text())
    outcome = example.run("-rA", *options, *sorted(TOPICS), interpreter=True)
    ended = re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", outcome.text, re.MULTILINE)
    wrong = [
        (how, test) for how, test in ended if how != ("PASSED" if "[sound]" in test else "FAILED")
    ]
    assert not wrong, outcome.text
    assert len(ended) > 2 * len(TOPICS), outcome.text
    assert "FaultError" not in outcome.text


@pytest.mark.slow
def test_each_fault_reveals_its_unsound_app(example, monkeypatch):
    """With no visit given, and the twin passes in the first trials."""
    monkeypatch.setenv("SOUND_TRIALS", "2")
    judge(example, "-k", "not thread and not existing")


@pytest.mark.slow
def test_sound_twins_pass_a_whole_search(example):
    """With the default number of trials."""
    judge(example)


# -- requests --------------------------------------------------------------------------------------

DOCUMENT = {"user": "Ada", "rows": [{"x": 1.5}, {"x": 2.5}], "age": 36}


@pytest.fixture
def serving(tmp_path):
    """Serve an app in a trial of these faults."""
    return functools.partial(serving_in, tmp_path)


async def echo(scope, receive, send):
    """Answer with the query and the body of the request."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["query_string"] + b"|" + body})
    assert not body or lengths == [str(len(body)).encode()]


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_kinds_change_one_part(kind):
    """The value itself stays, and what differs can be written as JSON."""
    before = json.dumps(DOCUMENT)
    damaged, path = malformed(DOCUMENT, kind, seed=3)
    assert json.dumps(DOCUMENT) == before
    assert dumps(damaged) != dumps(DOCUMENT)
    assert kind == "empty" or path


@dataclasses.dataclass(frozen=True)
class Item:
    """An item of a batch."""

    row: dict
    answer: object


def test_malformed_dataclass_is_a_copy():
    """Keep the same object where nothing is damaged."""
    item = Item({"x": 1.5}, object())
    damaged, path = malformed(item, "nan", seed=3)
    assert path == ("row", "x")
    assert math.isnan(damaged.row["x"])
    assert damaged.answer is item.answer
    assert item.row == {"x": 1.5}
    assert malformed(item, "missing_field", 3, field="row")[0].row is None


@pytest.mark.parametrize(
    ("fault", "arrives"),
    [
        ({"kind": "nan", "field": "age"}, b'"age": NaN'),
        ({"kind": "missing_field", "field": "user"}, b'{"rows": '),
        ({"kind": "deep", "field": "rows"}, b"[" * DEPTH),
        ({"kind": "unicode", "field": "user"}, rb'"Ada\ud800\u0000'),
        ({"value": {"a": 1}}, b'|{"a": 1}'),
        ({"value": b"no json"}, b"|no json"),
    ],
)
def test_malformed_body_arrives(serving, fault, arrives):
    """With its length, and only at the request that is due."""
    with serving(echo, create("malformed_request", **fault, at=1)) as service:
        first, struck, last = service.drive([("POST", "/", DOCUMENT)] * 3).replies
    assert first.content == last.content == b"|" + dumps(DOCUMENT).replace(b" ", b"")
    assert arrives in struck.content
    assert not first.faults
    assert struck.faults


def test_malformed_query_arrives(serving):
    """Change the query of a request without a body."""
    with serving(echo, create("malformed_request", kind="nan", at=0)) as service:
        assert service.drive(["/?x=1.5&y=z"]).replies[0].content == b"x=nan&y=z|"


def test_malformed_request_without_a_part_is_refused(serving):
    """If the test chose it."""
    with (
        pytest.raises(PayloadMismatch, match="must have a body or a query"),
        serving(echo, create("malformed_request", at=0)) as service,
    ):
        service.drive(["/"])


# -- models ----------------------------------------------------------------------------------------


class Doubling:
    """A model that is called."""

    def __call__(self, value):
        return 2 * value


class Tripling:
    """A model with a method."""

    def predict(self, value):
        return 3 * value


@pytest.fixture
def models(monkeypatch):
    """A module with models of each kind."""
    module = types.ModuleType("some_models")
    module.function = abs
    module.called, module.other = Doubling(), Doubling()
    module.Tripling, module.tripling = Tripling, Tripling()
    module.by_name = {"a": Tripling(), "b": len, 3: Doubling()}
    monkeypatch.setitem(sys.modules, "some_models", module)
    return module


@pytest.mark.parametrize(
    ("model", "call"),
    [
        ("some_models:called", lambda models: models.called(1)),
        ("some_models:tripling", lambda models: models.tripling.predict(1)),
        ("some_models:Tripling", lambda models: Tripling().predict(1)),
        ("some_models:Tripling.predict", lambda models: models.tripling.predict(1)),
        ("some_models:by_name['a']", lambda models: models.by_name["a"].predict(1)),
        ("some_models:by_name[b]", lambda models: models.by_name["b"]("x")),
        ("some_models:by_name[3]", lambda models: models.by_name[3](1)),
    ],
)
def test_model_is_named_in_several_ways(models, model, call):
    """Only that model fails, and is as before in the end."""
    kept = dict(models.by_name)
    with trial(Schedule((create("model_unavailable", model=model, at=0),)), Patches()):
        assert models.other(1) == 2
        with pytest.raises(ConnectionError, match=re.escape(model)):
            call(models)
    call(models)
    assert models.by_name == kept
    assert not vars(models.tripling)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("some_models:by_name['z']", "must have this entry"),
        ("some_models:nothing", "has no attribute"),
        ("math:pi", "none of the methods predict"),
    ],
)
def test_model_that_does_not_exist_is_refused(models, model, says):
    """With what there is."""
    with (
        pytest.raises(TargetNotFound, match=says),
        trial(Schedule((create("model_slow", model=model, at=0),)), Patches()),
    ):
        pass


def test_weights_are_damaged_in_a_copy():
    """Damage arrays, numbers, and a function's results. Refuse others."""
    np = pytest.importorskip("numpy")
    model = types.SimpleNamespace(weights=np.arange(4.0), classes=np.arange(2), rate=0.5)
    assert damaged_model(model, "half_loaded", 1).weights.tolist() == [0, 1, 0, 0]
    mixed = damaged_model(model, "wrong_weights", 1)
    assert sorted(mixed.weights) == [0, 1, 2, 3]
    assert mixed.weights.tolist() != [0, 1, 2, 3]
    assert (mixed.rate, mixed.classes.tolist()) == (0.5, [0, 1])
    assert model.weights.tolist() == [0, 1, 2, 3]
    assert damaged_model({"w": [1.0, 2.0], "n": 3}, "half_loaded", 1) == {"w": [1.0, 0.0], "n": 3}
    assert math.isnan(damaged_model(lambda value: value, "nan", 1)(1.0))
    with pytest.raises(NoWeights):
        damaged_model(object(), "nan", 1)


def test_reload_fails_half_way_in_a_coroutine(monkeypatch):
    """At its own line, while other coroutines run, and the tracer of before is back."""
    module = types.ModuleType("reloading")
    exec(
        "import asyncio\n"
        "done = []\n"
        "async def reload():\n"
        "    done.append(1)\n"
        "    await asyncio.sleep(0)\n"
        "    done.append(2)\n"
        "    done.append(3)\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "reloading", module)
    before = sys.gettrace()
    fault = create("hot_reload_failure", target="reloading:reload", when="half", line=3, at=0)

    async def two():
        return await asyncio.gather(module.reload(), asyncio.sleep(0), return_exceptions=True)

    with trial(Schedule((fault,)), Patches()) as controller:
        found = asyncio.run(two())
        assert "injected into reloading:reload" in str(found[0])
        assert controller.is_injected(found[0])
    assert module.done == [1, 2]
    assert sys.gettrace() is before


def test_the_lines_of_a_reload_are_measured_for_its_own_variant():
    """The visit holds those of the next variant, when the lines run."""

    def reload():
        first = 1
        second = 2
        return first + second

    visit = types.SimpleNamespace(attributes={"code": reload.__code__}, measures={})
    own = visit.measures
    with count_lines(visit):
        visit.measures = {}
        reload()
    assert own == {"line": 3}
    assert visit.measures == {}


# -- background tasks ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["idle", "busy"])
def test_a_batcher_with_a_time_limit_loses_no_request(tmp_path, moment):
    """The error arrives through ``wait_for``, and no half of it goes on to take requests."""
    queue, deaths = None, []

    async def collect():
        while True:
            try:
                value, answer = await asyncio.wait_for(queue.get(), 60)
                await asyncio.sleep(0.01)
                answer.set_result(value)
            except RuntimeError as error:
                deaths.append(str(error))
                if "answer" in locals() and not answer.done():
                    answer.set_exception(error)

    async def app(value):
        nonlocal queue
        if queue is None:
            queue = asyncio.Queue()
            asyncio.get_running_loop().batcher = asyncio.ensure_future(collect())
        answer = asyncio.get_running_loop().create_future()
        queue.put_nowait((value, answer))
        return await answer

    fault = create("batcher_failure", moment=moment, at=2)
    with trial(Schedule((fault,)), Patches(), clock="virtual") as controller:
        load = Mlchaos(tmp_path).serve(app).drive(range(6))
        assert len(controller.journal) == 1
    assert deaths == ["injected into a background task by mlchaos"]
    values = [reply.value for reply in load.replies]
    assert values == [0, 1, 2 if moment == "idle" else None, 3, 4, 5]


def test_an_app_without_background_tasks_is_refused(serving):
    """If the test chose the request."""

    async def app(value):
        return value

    with (
        pytest.raises(PayloadMismatch, match="must have a background task"),
        serving(app, create("batcher_failure", at=0)) as service,
    ):
        service.drive([1])


# -- load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visit", [0, 1])
def test_strike_in_a_copy_of_a_request_is_not_that_of_the_request(tmp_path, monkeypatch, visit):
    """Also if no other request is in flight."""
    module = types.ModuleType("a_dependency")
    module.get = lambda: 1
    monkeypatch.setitem(sys.modules, "a_dependency", module)

    async def app(value):
        return module.get()

    faults = [
        create("overload", factor=2, at=0),
        create("dependency_failure", target="a_dependency:get", at=visit),
    ]
    with trial(Schedule(faults), Patches(), clock="virtual") as controller:
        (reply,) = Mlchaos(tmp_path).serve(app).drive([1]).replies
        assert [strike.fault.partition("(")[0] for strike in controller.journal] == [
            "overload",
            "dependency_failure",
        ]
    assert (reply.error is None) == (visit == 1)
    assert len(reply.faults) == (1 if visit else 2)


def test_overload_and_retry_storm_reach_the_app_alone(tmp_path):
    """The load has one reply for each request, and the app has seen more."""
    seen, left = [], []

    async def app(value):
        seen.append(value)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            left.append(value)
            raise
        return value

    for name, keywords, counts in (
        ("overload", {"factor": 2.5, "duration": "5s"}, [2, 3, 2, 3, 2, 1, 1]),
        ("retry_storm", {"retries": 2, "duration": "5s"}, [3] * 5 + [1, 1]),
    ):
        seen.clear()
        fault = create(name, **keywords, at=0)
        with trial(Schedule((fault,)), Patches(), clock="virtual"):
            load = Mlchaos(tmp_path).serve(app).drive(range(7), rate=1)
        assert [reply.value for reply in load.replies] == list(range(7))
        assert [seen.count(value) for value in range(7)] == counts
        assert not any(reply.outlived_by for reply in load.replies)
    assert len(left) == 10


def test_an_overload_lets_the_app_refuse_requests_of_the_load(tmp_path):
    """Some copies come before their original, so an app that refuses the second has shed load."""
    busy = []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        refuses = bool(busy)
        busy.append(scope)
        await send({"type": "http.response.start", "status": 503 if refuses else 200})
        await asyncio.sleep(0 if refuses else 0.5)
        await send({"type": "http.response.body"})
        busy.pop()

    pytest.importorskip("httpx")
    with trial(Schedule((create("overload", at=0),)), Patches(), clock="virtual"):
        load = Mlchaos(tmp_path).serve(app).drive(["/"] * 6, rate=1)
        load.assert_sheds_load()
    assert [reply.status for reply in load.replies] == [200, 503, 503] * 2


def test_a_stale_model_may_be_that_of_the_start_up(tmp_path, monkeypatch):
    """Keep what a fault has seen as long as the app, not only for one load."""
    module = types.ModuleType("a_registry")
    module.load = lambda version: {"version": version}
    monkeypatch.setitem(sys.modules, "a_registry", module)

    class Handler:
        def initialize(self, context):
            self.model = module.load("v1")

        def handle(self, data, context):
            if data[0]["body"] == "reload":
                self.model = module.load("v2")
            return [self.model["version"]]

    fault = create("stale_model", target="a_registry:load", at=1)
    with trial(Schedule((fault,)), Patches(), clock="virtual"):
        service = Mlchaos(tmp_path).serve(Handler())
        assert service.drive(["ask"]).replies[0].value == "v1"
        load = service.drive(["reload", "ask"])
        assert [reply.value for reply in load.replies] == ["v1", "v1"]
        assert [reply.value for reply in load.golden.replies] == ["v2", "v2"]


@pytest.mark.slow
@pytest.mark.parametrize("most", [8, None], ids=["refuses", "never refuses"])
@pytest.mark.parametrize("patience", [None, "2s"])
def test_shedding_is_judged_in_the_time_of_the_overload(tmp_path, monkeypatch, most, patience):
    """The load as a whole shows it no longer, because the queue drains in time."""
    module = types.ModuleType("a_model")
    module.inside = 0

    async def predict(value):
        return value

    module.predict = predict
    monkeypatch.setitem(sys.modules, "a_model", module)

    async def app(value):
        if most is not None and module.inside >= most:
            raise ConnectionRefusedError("busy")
        module.inside += 1
        try:
            return await module.predict(value)
        finally:
            module.inside -= 1

    fault = create("overload", factor=3, at=0)
    with trial(Schedule((fault,)), Patches(), clock="virtual"):
        mlchaos = Mlchaos(tmp_path)
        mlchaos.capacity("a_model:predict", workers=2, service_time="50ms")
        load = mlchaos.serve(app).drive([1], rate=20, duration="25s", patience=patience)
        if most is not None:
            load.assert_sheds_load()
        else:
            with pytest.raises(NotShed, match="of 500 requests was refused"):
                load.assert_sheds_load()


LOADS_AT_START = """
    import pytest

    def load():
        return abs

    class App:
        def __init__(self, sound):
            self.sound = sound

        def initialize(self, context):
            self.model = load()

        def handle(self, data, context):
            if data[0]["body"] == -1:
                if not self.sound:
                    self.model = None
                self.model = load()
            return [self.model(data[0]["body"])]

    @pytest.mark.parametrize("sound", [True, False])
    @chaos.model_load_failure(target="test_it:load")
    def test_reload(mlchaos, sound):
        mlchaos.serve(App(sound)).drive([1, -1, 2]).assert_isolated()

    @chaos.model_load_failure(target="test_it:load")
    def test_start(mlchaos):
        mlchaos.serve(App(True)).drive([1, 2]).assert_isolated()
"""


@pytest.mark.slow
def test_a_search_lets_an_app_refuse_to_start_without_its_model(example):
    """It judges the other loads. If there is none, the refusal is the result."""
    example.with_tests(LOADS_AT_START).run(passed=1, failed=2).has(
        "NotIsolated", "at=1, target", "ServiceFailed", "failed at start-up"
    )

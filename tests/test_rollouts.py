"""``mlchaos.rollout``: controllers that catch a worse version, and others that do not."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
import types

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import (
    BadArgument,
    GoldenRunFailed,
    Inconclusive,
    MixedVersions,
    NeverAnswered,
    NotPromoted,
    NotRolledBack,
    PromotedBlind,
)
from pytest_mlchaos.plugin.fixture import Mlchaos
from pytest_mlchaos.serving.rollouts.sequential import Sample, compare
from tests.serving import serving_in  # noqa: F401  # it loads faults and sites

REQUESTS = list(range(50))


@pytest.fixture
def rollout(tmp_path):
    """Roll a version out in a trial of these faults."""
    with contextlib.ExitStack() as stack:

        def run(controller, traffic=REQUESTS, *faults, **options):
            stack.enter_context(trial(Schedule(faults), Patches(), clock="virtual"))
            return Mlchaos(tmp_path).rollout(controller, traffic, **options)

        yield run


def models():
    """Two versions that double a number."""
    return {"v1": lambda x: 2 * x, "v2": lambda x: 2 * x}


class Plain:
    """The four methods, and models that the plugin routes to."""

    def __init__(self):
        self.models = models()
        self.weights = {"v1": 1.0}
        self.config = {"limit": 3}

    def deploy(self, version):
        """Keep the version."""
        self.canary = version

    def split(self, weights):
        """Keep the weights."""
        self.weights = weights

    def promote(self):
        """Give it all users."""
        self.weights = {"v2": 1.0}

    def rollback(self):
        """Give all users back."""
        self.weights = {"v1": 1.0}


class Routing(Plain):
    """Routes by itself."""

    sent = 0

    def handle(self, request):
        """Answer with the version that is due."""
        self.sent += 1
        share = self.weights.get("v2", 0.0)
        return self.models["v2" if self.sent * 37 % 100 < 100 * share else "v1"](request)


class Threshold(Routing):
    """Counts failed checks, and rolls back at five of them."""

    failed = 0
    waiting = False

    def split(self, weights):
        """Wait for the traffic to increase."""
        super().split(weights)
        self.waiting = True

    def analyse(self, metrics):
        """Roll back once the threshold is reached."""
        self.failed += not metrics["error_rate"] <= 0.05
        if self.failed >= 5:
            self.rollback()


class NeverRollsBack(Threshold):
    """Ignores the threshold while it waits, as flagger#1801 does."""

    def analyse(self, metrics):
        """Count, and wait."""
        self.failed += not metrics["error_rate"] <= 0.05
        if self.failed >= 5 and not self.waiting:
            self.rollback()


class Judging(Plain):
    """Returns a verdict."""

    def analyse(self, metrics):
        """Pause without data."""
        if not metrics["requests"]:
            return "inconclusive"
        return "fail" if metrics["error_rate"] > 0.1 else "pass"


class Blind(Plain):
    """Takes NaN for success."""

    def analyse(self, metrics):
        """Compare, which is false for NaN."""
        return "fail" if metrics.get("error_rate", 0) > 0.1 else "pass"


def fault(name, at=0, **how):
    """A fault at the first visit."""
    return create(name, at=at, **how)


# -- the classic bug -------------------------------------------------------------------------------

CLASSIC = """
    from tests.test_rollouts import NeverRollsBack, Threshold

    @chaos.bad_deploy
    def test_unsound(mlchaos):
        mlchaos.rollout(NeverRollsBack(), list(range(50))).assert_safe()

    @chaos.bad_deploy
    def test_sound(mlchaos):
        mlchaos.rollout(Threshold(), list(range(50))).assert_safe()
"""


@pytest.mark.slow
def test_a_threshold_that_is_never_acted_on_is_found(example):
    """18 failed checks at a threshold of 5, and no rollback."""
    outcome = example.with_tests(CLASSIC).run(passed=1, failed=1)
    assert outcome.has("NotRolledBack: v2 is worse, and was not rolled back")
    assert outcome.reproduce == ["@chaos.bad_deploy(at=0)"]


# -- worse and good versions -----------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Plain, Routing, Threshold, Judging])
def test_a_good_version_is_promoted(rollout, cls):
    """Without a fault, no controller rolls back."""
    result = rollout(cls())
    result.assert_promoted()
    result.assert_safe()
    assert (result.outcome, result.verdict, result.harmed) == ("promoted", "pass", 0)


@pytest.mark.parametrize("cls", [Plain, Routing, Threshold, Judging])
def test_a_worse_version_is_rolled_back(rollout, cls):
    """The record says by which metric, after how many requests, and who was harmed."""
    result = rollout(cls(), REQUESTS, fault("bad_deploy"))
    result.assert_safe()
    result.assert_caught(within=1000, at_most_harmed=100)
    result.assert_rolled_back(within="5m")
    assert result.metric == "errors"
    assert 0 < result.harmed_users <= result.harmed < 100
    assert 0 < result.mttr < 300
    noted = [one for one in result._entries(0, is_virtual=True) if one.kind == "recovery_time"]
    assert [one.seconds for one in noted] == [round(result.mttr, 4)]


def test_a_version_that_is_promoted_all_the_same_fails(rollout):
    """An analysis that always passes."""
    result = rollout(Plain(), REQUESTS, fault("bad_deploy"), analyse=lambda metrics: True)
    with pytest.raises(NotRolledBack, match=r"v2 is worse, and was not rolled back"):
        result.assert_safe()
    with pytest.raises(NotRolledBack, match="promoted"):
        result.assert_rolled_back()


def test_a_good_version_that_is_rolled_back_fails(rollout):
    """An analysis that always fails."""
    result = rollout(Plain(), REQUESTS, analyse=lambda: False, worse=False)
    with pytest.raises(NotPromoted, match="not worse"):
        result.assert_safe()
    with pytest.raises(NotPromoted, match="rolled back"):
        result.assert_promoted()


def test_too_late_is_not_caught(rollout):
    """Bounds on requests and on users."""
    result = rollout(Threshold(), REQUESTS, fault("bad_deploy"))
    with pytest.raises(NotRolledBack, match="after 500 requests, more than 100"):
        result.assert_caught(within=100)
    with pytest.raises(NotRolledBack, match="users before it was caught, more than 3"):
        result.assert_caught(at_most_harmed=3)
    with pytest.raises(NotRolledBack, match="more than 1 s"):
        result.assert_rolled_back(within=1)


@pytest.mark.parametrize("kind", ["errors", "quality", "latency"])
def test_each_kind_of_worse_is_caught_by_its_metric(rollout, kind):
    """With labels and a limit, wrong and late answers count."""
    labels = [2 * x for x in REQUESTS]
    bad = fault("bad_deploy", kind=kind, by=0.3)
    result = rollout(models(), REQUESTS, bad, labels=labels, latency="1s")
    result.assert_safe()
    assert result.metric == kind


def test_a_slice_is_worse_for_its_users_alone(rollout):
    """The other requests get their usual answers."""
    requests = [{"country": "DE" if n % 2 else "FR", "n": n} for n in range(40)]
    both = {"v1": lambda request: request["n"], "v2": lambda request: request["n"]}
    bad = fault("bad_deploy", slice={"country": "DE"}, by=1.0)
    result = rollout(both, requests, bad)
    result.assert_safe()
    harmed = [one for one in result.answers if one.failed]
    assert harmed
    assert all(one.number % 2 for one in harmed)


def test_golden_answers_serve_as_labels(rollout):
    """Those of the old version."""
    other = {"v1": lambda x: 2 * x, "v2": lambda x: 2 * x if x % 3 else -1}
    result = rollout(other, REQUESTS, labels="golden")
    result.assert_rolled_back()
    assert result.metric == "quality"
    assert result.is_worse


# -- strategies and controllers --------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["canary", "blue_green", "rolling", "ab", "shadow"])
@pytest.mark.parametrize("bad", [False, True])
def test_each_strategy_decides(rollout, strategy, bad):
    """Shadow and blue-green harm no user while requests are mirrored."""
    faults = [fault("bad_deploy")] if bad else []
    result = rollout(models(), REQUESTS, *faults, strategy=strategy)
    result.assert_safe()
    assert result.rolled_back is bad
    if bad and strategy in ("shadow", "blue_green"):
        assert result.harmed == 0


@pytest.mark.slow
def test_async_controllers_are_awaited(rollout):
    """Methods, models and analysis."""

    class Async(Plain):
        async def deploy(self, version):
            await asyncio.sleep(1)

        async def rollback(self):
            await asyncio.sleep(1)
            self.weights = {"v1": 1.0}

        async def handle(self, request, version):
            await asyncio.sleep(0.01)
            return self.models[version](request)

        async def analyse(self, stable, canary):
            await asyncio.sleep(0)
            if canary["error_rate"] > stable["error_rate"] + 0.1:
                await self.rollback()

    rollout(Async(), REQUESTS, fault("bad_deploy")).assert_safe()
    rollout(Async()).assert_promoted()


@pytest.mark.slow
def test_a_function_of_version_and_request_is_served(rollout):
    """The simplest of all."""
    result = rollout(lambda version, request: request, REQUESTS, fault("bad_deploy"))
    result.assert_safe()
    assert result.rolled_back


def test_a_registry_is_named_by_its_dotted_loader(rollout, monkeypatch):
    """The loader has a name like ``mlflow.pyfunc.load_model``. It is down for one load."""
    module = types.ModuleType("a_registry")
    module.load_model = lambda version: lambda request: request
    monkeypatch.setitem(sys.modules, "a_registry", module)
    down = fault("registry_unavailable", at=0)
    result = rollout("a_registry:load_model", REQUESTS, down)
    result.assert_safe()
    assert [call.ok for call in result.calls if call.name == "deploy"] == [False, True]


def test_users_keep_their_version(rollout):
    """Sticky by user, until the share changes."""
    requests = [{"user": n % 30} for n in range(90)]
    both = {"v1": lambda request: 1, "v2": lambda request: 1}
    result = rollout(both, requests, strategy="ab")
    seen = {}
    for answer in result.answers:
        if answer.phase == "during":
            seen.setdefault(answer.user, set()).add(answer.version)
    assert all(len(versions) == 1 for versions in seen.values())
    assert {*map(tuple, seen.values())} == {("v1",), ("v2",)}


class Recording(Routing):
    """Receives each answer, and has no use for metrics."""

    seen = ()

    def record(self, version, ok):
        """Keep the last answers of the new version."""
        if version == "v2":
            self.seen = (*self.seen[-49:], ok)

    def tick(self):
        """Roll back if too many of them failed."""
        if len(self.seen) > 9 and sum(self.seen) < 0.9 * len(self.seen):
            self.rollback()


class NeedsMany(Plain):
    """Waits for 100 requests of the new version, and compares with the old one."""

    def analyse(self, stable, canary):
        """Pause with fewer."""
        if canary["requests"] < 100:
            return None
        return canary["error_rate"] <= stable["error_rate"] + 0.05


class Slotted:
    """Cannot be wrapped. Both versions share a model."""

    __slots__ = ("models",)

    def __init__(self):
        self.models = dict.fromkeys(("v1", "v2"), str)

    def predict(self, request, version):
        """Answer with a version."""
        return self.models[version](request)

    deploy = split = promote = rollback = lambda self, *given: None


def program(platform):
    """Drives a platform."""
    platform.deploy("v2")
    for share in (0.1, 0.5):
        platform.split(share)
        for _ in range(3):
            time.sleep(60)
            if platform.metrics()["error_rate"] > 0.1:
                platform.rollback()
                return
    platform.promote()


@pytest.mark.parametrize("controller", [Recording, NeedsMany, Slotted, program])
def test_other_kinds_of_controllers(rollout, controller):
    """They see failures by their own means, and each in its own way."""
    make = (lambda: program) if controller is program else controller
    versions = models() if controller is program else None
    bad = rollout(make(), REQUESTS, fault("bad_deploy"), versions=versions)
    bad.assert_safe()
    bad.assert_caught()
    good = rollout(make(), REQUESTS, versions=versions)
    good.assert_safe()
    good.assert_promoted()


def test_a_program_that_asks_forever_is_ended(rollout):
    """It ends with the last request."""

    def forever(platform):
        platform.deploy()
        while True:
            platform.metrics()

    with pytest.raises(NeverAnswered, match="which are all"):
        rollout(forever, versions=models(), requests=500)


def test_faults_of_unknown_models_are_refused(rollout):
    """A fault that cannot take effect must not count."""

    class Hidden(Plain):
        def __init__(self):
            super().__init__()
            self.models = None

        def handle(self, request):
            return request

    with pytest.raises(Inconclusive, match="it is unknown which version answered"):
        rollout(Hidden()).assert_safe()
    with pytest.raises(BadArgument, match=r"bad_deploy cannot strike.*models are unknown"):
        rollout(Hidden(), REQUESTS, fault("bad_deploy"))


def test_a_rollback_for_noise_is_a_false_one(rollout):
    """More requests after the rollout show that the version is not worse."""
    draw = random.Random(0)

    def noisy(request):
        if draw.random() < 0.05:
            raise ValueError(request)
        return request

    both = {"v1": noisy, "v2": noisy}
    result = rollout(both, analyse=lambda metrics: not metrics["errors"])
    with pytest.raises(NotPromoted, match="v2 is not worse"):
        result.assert_safe()


def test_an_old_version_that_always_fails_is_refused(rollout):
    """No rollout can be judged by it."""
    with pytest.raises(GoldenRunFailed, match="v1 fails for each of 100 requests"):
        rollout({"v1": len, "v2": len})


# -- nothing to measure ----------------------------------------------------------------------------


def test_a_canary_without_traffic_pauses(rollout):
    """Its verdict is inconclusive, and nothing is promoted."""
    requests = [{"user": "the only one"}]
    both = {"v1": lambda request: 1, "v2": lambda request: 1}
    result = rollout(both, requests, steps=[0.001], requests=2000)
    assert (result.outcome, result.verdict, result.served) == ("paused", "inconclusive", 0)
    result.assert_safe()
    with pytest.raises(Inconclusive, match="answered no request"):
        result.assert_promoted()


def test_a_promotion_without_traffic_is_blind(rollout):
    """NaN is not above the limit."""
    controller = Blind()
    controller.handle = lambda request: controller.models["v1"](request)
    result = rollout(controller)
    with pytest.raises(PromotedBlind, match="before it had answered any request"):
        result.assert_safe()


@pytest.mark.parametrize("kind", ["nan", "zero", "empty"])
def test_missing_metrics_must_not_promote(rollout, kind):
    """An analysis has no data, and a sound one pauses."""
    missing = fault("metrics_missing", kind=kind)
    with pytest.raises(PromotedBlind, match="analyses had metrics of it"):
        rollout(Blind(), REQUESTS, missing).assert_safe()

    class Careful(Judging):
        def analyse(self, metrics):
            return super().analyse(metrics) if metrics.get("requests") else None

    result = rollout(Careful(), REQUESTS, missing)
    result.assert_safe()
    assert result.outcome == "paused"
    rollout(Plain(), REQUESTS, missing).assert_never_promoted_blind()


# -- rollouts that go wrong ------------------------------------------------------------------------


class Once(Threshold):
    """Believes in its first rollback."""

    def analyse(self, metrics):
        """Roll back once, whatever comes of it."""
        self.failed += not metrics["error_rate"] <= 0.05
        if self.failed == 5:
            with contextlib.suppress(Exception):
                self.rollback()


@pytest.mark.parametrize("kind", ["raises", "ignored", "reply_lost"])
def test_a_rollback_that_fails_must_be_repeated(rollout, kind):
    """One that has no effect leaves the worse version with its users."""
    failure = fault("rollback_failure", kind=kind)
    rollout(Threshold(), REQUESTS, failure).assert_safe()
    rollout(Plain(), REQUESTS, failure).assert_safe()
    result = rollout(Once(), REQUESTS, failure)
    if kind == "reply_lost":
        result.assert_safe()
    else:
        with pytest.raises(NotRolledBack, match="was not rolled back"):
            result.assert_safe()


def test_half_of_the_replicas_are_noticed(rollout):
    """The plugin's own flow looks which version answers. A controller may forget to."""

    class Forgets(Judging):
        def analyse(self, metrics):
            self.checks = getattr(self, "checks", 0) + 1
            if self.checks == 10:
                self.promote()

    class Looks(Forgets):
        def analyse(self, metrics):
            super().analyse(metrics)
            if metrics["stage"] == "promoted" and set(metrics["versions"]) != {"v2"}:
                self.promote()

    partial = fault("partial_rollout")
    rollout(models(), REQUESTS, partial).assert_safe()
    rollout(Looks(), REQUESTS, partial).assert_safe()
    with pytest.raises(MixedVersions, match=r"v1 answered \d+ of the last 50 requests"):
        rollout(Forgets(), REQUESTS, partial).assert_consistent()


@pytest.mark.parametrize("during", ["promote", "rollback"])
def test_features_must_belong_to_the_model(rollout, during):
    """After a promotion or a rollback."""

    class Acts(Plain):
        seen = 0

        def analyse(self, metrics):
            self.seen += 1
            if metrics["error_rate"] > 0.1:
                self.rollback()
                self.seen = 100
            elif self.seen == 10:
                self.promote()

    features = {"v1": lambda x: x, "v2": lambda x: x + 0}
    skew = fault("version_skew", during=during)
    rollout(models(), REQUESTS, skew, features=features).assert_safe()
    with pytest.raises(MixedVersions, match="got the features of"):
        rollout(Acts(), REQUESTS, skew, features=features).assert_safe()


def test_a_changed_configuration_must_be_restored(rollout):
    """One that differs after the deployment."""

    class Checks(Plain):
        def split(self, weights):
            super().split(weights)
            self.config["limit"] = 3

    drift = fault("config_drift")
    rollout(Checks(), REQUESTS, drift).assert_safe()
    with pytest.raises(MixedVersions, match="the configuration differs: limit"):
        rollout(Plain(), REQUESTS, drift).assert_safe()


def test_a_slow_start_is_not_a_worse_version(rollout):
    """It may be promoted later, or be rolled back."""
    result = rollout(models(), REQUESTS, fault("slow_start", delay="20s"))
    result.assert_safe()
    assert result.harmed


# -- bad input -------------------------------------------------------------------------------------


class NoRollback:
    """Lacks one of the methods."""

    deploy = split = promote = print


@pytest.mark.parametrize(
    ("controller", "traffic", "options", "says"),
    [
        (NoRollback(), REQUESTS, {}, r"must have a method rollback\(\)"),
        (7, REQUESTS, {}, "controller must be a controller with"),
        (models(), [], {}, "traffic must not be empty"),
        (models(), 7, {}, "traffic must be a list"),
        (models(), REQUESTS, {"strategy": "canari"}, "did you mean 'canary'"),
        (models(), REQUESTS, {"steps": [200]}, "steps must be shares"),
        (models(), REQUESTS, {"metrics": "quality"}, "need labels="),
        (models(), REQUESTS, {"request": 7}, "unknown option 'request'"),
        (models(), REQUESTS, {"labels": [1]}, "labels must have one for each of the 50"),
        ({"v1": len}, REQUESTS, {}, "versions must name the old version and the new one"),
        (models(), REQUESTS, {"analyse": lambda metrics: "perhaps"}, "must return 'pass'"),
        ({"v1": 1, "v2": 2}, REQUESTS, {}, "must be a function of the request"),
    ],
)
def test_bad_input_gets_one_clear_line(rollout, controller, traffic, options, says):
    """Each names the argument, what it must be, and what it got."""
    with pytest.raises(BadArgument, match=says) as caught:
        rollout(controller, traffic, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"v1": 0.5, "v2": 0.4}, "sum to 1, got a sum of 0.9"),
        ({"v1": 0.5, "v3": 0.5}, "name 'v3'"),
        ({"v1": 1.5, "v2": -0.5}, "shares of 0 or more"),
        ("half", "must be a dict"),
    ],
)
def test_wrong_weights_are_refused(rollout, weights, says):
    """Also if the controller swallows the error."""

    class Wrong(Plain):
        def analyse(self, metrics):
            with contextlib.suppress(Exception):
                self.split(weights)

    with pytest.raises(BadArgument, match=says):
        rollout(Wrong())


@pytest.mark.slow
def test_a_controller_that_polls_forever_is_ended(rollout):
    """On the virtual clock, in bounded time."""

    class Waits(Plain):
        ready = False

        def deploy(self, version):
            while not self.ready:
                time.sleep(1)

    with pytest.raises(NeverAnswered, match="the controller hangs"):
        rollout(Waits())


def test_an_error_of_the_controller_is_raised(rollout):
    """It says nothing about a version."""

    class Broken(Plain):
        def split(self, weights):
            raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        rollout(Broken())


def test_the_models_are_as_before_afterwards(rollout):
    """Nothing stays wrapped."""
    controller = Routing()
    before = dict(controller.models)
    rollout(controller)
    assert controller.models == before
    assert not {"deploy", "split", "promote", "rollback"} & vars(controller).keys()


# -- the default test ------------------------------------------------------------------------------


def planted(rollout, number, seed, margin):
    """Count the false promotions and false rollbacks of planted deployments, half of them worse."""
    wrong = {"promoted": 0, "rolled back": 0, "paused": 0}
    for case in range(number):
        draw, worse = random.Random(f"{seed} {case}"), bool(case % 2)
        base = draw.choice([0.0, 0.02, 0.1])

        def model(rate, draw=draw):
            def answer(request):
                if draw.random() < rate:
                    raise ValueError(request)
                return request

            return answer

        both = {"v1": model(base), "v2": model(base + margin * worse)}
        result = rollout(both, REQUESTS, margin=margin, seed=case)
        if result.promoted is worse:
            wrong[result.outcome] += 1
    return wrong


def test_planted_deployments_are_judged_within_the_stated_rates(rollout):
    """A few, by a wide margin."""
    assert planted(rollout, 12, 0, 0.2) == {"promoted": 0, "rolled back": 0, "paused": 0}


@pytest.mark.slow
def test_200_planted_deployments_are_judged_within_the_stated_rates(rollout):
    """At most 5 % of 100 each, by the rates of the default test."""
    wrong = planted(rollout, 200, 1, 0.05)
    assert wrong["promoted"] <= 5
    assert wrong["rolled back"] <= 5
    assert wrong["paused"] <= 10  # 20,000 requests do not decide each of them


def test_the_default_test_holds_however_often_it_is_looked_at():
    """It looks after each observation, and versions that are equal are seldom rejected."""
    rejected = 0
    for seed in range(100):
        draw, old, new = random.Random(seed), Sample(), Sample()
        for _ in range(30):
            old.add(draw.random() < 0.3)
            new.add(draw.random() < 0.3)
            verdict = compare(old, new, margin=0.2, false_rollbacks=0.1, false_promotions=0.1)
            if verdict == "fail":
                rejected += 1
                break
    assert rejected <= 10


def test_the_default_test_says_nothing_without_observations():
    """Three verdicts."""
    how = {"margin": 0.05, "false_rollbacks": 0.05, "false_promotions": 0.05}
    assert compare(Sample(500, 5), Sample(), **how) == "inconclusive"
    assert compare(Sample(500, 5), Sample(500, 250), **how) == "fail"
    assert compare(Sample(5000, 50), Sample(5000, 50), **how) == "pass"
    assert compare(Sample(), Sample(500, 250), **how) == "inconclusive"


class Featured:
    """A controller that makes features by itself. Unsound if its rollback forgets them."""

    def __init__(self, forgets):
        self.forgets, self.used = forgets, None
        self.models = models()

    def deploy(self, version):
        self.used = None

    def split(self, weights):
        """Let each version have its own features."""

    def promote(self):
        self.used = "v2"

    def rollback(self):
        self.used = "v2" if self.forgets else "v1"

    def make(self, version, x):
        return x if version == "v1" else 3 * x

    def handle(self, request, version):
        return self.models[version](self.make(self.used or version, request))


class Transformed(Featured):
    """The same, with a dict of functions by version in an attribute that says so."""

    def __init__(self, forgets):
        super().__init__(forgets)
        self.features = {"v1": lambda x: x, "v2": lambda x: 3 * x}

    def make(self, version, x):
        return self.features[version](x)


class Noisy(Featured):
    """The same, with answers that always differ."""

    def handle(self, request, version):
        return super().handle(request, version) + random.random()


@pytest.mark.parametrize("kind", [Featured, Transformed])
def test_a_rollback_that_forgets_the_features_is_found(rollout, kind):
    """Compare the answers of the old version, or the features that it gets."""
    bad = create("bad_deploy", at=0)
    rollout(kind(forgets=False), REQUESTS, bad).assert_safe()
    with pytest.raises(MixedVersions, match="features"):
        rollout(kind(forgets=True), REQUESTS, bad).assert_safe()


def test_answers_that_always_differ_are_not_compared(rollout):
    """Blame no controller whose model is random."""
    rollout(Noisy(forgets=False), REQUESTS, create("bad_deploy", at=0)).assert_safe()


@pytest.mark.parametrize(
    ("name", "value"),
    [("labels", 5), ("analyse", 3), ("config", 3), ("features", [1]), ("score", 1), ("user", 4)],
)
def test_options_of_a_wrong_type_are_refused(rollout, name, value):
    """In one line, that names the option."""
    with pytest.raises(BadArgument, match=f"mlchaos.rollout: {name} must be"):
        rollout(models(), REQUESTS, **{name: value})


def test_damage_that_nothing_measures_is_inconclusive(rollout):
    """Without labels, nothing can catch wrong answers."""
    result = rollout(models(), REQUESTS, create("bad_deploy", at=0, kind="quality"))
    with pytest.raises(Inconclusive, match="labels="):
        result.assert_safe()


def test_an_async_controller_that_waits_for_nothing_is_told_at_once(rollout):
    """No time limit has to pass."""

    class Hangs(Plain):
        async def split(self, weights):
            await asyncio.Event().wait()

    with pytest.raises(NeverAnswered, match="the controller hangs: nothing is scheduled"):
        rollout(Hangs(), REQUESTS)

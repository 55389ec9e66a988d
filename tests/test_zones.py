"""Zones: replicas of the test's own, an outage of one zone, and a partition."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, PayloadMismatch
from pytest_mlchaos.plugin.fixture import Mlchaos
from tests import serving

faults.load()
sites.load()
LOST = (ConnectionError,)


class Store:
    """A dependency of a replica."""

    def __init__(self, value=1):
        self.value = value

    def get(self, key):
        """Return a value."""
        return self.value + key


class Replica:
    """A model's replica, with its store."""

    def __init__(self, store):
        self.store = store

    async def predict(self, key):
        """Answer after a moment."""
        await asyncio.sleep(0.02)
        return self.store.get(key)

    async def stream(self, count):
        """Answer piece by piece."""
        for number in range(count):
            await asyncio.sleep(1)
            yield number

    def local(self, key):
        """Call a method of its own."""
        return self.helper(key)

    def helper(self, key):
        """Return the key."""
        return key

    def __call__(self, key):
        return key


def here(key):
    """Return the key, in a function that an import reaches."""
    return key


@contextlib.contextmanager
def zoned(tmp_path, *schedule):
    """Run a trial of these faults."""
    with trial(Schedule(schedule), Patches(), clock="virtual") as controller:
        yield Mlchaos(tmp_path), controller


def fails(function, *args):
    """Return True if a call fails as a lost connection does."""
    try:
        function(*args)
    except LOST:
        return True
    return False


def outage(**keywords):
    """Return an outage of the zone eu."""
    return create("zone_outage", **{"zone": "eu", "at": 0, **keywords})


@pytest.mark.parametrize(
    "member",
    [
        lambda: Replica(Store()),
        lambda: Replica(Store()).helper,
        lambda: lambda key: key,
        lambda: functools.partial(here),
        lambda: here,
        lambda: "tests.test_zones:here",
    ],
)
def test_any_kind_of_member_is_away(tmp_path, member):
    """Other zones work, and so does the member after the outage."""
    with zoned(tmp_path, outage(heal_after="30s")) as (mlchaos, controller):
        zones = mlchaos.zones({"eu": [member()], "us": [Store()]})
        assert fails(zones["eu"][0], 1)
        assert zones["us"][0].get(1) == 2
        controller.clock.sleep(29)
        assert fails(zones["eu"][0], 1)
        controller.clock.sleep(1)
        assert zones["eu"][0](1) == 1


def test_all_instances_of_a_class_are_away(tmp_path):
    """A dotted target may be a class, or one of its methods."""
    for target in ("tests.test_zones:Store", "tests.test_zones:Store.get"):
        with zoned(tmp_path, outage()) as (mlchaos, _):
            mlchaos.zones({"eu": [target]})
            assert fails(Store().get, 1)
        assert Store().get(1) == 2


def test_an_object_is_itself_again(tmp_path):
    """Its class and its copies are those of before."""
    store = Store()
    with zoned(tmp_path, outage()) as (mlchaos, _):
        assert mlchaos.zones({"eu": [store]})["eu"] == (store,)
        assert isinstance(store, Store)
        assert fails(copy.deepcopy(store).get, 1)
    assert type(store) is Store
    assert store.get(1) == 2


def test_code_of_a_member_makes_no_visits_of_its_own(tmp_path):
    """Only the call from outside counts."""
    replica = Replica(Store())
    with zoned(tmp_path, outage(at=1)) as (mlchaos, _):
        mlchaos.zones({"eu": [replica]})
        assert replica.local(1) == 1
        assert fails(replica.local, 1)


def test_a_call_under_way_loses_its_answer(tmp_path):
    """The second call begins the outage while the first one runs."""
    replica = Replica(Store())

    async def two():
        both = asyncio.gather(replica.predict(1), replica.predict(2), return_exceptions=True)
        return [type(one) for one in await both]

    with zoned(tmp_path, outage(at=1)) as (mlchaos, _):
        mlchaos.zones({"eu": [replica]})
        assert asyncio.run(two()) == [ConnectionResetError, ConnectionRefusedError]


def test_a_stream_is_cut(tmp_path):
    """Keep what came before the outage."""
    replica, store, got = Replica(Store()), Store(), []

    async def read():
        async for item in replica.stream(3):
            got.append(item)
            if item == 1:
                with contextlib.suppress(ConnectionError):
                    store.get(1)

    with zoned(tmp_path, outage(at=1)) as (mlchaos, _):
        mlchaos.zones({"eu": [replica, store]})
        with pytest.raises(ConnectionResetError):
            asyncio.run(read())
    assert got == [0, 1]


def test_a_zone_is_slow_or_hangs(tmp_path):
    """The faults of the network take the zone of a member. A time limit ends a hanging call."""
    replica = Replica(Store())

    async def wait():
        async with asyncio.timeout(5):
            await replica.predict(1)

    slow = create("slow_network", zone="eu", delay="3s", at=0)
    with zoned(tmp_path, slow, outage(kind="blackhole", at=2)) as (mlchaos, controller):
        mlchaos.zones({"eu": [replica], "us": [Store()]})
        start = controller.clock.now()
        assert asyncio.run(replica.predict(1)) == 2
        assert controller.clock.now() - start == pytest.approx(3.02, abs=0.01)
        asyncio.run(replica.predict(1))
        with pytest.raises(TimeoutError):
            asyncio.run(wait())


def test_a_fault_of_bytes_refuses_a_call(tmp_path):
    """A call has none."""
    cut = create("cut_connection", zone="eu", at=0)
    with (
        pytest.raises(PayloadMismatch, match="needs bytes, and a call of tests"),
        zoned(tmp_path, cut) as (mlchaos, _),
    ):
        store = Store()
        mlchaos.zones({"eu": [store]})
        store.get(1)


def partitioned(mlchaos, **keywords):
    """Return the replicas of two zones. That of eu reads the store of us."""
    eu, us, mine, other = Replica(None), Replica(None), Store(), Store()
    eu.store, us.store = other, other
    mlchaos.zones({"eu": [eu, mine], "us": [us, other]}, **keywords)
    return eu, us, mine, other


def test_a_partition_cuts_calls_between_its_groups_alone(tmp_path):
    """Code that is in no zone reaches both, and so does each zone itself."""
    split = create("zone_partition", zones=[["eu"], ["us"]], heal_after="1m", at=0)
    with zoned(tmp_path, split) as (mlchaos, controller):
        eu, us, mine, _ = partitioned(mlchaos)
        assert fails(asyncio.run, eu.predict(1))
        assert asyncio.run(us.predict(1)) == 2
        assert mine.get(1) == 2
        controller.clock.sleep(60)
        assert asyncio.run(eu.predict(1)) == 2


def test_a_partition_cuts_off_the_balancer_of_a_zone(tmp_path):
    """Without groups, the first call that is struck names them."""
    with zoned(tmp_path, create("zone_partition", at=1)) as (mlchaos, controller):
        eu, us, *_ = partitioned(mlchaos, home="eu")
        assert eu.local(1) == 1  # not between two zones, so it does not count
        assert us.local(1) == 1
        assert fails(us.local, 1)
        assert controller.journal[0].details["caller"] == "eu"


def test_a_thread_of_a_member_is_in_its_zone(tmp_path):
    """A pool carries the zone along."""
    split = create("zone_partition", zones=["eu", "us"], at=0)

    async def app(key):
        """Call the other zone in a thread."""
        return await asyncio.to_thread(other.get, key)

    with serving.serving_in(tmp_path, len, split):
        mlchaos = Mlchaos(tmp_path)
        other = Store()
        replica = mlchaos.zones({"eu": [app], "us": [other]})["eu"][0]
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(replica(1))


def test_an_address_is_in_a_zone(tmp_path):
    """Requests of client libraries fail, and those to other addresses do not."""
    requests = pytest.importorskip("requests")
    with zoned(tmp_path, outage()) as (mlchaos, controller):
        mlchaos.zones({"eu": ["http://127.0.0.1:9/*"], "us": ["http://127.0.0.1:7/*"]})
        with pytest.raises(requests.ConnectionError):
            requests.get("http://127.0.0.1:7/")  # nothing listens there
        assert not controller.journal
        with pytest.raises(requests.ConnectionError):
            requests.get("http://127.0.0.1:9/")
        assert len(controller.journal) == 1


@pytest.mark.parametrize(
    ("members", "keywords", "message"),
    [
        ({}, {}, "must be a dict of zones"),
        ({"eu": []}, {}, "zone 'eu' must have a member"),
        ({"": [len]}, {}, "a zone must have a name"),
        ({"eu": "tests.test_zones:here"}, {}, "Make it a list"),
        ({"eu": [here], "us": ["tests.test_zones:here"]}, {}, "must be in one zone.*'eu' and 'us'"),
        ({"eu": [here], "us": [Store()]}, {"home": "asia"}, "home must be one of 'eu', 'us'"),
        ({"eu": [object()]}, {}, "no public method"),
        ({"us": [here]}, {}, "zone_outage: zone must be one of 'us', got 'eu'"),
    ],
)
def test_bad_zones_are_refused_in_one_line(tmp_path, members, keywords, message):
    """Nothing stays replaced."""
    with (
        zoned(tmp_path, outage()) as (mlchaos, _),
        pytest.raises(BadArgument, match=message) as error,
    ):
        mlchaos.zones(members, **keywords)
    assert "\n" not in str(error.value)
    assert not hasattr(here, "__wrapped__")


def test_zones_are_declared_once(tmp_path):
    """A second call would leave the first one's in doubt."""
    with zoned(tmp_path) as (mlchaos, _):
        zones = mlchaos.zones({"eu": [Store()]})
        with pytest.raises(BadArgument, match="in one call"):
            mlchaos.zones({"us": [Store()]})
        with pytest.raises(BadArgument, match="must be one of 'eu'"):
            zones["us"]


UNSOUND = """
    async def predict(x):
        return await replicas[0](x)
"""
SOUND = """
    async def predict(x):
        for replica in replicas[:-1]:
            try:
                return await replica(x)
            except OSError:
                continue
        return await replicas[-1](x)
"""
BARE = """
import asyncio

async def model(x):
    await asyncio.sleep(0.01)
    return x

def replica():
    async def call(x):
        return await model(x)
    return call

@chaos.zone_outage
def test_it(mlchaos):
    zones = mlchaos.zones({"eu": [replica()], "us": [replica()]})
    replicas = [zones["eu"][0], zones["us"][0]]
    app = balancer(replicas)
    mlchaos.serve(app).drive(range(8), rate=10).assert_slo(availability=1)

def balancer(replicas):
"""


@pytest.mark.parametrize(("balancer", "outcome"), [(UNSOUND, "failed"), (SOUND, "passed")])
def test_an_outage_without_arguments_takes_one_zone(example, balancer, outcome):
    """A balancer that fails over survives each of them, and one without does not."""
    test = BARE + balancer + "    return predict\n"
    example.with_tests(test).run(**{outcome: 1})


def test_recovery_is_judged_from_the_end_of_the_outage(tmp_path):
    """Requests that fail in between are struck, too."""
    replica = Replica(Store())
    with zoned(tmp_path, outage(heal_after="1s", at=1)) as (mlchaos, _):
        mlchaos.zones({"eu": [replica]})
        load = mlchaos.serve(replica.predict).drive(range(30), rate=10)
        assert [reply.number for reply in load.replies if reply.faults] == [*range(1, 12)]
        assert len(load.faults) == 1
        load.assert_recovered(within=0, error_rate=0)
        load.assert_isolated()

"""Replicas behind a balancer: availability, lost requests, sessions, amplification, leaders."""

from __future__ import annotations

import asyncio

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import (
    BadArgument,
    Inconclusive,
    NotExactlyOnce,
    RequestLost,
    SessionLost,
    SplitBrain,
    Unavailable,
)
from tests.test_zones import zoned


class Replica:
    """A replica that writes what it is asked, and keeps sessions."""

    def __init__(self, ledger=None, sessions=None):
        self.ledger = [] if ledger is None else ledger
        self.sessions = {} if sessions is None else sessions

    async def write(self, key):
        """Write a record, and answer after a moment."""
        self.ledger.append(key)
        await asyncio.sleep(0.05)
        return key

    async def write_once(self, key):
        """Write a record if it is not there yet."""
        if key not in self.ledger:
            self.ledger.append(key)
        await asyncio.sleep(0.05)
        return key

    async def add(self, request):
        """Count the requests of a session."""
        name = request["user"]
        self.sessions[name] = self.sessions.get(name, 0) + 1
        return {"user": name, "count": self.sessions[name]}


def balancer(replicas, method):
    """Return an app that asks the first replica that answers."""

    async def app(request):
        for replica in replicas[:-1]:
            try:
                return await getattr(replica, method)(request)
            except OSError:
                continue
        return await getattr(replicas[-1], method)(request)

    return app


def served(mlchaos, eu, us, app):
    """Serve an app of two replicas in two zones."""
    mlchaos.zones({"eu": [eu], "us": [us]})
    return mlchaos.serve(app)


def outage(**keywords):
    """Return an outage of the zone eu."""
    return create("zone_outage", **{"zone": "eu", "at": 5, "heal_after": "1s", **keywords})


def test_availability_is_judged_in_the_load_and_in_its_phases(tmp_path):
    """Few errors of many requests hide an outage, unless it is judged by itself."""
    with zoned(tmp_path, outage()) as (mlchaos, _):
        eu, us = Replica(), Replica()
        load = served(mlchaos, eu, us, balancer([eu], "write")).drive(range(100), rate=10)
        load.assert_available(at_least=0.85, after=0.9)
        with pytest.raises(
            Unavailable, match=r"in the whole load it is 0\.89 \(11 of 100 failed\)"
        ):
            load.assert_available(at_least=0.9)
        with pytest.raises(Unavailable, match=r"during the fault it is 0 \(11 of 11"):
            load.assert_available(at_least=0.8, during=0.5)
        with pytest.raises(BadArgument, match="at_least must be a share"):
            load.assert_available(at_least=99)


def test_a_phase_without_requests_is_refused(tmp_path):
    """The load ends before the outage."""
    with zoned(tmp_path, outage(heal_after="1h")) as (mlchaos, _):
        eu, us = Replica(), Replica()
        load = served(mlchaos, eu, us, balancer([eu, us], "write")).drive(range(20), rate=10)
        load.assert_available(at_least=1, during=1)
        with pytest.raises(BadArgument, match="after= needs a request after the fault"):
            load.assert_available(at_least=1, after=1)


def test_a_lost_request_is_found(tmp_path):
    """With no second replica, and with one."""
    with zoned(tmp_path, outage()) as (mlchaos, _):
        eu, us = Replica(), Replica()
        load = served(mlchaos, eu, us, balancer([eu], "write")).drive(range(30), rate=10)
        with pytest.raises(RequestLost, match=r"11 of 30 requests"):
            load.assert_no_request_lost()
        load.assert_no_request_lost(or_error=True)
    with zoned(tmp_path, outage()) as (mlchaos, _):
        eu, us = Replica(), Replica()
        load = served(mlchaos, eu, us, balancer([eu, us], "write")).drive(range(30), rate=10)
        load.assert_no_request_lost()


@pytest.mark.parametrize(("method", "error"), [("write", NotExactlyOnce), ("write_once", None)])
def test_an_answer_that_is_lost_doubles_its_effect(tmp_path, method, error):
    """The request under way is repeated in the other zone, which needs a key."""
    with zoned(tmp_path, outage()) as (mlchaos, _):
        ledger = []
        eu, us = Replica(ledger), Replica(ledger)
        load = served(mlchaos, eu, us, balancer([eu, us], method)).drive(range(30), rate=40)
        load.assert_available(at_least=1)
        if error is None:
            load.assert_no_request_lost(effects=lambda: ledger)
            return
        with pytest.raises(error, match="request 4 took effect 2 times, and its answer is a value"):
            load.assert_no_request_lost(effects=ledger, key=lambda reply: reply.request)


def test_an_effect_that_is_missing_is_found(tmp_path):
    """An app that says yes, and writes nothing."""
    with zoned(tmp_path, outage(times=1, heal_after=None)) as (mlchaos, _):
        eu, us = Replica(), Replica()

        async def app(key):
            try:
                return await eu.write(key)
            except OSError:
                return key

        load = served(mlchaos, eu, us, app).drive(range(10), rate=10)
        with pytest.raises(NotExactlyOnce, match="request 5 took effect 0 times"):
            load.assert_no_request_lost(effects=eu.ledger)
        with pytest.raises(BadArgument, match="is the key of no request"):
            load.assert_no_request_lost(effects=["a"])


USERS = [{"user": number % 3} for number in range(30)]


def of_user(reply):
    """Return the session of a reply."""
    return reply.request["user"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_session_goes_on_with_its_own_state(tmp_path, shared):
    """Each replica has its own sessions, or they share them."""
    with zoned(tmp_path, outage()) as (mlchaos, _):
        sessions = {} if shared else None
        eu, us = Replica(sessions=sessions), Replica(sessions=sessions)
        load = served(mlchaos, eu, us, balancer([eu, us], "add")).drive(USERS, rate=10)
        if shared:
            load.assert_sessions_kept(of_user, state=lambda reply: reply.value["count"])
            load.assert_sessions_kept(lambda reply: reply.request)
            return
        with pytest.raises(
            SessionLost, match=r"3 of 3(.*\n)+  request 5: by\(reply\): differs by 1"
        ):
            load.assert_sessions_kept(of_user, state=lambda reply: reply.value["count"])


def test_a_session_is_not_judged_after_a_failed_request(tmp_path):
    """Its state is unknown. If that holds for all, nothing is known."""
    with zoned(tmp_path, outage(at=0)) as (mlchaos, _):
        eu, us = Replica(), Replica()
        load = served(mlchaos, eu, us, balancer([eu], "add")).drive(USERS, rate=10)
        with pytest.raises(Inconclusive, match="each of the 3 sessions failed"):
            load.assert_sessions_kept(of_user)
        with pytest.raises(BadArgument, match="got None for all"):
            load.assert_sessions_kept(lambda reply: None)


class Node:
    """A node that leads in an epoch, and serves the writes."""

    def __init__(self, name):
        self.name, self.epoch, self.leads = name, 0, False

    async def write(self, store, *, fenced):
        """Accept a write. With a fence, the store refuses an old epoch."""
        if fenced:
            if store.epoch > self.epoch:
                raise PermissionError("an old epoch")
            store.epoch = self.epoch
        return {"leader": self.name, "epoch": self.epoch}


class Register:
    """A store that remembers the newest epoch."""

    epoch = 0


@pytest.mark.parametrize("fenced", [False, True])
def test_two_leaders_are_found(tmp_path, fenced):
    """The old leader comes back after the outage, and does not know of its successor."""
    with zoned(tmp_path, outage()) as (mlchaos, _):
        eu, us, register = Node("eu"), Node("us"), Register()
        eu.epoch = 1

        async def app(_):
            try:
                return await eu.write(register, fenced=fenced)
            except OSError:
                us.epoch = 2
                return await us.write(register, fenced=fenced)

        load = served(mlchaos, eu, us, app).drive(range(30), rate=10)
        judged = {
            "leader": lambda one: one.value["leader"],
            "epoch": lambda one: one.value["epoch"],
        }
        if fenced:
            load.assert_no_split_brain(**judged)
            return
        with pytest.raises(SplitBrain, match="request 16: an older epoch than request 5"):
            load.assert_no_split_brain(**judged)
        with pytest.raises(SplitBrain, match="in the same epoch"):
            load.assert_no_split_brain(leader=judged["leader"], epoch=lambda one: 1)
        with pytest.raises(BadArgument, match="a node and a number"):
            load.assert_no_split_brain(leader=judged["leader"], epoch=lambda one: "one")


AMPLIFICATION = """
class Replica:
    async def predict(self, x):
        return x

async def hedged(replica, x):
    return await replica.predict(x), await replica.predict(x)

def balancer(replicas, tries):
    async def app(x):
        for _ in range(tries):
            for replica in replicas:
                try:
                    return await hedged(replica, x)
                except OSError:
                    pass
        return None
    return app

@chaos.zone_outage(zone="eu", heal_after="1h", at=0)
@pytest.mark.parametrize("tries", [1, 9])
def test_it(mlchaos, tries):
    eu, us = Replica(), Replica()
    mlchaos.zones({"eu": [eu], "us": [Replica.ping]})
    replicas = [eu] * tries + [us]
    load = mlchaos.serve(balancer(replicas, tries)).drive(range(20), rate=10)
    load.assert_amplification(["test_it:Replica.predict"], at_most=1.6)
"""


@pytest.mark.slow
def test_retries_that_multiply_the_load_are_found(example):
    """Hedging in every load does not count: it is in the golden load, too."""
    test = AMPLIFICATION.replace(', "us": [Replica.ping]', "")
    outcome = example.with_tests("import pytest\n" + test).run(passed=1, failed=1)
    outcome.has("faults multiply the calls of test_it:Replica.predict by")

"""Provide the cases for the faults of the network."""

from __future__ import annotations

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.network import Exchange, Flow
from pytest_mlchaos.testing import Case


def request():
    """Return a request over HTTP."""
    return Exchange("http://api/data", "http")


def empty():
    """Return a request whose answer has no body."""
    return Exchange("http://api/empty", "http")


def plain():
    """Return a connection whose bytes are not understood."""
    return Exchange("redis://cache")


def call():
    """Return a call from one zone to another."""
    return Exchange("app:Replica.predict", "call", zone="eu", caller="us")


def local_call():
    """Return a call inside a zone."""
    return Exchange("app:Store.get", "call", zone="eu", caller="eu")


def received(exchange):
    """Return what arrives of a body, and how its transfer ends."""
    body = b"" if exchange.url.endswith("empty") else bytes(1000)
    flow = Flow(exchange, len(body))
    return flow.feed(body), flow.ended


CASES = {
    "cut_connection": Case(
        create("cut_connection"),
        request,
        operation=received,
        wrong=[plain, call],
        neutral=empty,
        bad=[{"after": -1}, {"after": "soon"}, {"after": None}, {"url": " "}],
    ),
    "reset": Case(create("reset"), request, bad=[{"after": 1.5}]),
    "reset in the middle": Case(
        create("reset", after=100), request, operation=received, neutral=empty
    ),
    "refused": Case(create("refused"), request, bad=[{"zone": ""}, {"target": ""}]),
    "blackhole": Case(create("blackhole"), request),
    "slow_network": Case(
        create("slow_network", jitter="10ms"), request, bad=[{"delay": "soon"}, {"bandwidth": 0}]
    ),
    "http_error": Case(
        create("http_error"),
        request,
        wrong=[plain, call],
        bad=[{"status": 200}, {"retry_after": "x"}],
    ),
    "corrupt_bytes": Case(
        create("corrupt_bytes"),
        request,
        operation=received,
        wrong=[plain],
        neutral=empty,
        bad=[{"after": "soon"}, {"count": 0}],
    ),
    "zone_outage": Case(
        create("zone_outage", zone="eu"),
        request,
        bad=[
            {"duration": "soon"},
            {"heal_after": 0},
            {"connections": 0},
            {"duration": 1, "heal_after": 1},
        ],
    ),
    "zone_outage of a call": Case(create("zone_outage"), call, wrong=[request]),
    "zone_partition": Case(
        create("zone_partition", zones=[["eu"], ["us"]]),
        call,
        wrong=[request, local_call],
        bad=[
            {"zones": [["eu", "us"]]},
            {"zones": ["eu"]},
            {"zones": ["eu", "eu"]},
            {"zones": "eu"},
            {"zones": [["eu"], []]},
            {"heal_after": "soon"},
        ],
    ),
    "slow_network of a call": Case(create("slow_network", delay="1s"), call, bad=[{"answers": 0}]),
}

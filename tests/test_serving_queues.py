"""Queues on the virtual clock, against the theory of queues."""

from __future__ import annotations

import sys
import types

import pytest

from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.plugin.fixture import Mlchaos

SERVICE_SECONDS = 0.02
BATCHES = 20
T99 = 2.861
"""The two-sided 99 % quantile of Student's t, for 19 degrees of freedom."""


@pytest.fixture
def queue_of(tmp_path, monkeypatch):
    """Return the waiting times of Poisson arrivals at one server."""
    module = types.ModuleType("a_server")

    async def serve(x):
        return x

    module.serve = serve
    monkeypatch.setitem(sys.modules, "a_server", module)

    async def app(x):
        return await module.serve(x)

    def waits(service_time, number, load):
        with trial(Schedule(()), Patches(), clock="virtual"):
            mlchaos = Mlchaos(tmp_path)
            server = mlchaos.capacity("a_server:serve", 1, service_time)
            rate = load / SERVICE_SECONDS
            mlchaos.serve(app).drive([0], number=number, rate=rate, pattern="poisson")
            assert server.utilisation == pytest.approx(load, abs=0.05)
            return server.waits

    return waits


def interval(waits):
    """The mean of the waits, and half of its 99 % interval.

    Neighbouring waits depend on each other, so the means of batches are compared.
    """
    size = len(waits) // BATCHES
    means = [sum(waits[place * size :][:size]) / size for place in range(BATCHES)]
    mean = sum(means) / BATCHES
    variance = sum((one - mean) ** 2 for one in means) / (BATCHES - 1)
    return mean, T99 * (variance / BATCHES) ** 0.5


def check(waits, theory):
    """Fail unless the theory is inside the interval."""
    mean, half = interval(waits)
    assert abs(mean - theory) <= half
    return half / theory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service_time", "theory"),
    [("exponential(20ms)", SERVICE_SECONDS), ("20ms", SERVICE_SECONDS / 2)],
    ids=["M/M/1", "M/D/1"],
)
def test_mean_waits_agree_with_theory(queue_of, service_time, theory):
    """At half of the server's capacity, W = ρ / (1 - ρ) · s, and half of that without variance."""
    check(queue_of(service_time, 4_000, 0.5), theory)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service_time", "theory"),
    [("exponential(20ms)", SERVICE_SECONDS), ("20ms", SERVICE_SECONDS / 2)],
    ids=["M/M/1", "M/D/1"],
)
def test_mean_waits_of_many_requests_agree_with_theory(queue_of, service_time, theory):
    """With 200,000 requests, the interval is narrow."""
    assert check(queue_of(service_time, 200_000, 0.5), theory) < 0.05

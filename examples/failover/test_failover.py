"""A zone goes away, and comes back. Is each prediction answered, and billed once?"""

from examples.failover import sound, unsound
from examples.failover.replica import Replica
from pytest_mlchaos import chaos

REQUESTS = [{"key": f"request-{number}", "petal_length": 1.4} for number in range(40)]


def judge(mlchaos, version):
    """Serve a balancer over two zones, 40 requests a second."""
    bill = []
    eu, us = Replica(bill), Replica(bill)
    mlchaos.zones({"eu": [eu], "us": [us]})
    load = mlchaos.serve(version.balancer([eu, us])).drive(REQUESTS, rate=40)
    load.assert_available(at_least=0.99)
    load.assert_no_request_lost(effects=lambda: bill, key=lambda reply: reply.request["key"])


@chaos.zone_outage(zone="eu", heal_after="500ms")
def test_unsound_balancer(mlchaos):
    """The zone takes the answers that were under way with it, and their requests are repeated."""
    judge(mlchaos, unsound)


@chaos.zone_outage(zone="eu", heal_after="500ms")
def test_sound_balancer(mlchaos):
    """A repeated request has the same key."""
    judge(mlchaos, sound)

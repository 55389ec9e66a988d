"""Provide the cases for the faults of federations."""

from __future__ import annotations

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.federation import Round
from pytest_mlchaos.testing import Case


def begun():
    """Return a round of a federation whose clients all take part."""
    return Round(number=1, left=3, clients=(0, 1, 2, 3), size=4, has_data=True)


def begun_without_client():
    """Return a round in which client 3 does not take part."""
    return Round(number=1, left=3, clients=(0, 1), size=4, has_data=True)


def nothing():
    """Return a payload that is not a round."""
    return 7


CLIENTS = [{"client": -1}, {"client": "one"}, {"client": []}, {"client": [0, "one"]}]


def case(fault, bad=()):
    """Return the case of a fault of clients."""
    return Case(fault, begun, wrong=[nothing], bad=[*CLIENTS, *bad], neutral=begun_without_client)


CASES = {
    "client_dropout": case(create("client_dropout", client=3)),
    "late_update": case(create("late_update", client=3), [{"rounds": 0}]),
    "duplicate_update": case(create("duplicate_update", client=[3])),
    "malicious_update": case(
        create("malicious_update", client=3),
        [{"factor": 0.0}, {"classes": 1}, {"trigger": "add_trigger"}],
    ),
    "wrong_keys": case(create("wrong_keys", client=3), [{"prefix": ""}]),
    "all_clients_gone": Case(
        create("all_clients_gone", rounds=1), begun, wrong=[nothing], bad=[{"rounds": 0}]
    ),
    "server_restart": Case(create("server_restart"), begun, wrong=[nothing]),
}

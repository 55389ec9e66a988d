"""Provide the cases for the faults of a served app's clients."""

from __future__ import annotations

from pytest_mlchaos.core.clients import Client
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.streams import StreamPlan
from pytest_mlchaos.testing import Case


def behaves(client):
    """Return how a client behaves, after it has done so."""
    for one in (client.leaves, client.reads, client.sends):
        if one is not None:
            one.struck()
    return [
        None if one is None else [getattr(one, name) for name in one.__slots__ if name != "struck"]
        for one in (client.leaves, client.reads, client.sends)
    ]


def ended(plan):
    """Return how a stream ends, after it has ended."""
    error = None if plan.error is None else plan.error()
    if plan.after is not None:
        plan.took_effect(error)
    return [plan.after, error]


CASES = {
    "stream_cut": Case(
        create("stream_cut", target="json:dumps", after=3),
        StreamPlan,
        operation=ended,
        bad=[{"after": -1}, {"after": 0.5}, {"target": " "}, {"how": "soon"}, {"error": 3}],
    ),
    "stream_cut by an error": Case(
        create("stream_cut", target="json:dumps", how="error"), StreamPlan, operation=ended
    ),
    "client_disconnect": Case(
        create("client_disconnect", after=3),
        Client,
        operation=behaves,
        neutral=object,
        bad=[{"after": -1}, {"after": "soon"}, {"after": True}, {"how": "politely"}],
    ),
    "client_disconnect after a time": Case(
        create("client_disconnect", after="2s", how="send"), Client, operation=behaves
    ),
    "slow_client": Case(
        create("slow_client"),
        Client,
        operation=behaves,
        neutral=object,
        bad=[{"rate": 0}, {"rate": "fast"}, {"pause": -1}, {"of": "both"}],
    ),
    "slow_client that reads": Case(
        create("slow_client", of="download", pause="30s"), Client, operation=behaves
    ),
}

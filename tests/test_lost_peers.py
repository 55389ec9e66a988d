"""Test the words for why ranks lost their peers, from records of worlds that were not run."""

from __future__ import annotations

import types

import pytest

from pytest_mlchaos.core.journal import Strike
from pytest_mlchaos.core.records import RankRecord
from pytest_mlchaos.ranks.judgements.lost_peers import tell_lost_peers
from pytest_mlchaos.ranks.world import _lag

CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
TIMED_OUT = RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 2000ms")


def rank(number, outcome="failed", error=None, ended="", exitcode=1, strike=None):
    """Return the record of a rank after two steps."""
    return RankRecord(
        rank=number,
        outcome=outcome,
        ended=ended,
        exitcode=exitcode,
        duration=1.0,
        lag=None,
        steps=2,
        joining=True,
        joined=True,
        faults=() if strike is None else (strike,),
        stack="",
        output="",
        load_value=lambda: None,
        load_error=lambda: error,
        load_parameters=lambda: (),
        load_not_finite=dict,
    )


def skipped(launches):
    """Return the strike of a desync."""
    details = {"op": "all_reduce", "step": 1, "launches": launches}
    return Strike("desync(at=2)", "collective.all_reduce", 2, details)


CUT = Strike("network_partition()", "collective", 7, {"op": "all_reduce", "step": 1, "cut": "0-1"})


@pytest.mark.parametrize(
    ("other", "error", "cause"),
    [
        (
            rank(1, error=TIMED_OUT, strike=CUT),
            TIMED_OUT,
            "network partition, the link 0-1 was cut",
        ),
        (rank(1, exitcode=-9, ended="was killed by SIGKILL"), CLOSED, "rank 1 died (was killed"),
        (rank(1, error=ValueError("bad")), CLOSED, "rank 1 failed by itself, and no link was cut"),
        (
            rank(1, error=TIMED_OUT, strike=skipped(0)),
            CLOSED,
            "rank 1 skipped collective.all_reduce 2 (step 1): rank 1 timed out",
        ),
        (rank(1, "finished", strike=skipped(2)), CLOSED, "rank 1 doubled collective.all_reduce 2"),
        (rank(1, "finished"), CLOSED, "rank 1 had returned after 2 steps, and no link was cut"),
        (rank(1, "hung"), TIMED_OUT, "rank 1 was still running, and no link was cut"),
        (rank(1, "halted", ended="was delayed (injected)"), TIMED_OUT, "rank 1 was delayed (inj"),
    ],
)
def test_the_cause_of_a_lost_peer_is_told(other, error, cause):
    """A known cause comes first, and what rank 0 noticed comes last."""
    record = types.SimpleNamespace(ranks=(rank(0, error=error), other))
    (line,) = tell_lost_peers(record)
    assert line.strip().startswith(cause), line
    assert "rank 0" in line.rpartition(":")[2]


@pytest.mark.parametrize(("delayed_until", "lag"), [(0.0, 5.0), (8.0, 2.0), (12.0, 0.0)])
def test_a_rank_is_not_blamed_for_an_injected_delay(delayed_until, lag):
    """Count the time that it went on after the first failure, and after its delay."""
    assert _lag(types.SimpleNamespace(left=10.0, delayed_until=delayed_until), 5.0) == lag

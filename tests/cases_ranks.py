"""Provide the cases for the faults of ranks (needs torch)."""

from __future__ import annotations

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case

RANK = {"rank": 1, "world_size": 2}

CASES = {
    "straggler": Case(
        create("straggler", rank=1),
        object,
        attributes=RANK,
        sticky=True,
        bad=[{"delay": 0}, {"share": 1.5}, {"profile": []}, {"delay": 1, "share": 0.5}],
    ),
    "straggler by a profile": Case(
        create("straggler", rank=1, profile=[1, 2]), object, attributes=RANK, sticky=True
    ),
    "slow_gradient_sync": Case(
        create("slow_gradient_sync"), object, attributes=RANK, bad=[{"delay": "soon"}, {"delay": 0}]
    ),
    "rendezvous_timeout": Case(
        create("rendezvous_timeout", rank=1), object, attributes=RANK, bad=[{"late": "soon"}]
    ),
    "a rank that comes late": Case(
        create("rendezvous_timeout", rank=1, late="3s"), object, attributes=RANK
    ),
    "parameter_server_failure": Case(
        create("parameter_server_failure", target="json:loads", mode="raise"),
        lambda: ((), {}),
        bad=[{"target": " "}, {"lost": 0}, {"mode": "sleep"}],
    ),
}

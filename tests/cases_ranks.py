"""Provide the cases for the faults of ranks (needs torch)."""

from __future__ import annotations

import torch

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case

RANK = {"rank": 1, "world_size": 2}
REDUCING = {**RANK, "op": "all_reduce", "step": 0, "sequence": 0, "group": (0, 1)}


def contribution():
    """Return two tensors of one collective."""
    return [torch.arange(1.0, 7.0).reshape(2, 3), torch.ones(2, dtype=torch.float16)]


def zeros():
    """Return a contribution of nothing."""
    return [torch.zeros(3)]


def sparse():
    """Return a contribution that has no elements in order."""
    return [torch.eye(2).to_sparse()]


class RecordedLinks:
    """The links of a rank that only note what is imposed. Each condition has an effect at once."""

    def __init__(self):
        self.imposed = []

    def __reduce__(self):
        return "LINKS"

    def impose(self, directions, condition, took_effect):
        """Note it."""
        self.imposed.append((directions, condition))
        took_effect()

    def passed(self, payload):
        """Return what was imposed since the last visit."""
        imposed, self.imposed = self.imposed, []
        return repr(imposed)


LINKS = RecordedLinks()
LINKED = {**RANK, "links": LINKS}

CASES = {
    "lost_contribution": Case(
        create("lost_contribution", rank=1),
        contribution,
        attributes=REDUCING,
        neutral=zeros,
        wrong=[sparse],
    ),
    "duplicated_contribution": Case(
        create("duplicated_contribution", rank=1),
        contribution,
        attributes=REDUCING,
        neutral=zeros,
        wrong=[sparse],
    ),
    "partial_gradient": Case(
        create("partial_gradient", rank=1, fraction=0.4),
        contribution,
        attributes=REDUCING,
        neutral=zeros,
        wrong=[sparse],
        bad=[{"fraction": 0.0}, {"fraction": 1.0}],
    ),
    "corrupt_contribution": Case(
        create("corrupt_contribution", rank=1),
        contribution,
        attributes=REDUCING,
        neutral=lambda: [torch.empty(0)],
        wrong=[sparse],
        bad=[{"bits": 0}, {"bit": 64}, {"bit": -1}],
    ),
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
    "network_partition": Case(
        create("network_partition", groups=[[0], [1]]),
        object,
        attributes=LINKED,
        operation=LINKS.passed,
        bad=[{"groups": [[0]]}, {"groups": [[0], [0]]}, {"heal_after": "soon"}],
    ),
    "network_partition of a rank": Case(
        create("network_partition", rank=0, heal_after=1),
        object,
        attributes=LINKED,
        operation=LINKS.passed,
    ),
    "slow_link": Case(
        create("slow_link", between=(0, 1), delay="50ms", jitter=0.01),
        object,
        attributes=LINKED,
        operation=LINKS.passed,
        bad=[{"between": (0, 0)}, {"delay": "soon"}, {"bandwidth": 0}, {"jitter": -1}],
    ),
    "corrupt_link": Case(
        create("corrupt_link", between=(0, 1)),
        object,
        attributes={**LINKED, "rank": 0},
        operation=LINKS.passed,
        bad=[{"bits": 0}, {"between": (1,)}],
    ),
    "a black hole between ranks": Case(
        create("blackhole", between=(0, 1), heal_after="1s"),
        object,
        attributes=LINKED,
        operation=LINKS.passed,
        bad=[{"between": (3, 3)}, {"url": "http://x"}],
    ),
}

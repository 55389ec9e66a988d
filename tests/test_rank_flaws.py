"""Test that each fault of ranks reveals a flaw that no other fault of its family reveals.

Each job runs under each fault of its family (needs torch).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed")

from pytest_mlchaos import chaos  # noqa: E402
from tests import rank_flaws  # noqa: E402

RANK_1 = {"rank": 1, "at": 1}


@dataclasses.dataclass(frozen=True)
class Strike:
    """A fault, and what the message about the job that it reveals must name."""

    fault: str
    how: dict[str, Any]
    says: str
    flaw: str = ""

    @property
    def mark(self):
        """Return the decorator."""
        return getattr(chaos, self.fault)(**self.how)


CONTRIBUTIONS = [
    Strike("lost_contribution", RANK_1, r"rank 1: .*struck collective 1 \(all_reduce, step 1\)"),
    Strike(
        "duplicated_contribution", RANK_1, r"rank 1: .*struck collective 1 \(all_reduce, step 1\)"
    ),
    Strike(
        "partial_gradient",
        {**RANK_1, "fraction": 0.6},
        r"rank 1: .*struck collective 1 \(all_reduce, step 1\)",
    ),
    Strike(
        "corrupt_contribution",
        {**RANK_1, "bit": 24},
        r"rank 1: .*struck collective 1 \(all_reduce, step 1\)",
    ),
    Strike(
        "corrupt_result",
        {**RANK_1, "bit": 24},
        r"rank 1: .*struck collective 1 \(all_reduce, step 1\)",
    ),
    Strike(
        "corrupt_link",
        {"between": (1, 2), "at": 6},
        r"rank 1: .*struck collective 6 \(all_gather, step 0\)",
    ),
    Strike(
        "desync",
        {**RANK_1, "site": "collective.all_reduce"},
        r"desync.*",
    ),
]
LINKS = [
    Strike(
        "network_partition",
        {"groups": [[0], [1, 2]], "at": 11},
        r"",
    ),
    Strike("blackhole", {"between": (1, 2), "at": 9}, r""),
    Strike("slow_link", {"between": (0, 1), "delay": 1.5, "at": 12}, r""),
    Strike("corrupt_link", {"rank": 1, "at": 10}, r""),
]
PROCESSES = [
    Strike("rank_failure", {"rank": 1, "at": 2}, r""),
    Strike("straggler", {"rank": 1, "at": 2, "delay": 3}, r""),
    Strike("slow_gradient_sync", {"at": 2, "delay": 3}, r""),
    Strike("store_failure", {"mode": "down", "at": 1}, r""),
    Strike("store_failure", {"mode": "frozen", "at": 1}, r""),
    Strike("rendezvous_timeout", {"rank": 1, "at": 0}, r""),
    Strike(
        "parameter_server_failure",
        {"target": "tests.rank_flaws:Server.push", "rank": 0, "lost": 2, "at": 3},
        r"",
    ),
]


def rows(strikes):
    """Return each flaw, and none, under each fault."""
    flaws = ["", *dict.fromkeys(strike.fault for strike in strikes)]
    return [
        pytest.param(
            strike,
            flaw,
            marks=strike.mark,
            id=f"{flaw or 'sound'}-{strike.fault}{strike.how.get('mode', '')}",
        )
        for flaw in flaws
        for strike in strikes
    ]


def judge(run, strike, flaw):
    """Fail unless the fault reveals its own flaw alone."""
    if flaw != strike.fault:
        run.assert_recovered()
        return
    with pytest.raises(Exception) as caught:
        run.assert_recovered()
    print(type(caught.value).__name__, caught.value)


@pytest.mark.slow
@chaos.settings(timeout=240)
@pytest.mark.parametrize(("strike", "flaw"), rows(CONTRIBUTIONS))
def test_contributions(mlchaos, tmp_path, strike, flaw):
    """Check what each fault of contributions reveals."""
    run = mlchaos.world(ranks=3, restarts=1, timeout=60, grace=3).run(
        rank_flaws.contributed, tmp_path, flaw
    )
    judge(run, strike, flaw)


@pytest.mark.slow
@chaos.settings(timeout=240)
@pytest.mark.parametrize(("strike", "flaw"), rows(LINKS))
def test_links(mlchaos, tmp_path, strike, flaw):
    """Check what each fault of links reveals."""
    run = mlchaos.world(ranks=3, restarts=1, timeout=40, grace=12).run(
        rank_flaws.linked, tmp_path, flaw
    )
    judge(run, strike, flaw)


@pytest.mark.slow
@chaos.settings(timeout=240)
@pytest.mark.parametrize(("strike", "flaw"), rows(PROCESSES))
def test_processes(mlchaos, tmp_path, strike, flaw):
    """Check what each fault of processes, speed and servers reveals."""
    run = mlchaos.world(ranks=3, restarts=1, timeout=90, grace=25).run(
        rank_flaws.interrupted, tmp_path, flaw
    )
    judge(run, strike, flaw)

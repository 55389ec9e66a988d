"""Test that each fault of ranks reveals a flaw that no other fault of its family reveals.

Each job runs under each fault of its family (needs torch).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed")

from pytest_mlchaos import chaos  # noqa: E402
from pytest_mlchaos.errors import NotRecovered  # noqa: E402
from tests import rank_flaws  # noqa: E402

RANK_1 = {"rank": 1, "at": 1}
REDUCTION = r"collective 1 \(all_reduce, step 1\)"


@dataclasses.dataclass(frozen=True)
class Strike:
    """A fault, and where the report about the job that it reveals says that it struck."""

    fault: str
    how: dict[str, Any]
    place: str

    @property
    def mark(self):
        """Return the decorator."""
        return getattr(chaos, self.fault)(**self.how)


CONTRIBUTIONS = [
    Strike("lost_contribution", RANK_1, REDUCTION),
    Strike("duplicated_contribution", RANK_1, REDUCTION),
    Strike("partial_gradient", {**RANK_1, "fraction": 0.6}, REDUCTION),
    Strike("corrupt_contribution", {**RANK_1, "bit": 24}, REDUCTION),
    Strike("corrupt_result", {**RANK_1, "bit": 24}, REDUCTION),
    Strike("corrupt_link", {"between": (1, 2), "at": 6}, r"collective 6 \(all_gather, step 0\)"),
    Strike(
        "desync",
        {**RANK_1, "site": "collective.all_reduce"},
        r"collective\.all_reduce 1 \(step 1\)",
    ),
]
LINKS = [
    Strike(
        "network_partition",
        {"groups": [[0], [1], [2]], "at": 11},
        r"collective 11 \(all_reduce, step 1\)",
    ),
    Strike("blackhole", {"between": (1, 2), "at": 9}, r"collective 9 \(all_reduce, step 2\)"),
    Strike(
        "slow_link",
        {"between": (0, 1), "delay": 1.5, "at": 12},
        r"collective 12 \(all_reduce, step 2\)",
    ),
    Strike("corrupt_link", {"rank": 2, "at": 10}, r"collective 10 \(all_reduce, step 1\)"),
]
PROCESSES = [
    Strike("rank_failure", {"rank": 1, "at": 2}, r"train\.step 2"),
    Strike("straggler", {"rank": 1, "at": 2, "delay": 3}, r"train\.step 2"),
    Strike("slow_gradient_sync", {"at": 2, "delay": 3}, r"collective 2 \(all_reduce, step 2\)"),
    Strike("store_failure", {"mode": "down", "at": 1}, r"train\.step 1"),
    Strike("store_failure", {"mode": "frozen", "at": 1}, r"train\.step 1"),
    Strike("rendezvous_timeout", {"rank": 1, "at": 0}, r"rendezvous 0"),
    Strike(
        "parameter_server_failure",
        {"target": "tests.rank_flaws:Server.push", "rank": 0, "lost": 2, "at": 3},
        r"\S+ 3",
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
    assert run.faults
    if flaw != strike.fault:
        run.assert_recovered()
        return
    with pytest.raises(NotRecovered) as caught:
        run.assert_recovered()
    # If the job was restarted, only the journal has the strike.
    report = "\n".join([str(caught.value), *map(str, run.faults)])
    assert re.search(rf"{strike.fault}\(.* struck {strike.place}", report), report


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

"""A rank is killed at each collective: each world ends in bounded time, and is judged."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from pytest_mlchaos import chaos  # noqa: E402

KILLED: dict = {}
"""The rank and the visit of each strike, by test."""


def train(steps):
    """Train with DDP, and meet after every fifth step."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((2, 4), float(dist.get_rank() + step))).sum().backward()
        optimizer.step()
        if step % 5 == 4:
            dist.barrier()


def meet(steps):
    """Two collectives."""
    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(1))
    dist.barrier()


def judged(mlchaos, name, subject, steps=0):
    """Run a world, and judge it if a rank was killed."""
    run = mlchaos.world(ranks=2, timeout=60, grace=30).run(subject, steps)
    for strike in run.faults:
        rank = strike.details["rank"]
        KILLED.setdefault(name, set()).add((rank, strike.visit))
        assert run.ranks[rank].exitcode == -9
        run.assert_failed_fast(within=25)
    if not run.faults:
        run.assert_finished()


@pytest.fixture(scope="module", autouse=True)
def exhaustive():
    """In each test, each rank was killed at each collective."""
    yield
    for name, killed in KILLED.items():
        visits = range(max(visit for _, visit in killed) + 1)
        assert len(visits) >= (2 if name == "short" else 12)
        assert killed == {(rank, visit) for rank in (0, 1) for visit in visits}


@chaos.rank_failure(site="collective")
@chaos.settings(max_trials=5, max_faults=1, timeout=None)
def test_a_rank_is_killed_at_each_of_two_collectives(mlchaos):
    """The search tries each rank at each of them, and each world ends."""
    judged(mlchaos, "short", meet)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "when",
    [
        pytest.param(when, marks=chaos.rank_failure(site="collective", when=when))
        for when in ("before", "during", "after")
    ],
)
@chaos.settings(max_trials=100, max_faults=1, timeout=None)
def test_a_rank_is_killed_at_each_collective_of_ten_steps(mlchaos, when):
    """DDP's own collectives too: before, during and after each."""
    judged(mlchaos, when, train, 10)

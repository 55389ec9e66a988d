"""Test the fault of parameter servers, with torch's RPC and without (needs torch)."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch.distributed import rpc

from pytest_mlchaos import chaos
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument, NotRecovered, PayloadMismatch, RankFailed
from pytest_mlchaos.faults.ranks.object_state import save_state
from pytest_mlchaos.oracles.state import first_difference
from pytest_mlchaos.testing import strike

pytest.importorskip("cloudpickle")
PUSH = f"{__name__}:Server.push"


class Server:
    """A parameter server. It numbers its updates."""

    def __init__(self):
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9)
        self.version = 0

    def push(self, gradient, expected=None):
        """Take a step, unless it has another number. Return the number of updates."""
        if expected not in (None, self.version):
            return self.version
        self.weight.grad = gradient
        self.optimizer.step()
        self.version += 1
        return self.version


SERVER = Server()


def push(gradient, expected=None):
    """Call the server of this process."""
    return SERVER.push(gradient, expected)


def weights():
    """Return the server's parameters."""
    return SERVER.weight.detach()


def train(sound, steps=6):
    """Rank 0 serves, and rank 1 pushes gradients. A sound worker goes on from the server's number."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    rpc.init_rpc(f"rank{rank}", rank=rank, world_size=size)
    result = None
    if rank == 1:
        done = 0
        while done < steps:
            gradient = torch.full((3,), float(done))
            version = rpc.rpc_sync("rank0", push, (gradient, done if sound else None))
            done = version if sound else done + 1
        result = rpc.rpc_sync("rank0", weights)
    rpc.shutdown()
    return result


@pytest.mark.slow
@chaos.parameter_server_failure(target=PUSH, rank=0, lost=2, at=3)
def test_a_worker_that_trusts_its_server_loses_updates(mlchaos):
    """The server restarts with old parameters, and no error says so."""
    run = mlchaos.world(ranks=2, timeout=60).run(train, False)
    run.assert_finished()
    with pytest.raises(NotRecovered, match=r"parameter_server_failure.* struck call 3"):
        run.assert_recovered()
    assert [len(rank.faults) for rank in run.ranks] == [1, 0]


@pytest.mark.slow
@chaos.parameter_server_failure(target=PUSH, rank=0, lost=2)
@chaos.settings(max_trials=4, max_faults=1, timeout=120)
def test_a_worker_that_sends_again_what_was_lost_recovers(mlchaos):
    """Wherever the server restarts."""
    mlchaos.world(ranks=2, timeout=60).run(train, True).assert_recovered()


@chaos.parameter_server_failure(target=PUSH, mode="kill", at=2)
def test_a_server_that_dies_is_noticed_by_its_worker(mlchaos):
    """Its process is gone, and the call of the worker fails."""
    run = mlchaos.world(ranks=2, timeout=60, grace=20).run(train, True)
    run.assert_failed_fast(within=20)
    assert run.ranks[0].exitcode == -9
    with pytest.raises(RankFailed):
        run.assert_finished()


def reach(retries):
    """Ask a server, which is this process itself, and ask again after an error."""
    rpc.init_rpc("only", rank=0, world_size=1)
    for left in reversed(range(retries + 1)):
        try:
            found = rpc.rpc_sync("only", max, (1, 2))
        except ConnectionError:
            if not left:
                raise
    rpc.shutdown()
    return found


@chaos.parameter_server_failure(mode="raise", at=0)
@pytest.mark.parametrize("retries", [0, 1])
def test_a_server_that_is_not_reached_raises_in_its_caller(mlchaos, retries):
    """A caller that asks once fails, and one that asks again goes on."""
    run = mlchaos.world(ranks=1, timeout=60).run(reach, retries)
    if retries:
        run.assert_recovered()
    else:
        with pytest.raises(RankFailed, match="rank 0 did not finish: it raised ConnectionError"):
            run.assert_finished()


# -- the state of a server -------------------------------------------------------------------------


class Holder:
    """An object with all kinds of state."""

    def __init__(self):
        self.lock = __import__("threading").Lock()
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.table = {"rows": [np.zeros(2)], "names": ("a", "b")}
        self.count = 0
        self.itself = self

    def change(self):
        """Change everything."""
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()
        self.table["rows"][0] += 1
        self.table["rows"].append(np.ones(1))
        self.table["new"] = 1
        self.count += 1
        self.more = True


def test_the_state_of_an_object_is_restored_in_place():
    """Parameters, arrays and containers stay the same objects."""
    holder = Holder()
    held = holder.model.weight, holder.table, holder.table["rows"], holder.table["rows"][0]
    holder.change()
    del holder.more
    before = save_state(holder)
    holder.change()
    assert first_difference(save_state(holder).data, before.data) is not None
    assert before.restore() is holder
    assert first_difference(save_state(holder).data, before.data) is None
    assert not hasattr(holder, "more")
    now = holder.model.weight, holder.table, holder.table["rows"], holder.table["rows"][0]
    assert all(one is other for one, other in zip(held, now, strict=True))
    holder.change()  # the optimizer still trains the model


def struck(at, calls=5, **keywords):
    """Return the numbers that a server gives."""
    fault = create("parameter_server_failure", target=PUSH, at=at, **keywords)
    server = Server()
    payload = ((server, torch.ones(3)), {})
    result = strike(fault, [payload] * calls, operation=lambda call: Server.push(*call[0]))
    return result.outcomes, [entry.visit for entry in result.journal]


def test_a_restart_loses_the_calls_before_it():
    """At the fourth call, the effects of the two before it are gone."""
    assert struck(3) == ([1, 2, 3, 2, 3], [3])
    assert struck(3, lost=3) == ([1, 2, 3, 1, 2], [3])


def test_a_restart_that_loses_nothing_is_no_strike():
    """Before the first call nothing can be lost."""
    assert struck(0) == ([1, 2, 3, 4, 5], [])


def test_a_restart_of_a_function_is_refused():
    """It holds no parameters that are known."""
    fault = create("parameter_server_failure", target="json:loads", at=1)
    outcomes = strike(fault, [(("1",), {})] * 2, attributes={"parameters": ("s",)}).outcomes
    assert isinstance(outcomes[1], PayloadMismatch)
    assert "is not a method" in str(outcomes[1])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"target": " "}, "target must be"),
        ({"lost": 0}, "lost must be 1 or more"),
        ({"target": None}, "mode='restart' needs target="),
    ],
)
def test_what_makes_no_sense_is_refused(keywords, message):
    """The parameter is named."""
    with pytest.raises(BadArgument, match=message):
        create("parameter_server_failure", **{"target": PUSH, "at": 0, **keywords})

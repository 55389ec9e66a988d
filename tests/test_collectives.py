"""The sites of collectives: what passes there, and what faults may do with it."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from pytest_mlchaos import Schedule, chaos  # noqa: E402
from pytest_mlchaos.core.collectives import REDUCING, across, is_counted  # noqa: E402
from pytest_mlchaos.core.faults import FAULTS, Fault, register  # noqa: E402
from pytest_mlchaos.engine.controller import Controller, current  # noqa: E402
from pytest_mlchaos.engine.patching import Patches  # noqa: E402
from pytest_mlchaos.sites import collectives  # noqa: E402

EXPECTED = [
    *("all_reduce", "reduce", "broadcast", "all_gather", "all_gather", "reduce_scatter"),
    *("all_to_all", "gather", "scatter", "barrier", "monitored_barrier"),
    *("send", "send", "recv", "all_gather", "all_gather"),
]


def unregistered(cls):
    """A fault of one test."""
    found = register(cls)
    FAULTS.pop(found.name)
    return found


@unregistered
class Act(Fault):
    """Do something at a collective."""

    random = False
    site: str = "collective"
    act: object = None

    def apply(self, visit):
        return self.act(visit)


@pytest.fixture
def group():
    """A group of this process alone."""
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@contextlib.contextmanager
def armed(act, site="collective", at=0, **more):
    """A trial in which a function acts at a collective."""
    fault = Act(site=site, at=at, act=act, **more)
    with Patches() as patches, Controller(Schedule((fault,))) as controller:
        collectives.arm(controller, patches, fault.key)
        yield controller


def every_operation(steps=1):
    """Call each operation."""
    dist.init_process_group("gloo")
    rank, other = dist.get_rank(), 1 - dist.get_rank()
    t = torch.ones(4)
    dist.all_reduce(t)
    dist.reduce(t, 0)
    dist.broadcast(t, 1)
    dist.all_gather([torch.empty(4), torch.empty(4)], t)
    dist.all_gather_into_tensor(torch.empty(8), t)
    dist.reduce_scatter_tensor(torch.empty(2), t)
    dist.all_to_all_single(torch.empty(4), t)
    dist.gather(t, [torch.empty(4), torch.empty(4)] if rank == 0 else None)
    dist.scatter(t, [torch.empty(4), torch.empty(4)] if rank == 0 else None)
    dist.barrier()
    dist.monitored_barrier()
    if rank == 0:
        dist.send(t, 1)
    else:
        dist.recv(t, 0)
    operations = [dist.P2POp(dist.isend, t, other), dist.P2POp(dist.irecv, torch.empty(4), other)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    dist.all_gather_object([None, None], {"rank": rank})


def logs(run):
    """The logs of a world's ranks."""
    return [rank.collectives for rank in run._record.ranks]


def test_each_operation_is_logged_in_each_rank(mlchaos):
    """Those of Python code and those of objects, in the order of their launches."""
    current().records_collectives = True
    run = mlchaos.world(ranks=2).run(every_operation)
    run.assert_finished()
    first, second = logs(run)
    assert [record.op for record in first.records] == EXPECTED
    assert first.total == second.total == len(EXPECTED)
    assert first.records[0][:9] == ((0, 1), 0, "all_reduce", "float32", 4, None, 0, True, 0)
    assert first.records[7].peer == second.records[7].peer == 0
    assert [r.sequence for r in first.records if r.op == "send"] == [0, 1]


def ddp(steps=3):
    """Train with DDP, whose reducer is C++ code."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((2, 4), float(dist.get_rank() + step))).sum().backward()
        optimizer.step()


@chaos.rank_failure(site="collective.all_reduce", rank=1, at=1)
def test_a_rank_dies_inside_the_reducer(mlchaos):
    """The visits of DDP's own collectives are counted, and its survivor ends."""
    current().records_collectives = True
    run = mlchaos.world(ranks=2).run(ddp)
    run.assert_failed_fast(within=10)
    assert run.ranks[1].exitcode == -9
    assert [r.step for r in logs(run)[1].records if r.op == "all_reduce"] == [0]


def test_a_fault_sees_what_passes(group):
    """Operation, group, size, type, number, step and rank."""
    found = []
    with armed(lambda visit: found.append(dict(visit.attributes)), at=1):
        dist.barrier()
        dist.all_reduce(torch.ones(2, 3, dtype=torch.float64))
    assert found == [
        {
            "op": "all_reduce",
            "group": (0,),
            "size": 6,
            "dtype": "float64",
            "sequence": 1,
            "peer": None,
            "tag": 0,
            "waits": True,
            "step": 0,
            "rank": 0,
            "world_size": 1,
        }
    ]


def test_contributions_are_changed_in_place_or_returned(group):
    """A returned one leaves the tensor of the subject as it is, unless the result is put there."""
    given, taken = torch.ones(2), [torch.zeros(2)]
    with armed(lambda visit: [visit.payload[0] * 3]):
        dist.all_gather(taken, given)
    assert (given.tolist(), taken[0].tolist()) == ([1, 1], [3, 3])
    with armed(lambda visit: [visit.payload[0] * 3]):
        dist.all_reduce(given)
    assert given.tolist() == [3, 3]
    with armed(lambda visit: [visit.payload[0].zero_()]):
        dist.all_reduce(given)
    assert given.tolist() == [0, 0]


def test_results_are_changed_after_the_end(group):
    """The operation is finished then, also an asynchronous one."""
    t = torch.ones(2)

    def act(visit):
        outputs = visit.collective.outputs
        visit.after(lambda: outputs[0].add_(visit.payload[0]))

    with armed(act):
        work = dist.all_reduce(t, async_op=True)
        assert t.tolist() == [2, 2]
        work.wait()


@pytest.mark.parametrize("times", [0, 2])
def test_an_operation_is_skipped_or_doubled(group, times):
    """A skipped one is finished for its caller, and it does not count as launched."""
    found, t = [], torch.ones(2)

    def act(visit):
        visit.collective.double() if times else visit.collective.skip()

    with armed(act) as controller, Patches() as patches:
        collectives.record_collectives(controller, patches, found.append)
        dist.all_reduce(t)
        dist.barrier()
    assert [record.op for record in found] == ["all_reduce"] * times + ["barrier"]
    assert [record.sequence for record in found] == list(range(times + 1))


def test_an_error_comes_out_of_the_call(group):
    """With its own type."""

    def act(visit):
        visit.fail(OSError("lost"))

    with armed(act), pytest.raises(OSError, match="lost"):
        dist.broadcast(torch.ones(1), 0)


def test_nothing_is_left_behind(group):
    """The operators have no kernel of ours before a trial and after it."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert not has("c10d::allreduce_", "BackendSelect")
    with armed(lambda visit: None, site="collective.all_reduce"):
        assert has("c10d::allreduce_", "BackendSelect")
        assert not has("c10d::barrier", "BackendSelect")
    assert not has("c10d::allreduce_", "BackendSelect")


@pytest.mark.parametrize(
    ("key", "op", "members", "counts"),
    [
        ("collective", "send", (0, 1), True),
        ("collective.send", "recv", (0, 1), False),
        (REDUCING, "reduce_scatter", (0, 1), True),
        (REDUCING, "broadcast", (0, 1), False),
        (across([[0], [1, 2]]), "barrier", (0, 2), True),
        (across([[0], [1, 2]]), "barrier", (1, 2), False),
        (across([[0], [1, 2]]), "barrier", (0, 3), False),
    ],
)
def test_a_key_counts_some_of_them(key, op, members, counts):
    """All, those of one operation, the reducing ones, or those between sides."""
    assert is_counted(key, op, members) is counts

"""Test the faults of links between ranks: what each reveals, and what it lets pass (needs torch)."""

from __future__ import annotations

import contextlib
import datetime
import os
import types
import unittest
import zlib

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import chaos
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.journal import Strike
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.counters import ProcessCounts
from pytest_mlchaos.errors import BadArgument, NotRecovered, RankFailed, RankHung
from pytest_mlchaos.ranks.world import RankOptions, _check_faults, _end_link_faults

psutil = pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")  # most subjects here are local functions

LIMIT = 2.0
"""The time limit of a group in seconds."""
SECOND = 7
"""The all-reduce of the second step, after the collectives with which DDP sets itself up."""


def limit(group, seconds):
    """Limit the collectives from here on. Ranks on a busy machine may need longer to meet."""
    dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=seconds), group)


def train(folder, seconds=None, steps=5, swallow=False, meet=None):
    """Train with DDP, with a checkpoint after each step. It resumes from the last one.

    ``meet`` also limits the collectives with which the groups and DDP set themselves up.
    """
    early = meet and datetime.timedelta(seconds=meet)
    dist.init_process_group("gloo", timeout=early)
    dist.barrier()
    group = dist.new_group(timeout=early)
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    last, done = folder / "last.pt", 0
    if last.exists():
        done, state = torch.load(last)
        model.load_state_dict(state)
    wrapped = DistributedDataParallel(model, process_group=group)
    if seconds is not None:
        limit(group, seconds)
    for step in range(done, steps):
        optimizer.zero_grad()
        try:
            wrapped(torch.full((4, 8), float(step + dist.get_rank()))).square().mean().backward()
        except RuntimeError:
            if not swallow:
                raise
        optimizer.step()
        if dist.get_rank() == 0:
            torch.save((step + 1, model.state_dict()), folder / "last.tmp")
            os.replace(folder / "last.tmp", last)
    return model.state_dict()


def fsdp():
    """Train with FSDP2."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    dist.barrier()
    group = dist.new_group()
    mesh = DeviceMesh.from_group(group, "cpu")
    model = fully_shard(torch.nn.Linear(8, 8), mesh=mesh)
    limit(group, LIMIT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def checksum(tensor):
    """Return a positive 31-bit number."""
    return zlib.crc32(tensor.numpy().tobytes()) & 0x7FFFFFFF


def exchange(checked, steps=4):
    """Add up vectors of all ranks. With ``checked``, each has a checksum, and is sent again."""
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=10))
    total = torch.zeros(16)
    for step in range(steps):
        own = torch.full((16,), float(step + dist.get_rank()))
        mark = torch.tensor([checksum(own)], dtype=torch.int32).view(torch.float32)
        while True:
            parts = [torch.zeros(17) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, torch.cat([own, mark]))
            intact = all(
                checksum(part[:16]) == part[16:].view(torch.int32).item() for part in parts
            )
            agreed = torch.tensor([float(intact)])
            dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
            if not checked or agreed.item():
                break
        total += sum(part[:16] for part in parts)
    return total


# -- network_partition -----------------------------------------------------------------------------


@pytest.mark.slow
@chaos.network_partition(groups=[[0], [1]], at=SECOND)
def test_a_partition_reveals_a_job_without_a_time_limit(mlchaos, tmp_path):
    """No connection closes, so both ranks wait. gloo's own limit is half an hour."""
    run = mlchaos.world(ranks=2, timeout=15, grace=1).run(train, tmp_path)
    with pytest.raises(RankHung, match="rank 0 was still running"):
        run.assert_failed_fast()


@chaos.rank_failure(rank=1, mode="kill", at=2)
def test_a_death_does_not_reveal_it(mlchaos, tmp_path):
    """The twin of the test above: a peer's death closes its connections."""
    run = mlchaos.world(ranks=2, timeout=60, grace=30).run(train, tmp_path)
    run.assert_failed_fast(within=25)
    assert run.ranks[0].lost_peer == "closed"
    assert "rank 1 died (was killed by SIGKILL" in run.story()
    assert "and no link was cut: rank 0 found a connection closed by its peer" in run.story()


@chaos.network_partition(groups=[[0], [1]], at=SECOND)
def test_a_job_that_restarts_from_its_checkpoint_passes(mlchaos, tmp_path):
    """Its group has a time limit, and the second world finds a healthy network."""
    run = mlchaos.world(ranks=2, restarts=1).run(train, tmp_path, LIMIT)
    run.assert_recovered()
    assert run.restarts == 1


@chaos.network_partition(groups=[[0], [1, 2]], at=SECOND)
def test_the_error_names_ranks_links_step_and_collective(mlchaos, tmp_path):
    """Check it with three ranks. A ring needs all links, so the two on one side fail, too."""
    run = mlchaos.world(ranks=3, timeout=60, grace=30).run(train, tmp_path, LIMIT)
    with pytest.raises(
        RankFailed,
        match=r"network partition, the links 0-1, 0-2 were cut at collective 7 \(all_reduce, after "
        r"1 step\), and no rank died: .*rank 0.* timed out",
    ):
        run.assert_finished()
    assert [strike.details["cut"] for strike in run.faults] == ["0-1, 0-2", "1-0", "2-0"]


@chaos.network_partition(rank=1, at=1, heal_after=0.7)
def test_a_short_partition_only_delays(mlchaos, tmp_path):
    """Deliver what was sent in the meantime when the links work again."""
    run = mlchaos.world(ranks=2).run(train, tmp_path, 20)
    run.assert_recovered()
    assert run.restarts == 0
    assert run.duration > 0.7


@chaos.network_partition(groups=[[0], [1]], at=4)
def test_a_partition_of_fsdp(mlchaos):
    """Both ranks time out in a collective of FSDP2."""
    run = mlchaos.world(ranks=2, timeout=60, grace=30).run(fsdp)
    assert [rank.lost_peer for rank in run.ranks] == ["timed out"] * 2


@pytest.mark.slow
@chaos.network_partition
@chaos.settings(max_trials=4)
def test_the_rank_that_is_cut_off_is_searched(mlchaos, tmp_path):
    """A checkpoint at each step is enough for a partition at any collective."""
    run = mlchaos.world(ranks=2, restarts=1, timeout=60).run(train, tmp_path, 5, 2, False, 5)
    run.assert_recovered()


# -- a partition and a death are told apart --------------------------------------------------------


def check_told_apart(mlchaos, tmp_path, kill):
    """Run a world, and check that each rank, and the text, tell what has happened to it."""
    run = mlchaos.world(ranks=2, timeout=60, grace=30).run(train, tmp_path, LIMIT, 3)
    with pytest.raises(RankFailed) as failure:
        run.assert_finished()
    text = str(failure.value)
    partition, death = "network partition, the link 0-1" in text, "rank 1 died" in text
    assert (partition, death) == (not kill, kill), text
    lost = [rank.lost_peer for rank in run.ranks]
    assert lost == (["closed", ""] if kill else ["timed out", "timed out"]), text


TOLD_APART = [
    pytest.param(
        False, marks=chaos.network_partition(groups=[[0], [1]], at=SECOND), id="partition"
    ),
    pytest.param(
        True, marks=chaos.rank_failure(site="collective", rank=1, at=SECOND, mode="kill"), id="kill"
    ),
]


@pytest.mark.parametrize("kill", TOLD_APART)
def test_a_partition_and_a_death_are_told_apart(mlchaos, tmp_path, kill):
    """Behind a partition both sides time out. A death closes the connection at once."""
    check_told_apart(mlchaos, tmp_path, kill)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(50))
@pytest.mark.parametrize("kill", TOLD_APART)
def test_they_are_told_apart_in_a_hundred_runs(mlchaos, tmp_path, kill, number):
    """Repeat the test above, so that a race would show."""
    check_told_apart(mlchaos, tmp_path, kill)


def test_a_partition_does_not_strike_in_the_next_attempt_again():
    """A rank may have failed before its own visit, for example if groups are not of all ranks."""
    schedule = Schedule.parse(
        "network_partition(groups=[[0], [1]], at=11), lost_contribution(at=0)"
    )
    key, other = (fault.key for fault in schedule.faults)
    counts = {0: ProcessCounts({key: 12, other: 3}), 1: ProcessCounts({key: 9, other: 3})}
    strike = Strike("network_partition()", "collective", 11)
    ranks = [
        types.SimpleNamespace(number=0, strikes=[(0, strike)]),
        types.SimpleNamespace(number=1, strikes=[(1, strike)]),
    ]
    _end_link_faults(schedule, counts, types.SimpleNamespace(ranks=ranks))
    assert [counts[rank].passed for rank in (0, 1)] == [{key: 12, other: 3}] * 2


# -- in networks of the kernel ---------------------------------------------------------------------


def network_of(pid):
    """Return the network of a process, or "" if it has just ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""


@chaos.network_partition(groups=[[0], [1]], at=SECOND, real=True)
def test_a_real_partition_is_like_the_imitated_one(mlchaos, tmp_path):
    """Drop packets in the kernel. No process with a network of its own is left."""
    run = mlchaos.world(ranks=2, timeout=60, grace=30).run(train, tmp_path, LIMIT)
    assert [rank.lost_peer for rank in run.ranks] == ["timed out"] * 2
    assert [strike.details["cut"] for strike in run.faults] == ["0-1", "1-0"]
    assert "network partition, the link 0-1 was cut at collective 7" in run.story()
    ours = os.readlink("/proc/self/ns/net")
    below = psutil.Process().children(recursive=True)
    assert {network_of(process.pid) for process in below} <= {ours, ""}


@pytest.mark.slow
@chaos.blackhole(between=(0, 1), at=SECOND, real=True, heal_after=0.5)
def test_a_real_link_heals(mlchaos, tmp_path):
    """Send lost packets again, as TCP does."""
    run = mlchaos.world(ranks=3).run(train, tmp_path, 20)
    run.assert_recovered()
    assert run.restarts == 0


def test_a_kernel_without_namespaces_skips_the_test(monkeypatch):
    """Say why. A fault that passes its traffic through proxies cannot strike beside a real one."""
    from pytest_mlchaos.ranks.links import real

    options = RankOptions(ranks=2, backend="gloo", restarts=0, timeout=1, grace=1)
    fault = "network_partition(groups=[[0], [1]], at=0, real=True)"
    with pytest.raises(BadArgument, match="excludes slow_link"):
        _check_faults(
            Controller(Schedule.parse(f"{fault}, slow_link(between=(0, 1), at=0)")), options
        )
    monkeypatch.setattr(real, "why_no_namespaces", lambda: "the kernel does not allow it")
    with pytest.raises(unittest.SkipTest, match="the kernel does not allow it"):
        _check_faults(Controller(Schedule.parse(fault)), options)


# -- slow_link -------------------------------------------------------------------------------------


@chaos.slow_link(between=(0, 1), delay=0.6, at=SECOND)
@pytest.mark.parametrize(
    ("seconds", "sound"),
    [(0.5, False), pytest.param(20, True, marks=pytest.mark.slow)],
)
def test_a_slow_link_reveals_a_time_limit_that_is_too_short(mlchaos, tmp_path, seconds, sound):
    """Each message comes after 0.6 s, which is longer than the group waits."""
    run = mlchaos.world(ranks=2, timeout=60, grace=30).run(train, tmp_path, seconds, 2)
    if sound:
        run.assert_recovered()
    else:
        with pytest.raises(RankFailed, match=r"the link 0-1 was slow from .* timed out"):
            run.assert_finished()


@chaos.slow_link(between=(1, 2), bandwidth="2kB/s", at=SECOND)
def test_nothing_is_left_of_a_world_with_links(mlchaos, tmp_path):
    """The process that the links pass ends with its world. In a ring, each link is used."""

    def subject(folder):
        train(folder, 20, 2)
        return [child.pid for child in psutil.Process(os.getppid()).children()]

    run = mlchaos.world(ranks=3).run(subject, tmp_path)
    pids = {pid for rank in run.ranks for pid in rank.value}
    assert len(pids) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)


# -- blackhole between ranks -----------------------------------------------------------------------


@chaos.blackhole(between=(0, 1), at=SECOND)
@pytest.mark.parametrize("swallow", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_dead_link_reveals_a_swallowed_error(mlchaos, tmp_path, swallow):
    """A job that goes on without its gradients ends elsewhere. One that restarts does not."""
    run = mlchaos.world(ranks=3, restarts=1).run(train, tmp_path, LIMIT, 3, swallow)
    if swallow:
        with pytest.raises(NotRecovered):
            run.assert_recovered()
    else:
        run.assert_recovered()


# -- corrupt_link ----------------------------------------------------------------------------------


@chaos.corrupt_link(between=(0, 1), bits=1, at=SECOND)
def test_a_flipped_bit_leaves_ddp_identical_and_wrong(mlchaos, tmp_path):
    """All ranks agree, and only the golden run shows it."""
    run = mlchaos.world(ranks=2).run(train, tmp_path, 20)
    run.assert_in_sync()
    with pytest.raises(NotRecovered):
        run.assert_recovered()


@chaos.corrupt_link(between=(1, 0), bits=2, at=2)
@pytest.mark.parametrize("checked", [True, False])
def test_a_checksum_detects_it(mlchaos, checked):
    """A message that does not match its checksum is sent again."""
    run = mlchaos.world(ranks=2).run(exchange, checked)
    if checked:
        run.assert_recovered()
    else:
        with pytest.raises(NotRecovered, match="rank 0"):
            run.assert_recovered()


# -- what bad input gets ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keywords", "says"),
    [
        ("network_partition", {"groups": [[0], [0, 1]]}, "rank 0 is in them more than once"),
        ("network_partition", {"groups": [[0, 1]]}, "two or more lists"),
        ("network_partition", {"groups": [[0], []]}, "two or more lists"),
        ("network_partition", {"groups": 1}, "two or more lists"),
        ("network_partition", {"groups": [[0], [-1]]}, "two or more lists"),
        ("network_partition", {"groups": [[0], [1]], "rank": 0}, "excludes groups="),
        ("network_partition", {"heal_after": 0}, "longer than 0"),
        ("slow_link", {"between": (1, 1)}, "a rank has no link to itself"),
        ("slow_link", {"between": (0, 1, 2)}, "must be two ranks"),
        ("slow_link", {"bandwidth": "fast"}, "slow_link: bandwidth must be"),
        ("corrupt_link", {"bits": 0}, "bits must be 1 or more"),
        ("corrupt_link", {"between": (0, 1), "rank": 0}, "excludes between="),
        ("blackhole", {"between": (0, 1), "url": "http://x"}, "excludes url="),
        ("blackhole", {"between": (2, 2)}, "no link to itself"),
        ("blackhole", {"heal_after": 1}, "needs between="),
    ],
)
def test_wrong_links_are_refused(name, keywords, says):
    """The error names the parameter."""
    with pytest.raises(BadArgument, match=says):
        create(name, **keywords)


@pytest.mark.parametrize(
    ("fault", "ranks", "says"),
    [
        ("network_partition(groups=[[0], [1, 2]], at=0)", 2, "rank 2 is not in this world"),
        ("network_partition(groups=[[0], [1]], at=0)", 3, "rank 2 is in none of them"),
        ("network_partition(at=0, rank=0)", 1, "no links between ranks"),
        ("slow_link(between=(0, 5), at=0)", 2, "rank 5 is not in this world"),
        ("blackhole(between=(0, 2), at=0)", 2, "rank 2 is not in this world"),
        ("corrupt_link(rank=2, at=0)", 2, "rank must be below 2"),
    ],
)
def test_links_outside_of_the_world_are_refused(fault, ranks, says):
    """Such a fault strikes in none of its ranks, which is an error of the test."""
    with pytest.raises(BadArgument, match=says):
        Schedule.parse(fault).faults[0].check_world(ranks)


def test_a_backend_without_such_links_is_refused():
    """NCCL has connections of its own."""
    options = RankOptions(ranks=2, backend="nccl", restarts=0, timeout=1, grace=1)
    with pytest.raises(BadArgument, match="needs backend='gloo'"):
        _check_faults(Controller(Schedule.parse("slow_link(between=(0, 1), at=0)")), options)


@pytest.mark.slow
def test_a_world_that_never_makes_a_group_is_not_disturbed(example):
    """The fault has not struck, so nothing was tested."""
    example.with_tests("""
        import os

        @chaos.network_partition(groups=[[0], [1]], at=0)
        def test_it(mlchaos):
            mlchaos.world(ranks=2).run(os.getpid).assert_finished()
    """).run(failed=1).has("NeverStruck: network_partition", "was never passed")

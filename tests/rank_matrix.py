"""Provide one job for real DDP and FSDP2, and a table of what each fault of ranks does to it.

A row has a fault, the weakness that it reveals, the judgement that sees it, and what the message
must name. The same job without the weakness is the sound twin.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pytest_mlchaos import chaos, errors
from tests.rank_jobs import local

REDUCTIONS = {"ddp": "all_reduce", "fsdp": "reduce_scatter"}
"""The collective that reduces the gradients of each kind of job."""
TOO_SHORT, LIMIT, PATIENT = 1.5, 4.0, 60.0
"""Time limits of a group in seconds."""
MOMENTS = ("before", "during", "after")


def limited_group(seconds, meet=60):
    """Return a group of all ranks with this time limit. Ranks on a busy machine meet before it."""
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=meet))
    dist.barrier()
    return dist.new_group(timeout=seconds and datetime.timedelta(seconds=seconds))


def wrapped(kind, group):
    """Return a small model, wrapped as ``kind`` says."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    if kind == "ddp":
        return DistributedDataParallel(model, process_group=group)
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=DeviceMesh.from_group(group, "cpu"))


def gathered(group, *numbers):
    """Return the numbers of all ranks."""
    own = torch.tensor(numbers, dtype=torch.float64)
    parts = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own, group=group)
    return torch.stack(parts)


def gradients(model, step):
    """Compute the gradients of a step, and return copies of what this rank holds."""
    model.zero_grad()
    x = torch.linspace(-1, 1, 32).reshape(8, 4) + 0.1 * dist.get_rank() + 0.01 * step
    (model(x) - x[:, :2]).square().mean().backward()
    return [local(parameter.grad) for parameter in model.parameters()]


def train(folder, kind, weakness="", limit=PATIENT, steps=4):
    """Train with a checkpoint for each step and rank, and return what this rank holds.

    The sound job computes its gradients twice, and ends if they differ in any rank. It goes on from
    the last step that all ranks have saved.

    Args:
        folder: The directory of the checkpoints.
        kind: ``"ddp"`` or ``"fsdp"``.
        weakness: ``"trusts"``: it computes its gradients once. ``"swallows"``: it goes on if a
            collective fails. ``"forgets"``: it resumes from a step without its parameters.
        limit: The time limit of its collectives in seconds, or None for gloo's own.
        steps: The number of steps.
    """
    group = limited_group(limit)
    model = wrapped(kind, group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = folder / str(dist.get_rank())
    own.mkdir(exist_ok=True)
    done = int(gathered(group, len(list(own.glob("*.pt")))).min())
    if done and weakness != "forgets":
        with torch.no_grad():
            saved = torch.load(own / f"{done}.pt")
            for parameter, value in zip(model.parameters(), saved, strict=True):
                getattr(parameter, "to_local", lambda p=parameter: p)().copy_(value)
    gradients(model, 0)  # DDP puts its buckets in order, and sums differently from then on
    for step in range(done, steps):
        try:
            found = gradients(model, step)
            if weakness != "trusts":
                again = gradients(model, step)
                same = all(map(torch.equal, found, again))
                if not gathered(group, float(same)).all():
                    raise ValueError(f"step {step}: the gradients differ")
        except RuntimeError:
            if weakness != "swallows":
                raise
        optimizer.step()
        torch.save([local(parameter) for parameter in model.parameters()], own / "new")
        os.replace(own / "new", own / f"{step + 1}.pt")
    return [local(parameter) for parameter in model.parameters()]


@dataclasses.dataclass(frozen=True)
class Row:
    """Describe what a fault does to a job with a weakness, and what must see it.

    In texts, ``{op}`` is the reduction of the job.

    Attributes:
        fault: The name of the fault.
        how: Its parameters.
        weakness: What the unsound job does wrong, as parameters of ``train``.
        judge: The judgement that sees it.
        verdict: The error that the judgement raises.
        says: What the message must match, as regular expressions.
        sound: What the sound twin does instead. Its world may be restarted once.
        world: Options of the world.
        in_sync: True if the ranks agree with each other although they are wrong.
        name: What to add to the name of the row.
    """

    fault: str
    how: Mapping[str, Any]
    weakness: Mapping[str, Any]
    judge: str
    verdict: type[Exception]
    says: tuple[str, ...]
    sound: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    world: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_sync: bool = False
    name: str = ""

    @property
    def id(self):
        """Return the name of the row."""
        return f"{self.fault}-{self.name}" if self.name else self.fault

    def mark(self, kind):
        """Return the decorator for a kind of job."""
        return getattr(chaos, self.fault)(
            **{
                key: value.format(op=REDUCTIONS[kind]) if isinstance(value, str) else value
                for key, value in self.how.items()
            }
        )

    def missing(self, text, kind):
        """Return what a message does not name."""
        wanted = [pattern.replace("{op}", REDUCTIONS[kind]) for pattern in self.says]
        return [pattern for pattern in wanted if not re.search(pattern, text)]


def contribution(fault, *, in_sync=True, **how):
    """Return a row of a wrong value, which no rank notices by itself."""
    return Row(
        fault,
        {"rank": 1, "at": 2, **how},
        {"weakness": "trusts"},
        "assert_recovered",
        errors.NotRecovered,
        (rf"rank 1: .*{fault}.* struck collective 2 \({{op}}, step 1\)",),
        in_sync=in_sync,
    )


def desync(how):
    """Return a row of a rank that skips a collective, or doubles it."""
    done = "skipped" if how == "skip" else "doubled"
    return Row(
        "desync",
        {"rank": 1, "at": 2, "how": how, "site": "collective.{op}"},
        {"weakness": "trusts", "limit": LIMIT},
        "assert_no_desync",
        errors.MismatchedCollectives,
        (
            r"^collective \d+: rank 0 \w+, rank 1 \w+",
            r"rank 1: .*desync.* struck collective\.{op} 2 \(step 1\)",
            rf"rank 1 {done} collective\.{{op}} 2 \(step 1\)",
        ),
        sound={"limit": LIMIT},
        name=how,
    )


def ends(mode, when):
    """Return a row of a rank that ends."""
    how = {"kill": "was killed by SIGKILL", "raise": "raised RuntimeError", "exit": "exited"}[mode]
    return Row(
        "rank_failure",
        {"rank": 1, "mode": mode, "when": when, "site": "collective.{op}", "at": 3},
        {"weakness": "forgets"},
        "assert_recovered",
        errors.NotRecovered,
        (rf"attempt 1: 1 step, then rank 1 {how}.*collective\.{{op}} 3 \(step 1\)",),
        world={"restarts": 1},
        name=f"{mode}-{when}",
    )


def stops(mode, when):
    """Return a row of a rank that stops, so that no connection closes."""
    return Row(
        "rank_failure",
        {"rank": 1, "mode": mode, "when": when, "site": "collective.{op}", "at": 3},
        {"limit": None},
        "assert_failed_fast",
        errors.RankHung,
        (
            r"^rank [02] was still running .* after rank 1 hung \(injected\)",
            r"rank 1: 1 step, .*rank_failure.* struck collective\.{op} 3 \(step 1\)",
        ),
        sound={"limit": LIMIT},
        world={"timeout": 20, "grace": 2 * LIMIT},
        name=f"{mode}-{when}",
    )


def late(fault, struck, **how):
    """Return a row of a rank that is slow, in a job with a time limit that is too short."""
    return Row(
        fault,
        how,
        {"limit": TOO_SHORT},
        "assert_finished",
        errors.RankFailed,
        (rf"rank 1: .*{fault}.* struck {struck}", r"rank [012] (and rank 2 )?timed out"),
    )


def link(fault, weakness, judge, verdict, *says, sound=None, world=None, name="", **how):
    """Return a row of a fault of links."""
    return Row(
        fault,
        {"at": LINK_VISIT, **how},
        weakness,
        judge,
        verdict,
        (rf"{fault}.* struck collective \d+ \(\w+, step \d\)", *says),
        sound=sound or {},
        world=world or {},
        name=name,
    )


LINK_VISIT = 12
"""A collective of the second step. The links of all ranks have carried some by then."""
HANGS = {"timeout": 12, "grace": 1}
CUT = {"limit": LIMIT}

ROWS = [
    contribution("lost_contribution"),
    contribution("duplicated_contribution"),
    contribution("partial_gradient", fraction=0.4),
    contribution("corrupt_contribution", bit=22),
    contribution("corrupt_result", in_sync=False, bit=22),
    desync("skip"),
    desync("double"),
    *(ends(mode, when) for mode in ("kill", "raise", "exit") for when in MOMENTS),
    *(stops(mode, when) for mode in ("hang", "freeze") for when in MOMENTS),
    late("straggler", r"train\.step 1", rank=1, at=1, delay=6),
    late("slow_gradient_sync", r"collective 2 \({op}, step \d\)", rank=1, at=2, delay=6),
    link(
        "network_partition",
        {"limit": None},
        "assert_failed_fast",
        errors.RankHung,
        r"rank [012] was still running",
        sound=CUT,
        world=HANGS,
        rank=1,
    ),
    link(
        "network_partition",
        {"limit": TOO_SHORT},
        "assert_finished",
        errors.RankFailed,
        r"network partition, the links? 0-1.* cut at collective 12 \(\w+, after 1 step\), and no "
        r"rank died: .* timed out",
        name="healed",
        rank=1,
        heal_after=6,
    ),
    link(
        "blackhole",
        {"limit": None},
        "assert_failed_fast",
        errors.RankHung,
        r"rank [012] was still running",
        sound=CUT,
        world=HANGS,
        between=(0, 1),
    ),
    link(
        "slow_link",
        {"limit": TOO_SHORT},
        "assert_finished",
        errors.RankFailed,
        r"the link 0-1 was slow from collective 12 \(\w+, after 1 step\) on",
        sound={"steps": 2},
        between=(0, 1),
        delay=2,
    ),
    link(
        "corrupt_link",
        {"weakness": "trusts"},
        "assert_recovered",
        errors.NotRecovered,
        rank=1,
        at=9,
        bits=8,
    ),
]

"""Measure a collective with kernels of ours and no fault due: what an empty Python kernel costs
(the floor), what the site adds, and what is left after the trial.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from timing import Figure, compare, interleaved, real_seconds

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.processes.messages import Outbox
from pytest_mlchaos.processes.remote_controller import ReportingController
from pytest_mlchaos.processes.shared_numbers import SharedNumbers
from pytest_mlchaos.sites import collectives
from pytest_mlchaos.sites import load as load_sites

CALLS = 50
"""Calls in a row. Few, so that some of the samples meet no other process."""
BUDGET = 50.0


def measure(quick: bool) -> list[Figure]:
    """Measure an all-reduce of one rank, of 16 numbers: the fastest collective that there is."""
    if importlib.util.find_spec("torch") is None:
        return []
    load_faults()
    load_sites()
    with _group() as call:
        sides = {
            "bare": _bare,
            "an empty kernel (the floor)": _floor,
            "in a rank, a fault far away": functools.partial(_armed, log=False),
            "in a rank, each one logged": functools.partial(_armed, log=True),
            "bare, after a trial": _after,
        }
        samples = interleaved(
            200 if quick else 1000,
            {name: functools.partial(_seconds, side, call) for name, side in sides.items()},
        )
    return [
        compare(
            f"collective: {name}",
            samples,
            name,
            "bare",
            lambda one, other: (one - other) / CALLS * 1e6,
            "µs",
            budget=BUDGET if name == "in a rank, a fault far away" else None,
        )
        for name in sides
        if name != "bare"
    ]


def _seconds(
    side: Callable[[], contextlib.AbstractContextManager[object]], call: Callable[[], Any]
) -> float:
    with side():
        call()
        start = real_seconds()
        for _ in range(CALLS):
            call()
        return real_seconds() - start


@contextlib.contextmanager
def _group() -> Iterator[Callable[[], Any]]:
    """Give a collective of a group of this process alone."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    tensors, options, group = [torch.ones(16)], dist.AllreduceOptions(), dist.group.WORLD
    assert group is not None
    try:
        yield lambda: group.allreduce(tensors, options).wait()
    finally:
        dist.destroy_process_group()


def _bare() -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


@contextlib.contextmanager
def _after() -> Iterator[None]:
    with _armed(log=False):
        pass
    yield


@contextlib.contextmanager
def _floor() -> Iterator[None]:
    import torch

    below = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)
    redispatch: Any = torch.ops.c10d.allreduce_.default.redispatch
    library: Any = torch.library.Library("c10d", "IMPL")
    library.impl(
        "allreduce_",
        lambda keys, *args: redispatch(keys & below, *args),
        "BackendSelect",
        with_keyset=True,
    )
    try:
        yield
    finally:
        library._destroy()


@contextlib.contextmanager
def _armed(*, log: bool) -> Iterator[None]:
    """Arm the site as in a rank, whose messages a different process reads."""
    fault = create("rank_failure", site="collective", rank=0, at=10**9)
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert reader.stdin is not None
    send = Outbox(reader.stdin.fileno())
    try:
        with (
            Patches() as patches,
            ReportingController(
                send,
                {"rank": 0, "world_size": 1},
                Schedule((fault,)),
                shared=SharedNumbers(),
            ) as controller,
        ):
            collectives.arm(controller, patches, fault.key)
            if log:
                collectives.record_collectives(
                    controller, patches, lambda record: send("collective", *record)
                )
            yield
    finally:
        reader.stdin.close()
        reader.wait()

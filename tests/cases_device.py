"""Provide the cases for the faults of the device (needs torch)."""

from __future__ import annotations

import torch

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case


def weights():
    """Return the weights of a model, 4 KiB."""
    return torch.linspace(0, 1, 1024).requires_grad_()


def computed(tensor):
    """Some operators, each of which allocates its result."""
    return tensor.mul(2).add(1).mul(3).add(1).mul(4).detach()


CASES = {
    "gpu_oom": Case(
        create("gpu_oom", op=1),
        weights,
        operation=computed,
        bad=[
            {"op": -1},
            {"phase": "evaluation"},
            {"largest": "wide", "at": None},
            {"fragmentation": True},
        ],
    ),
    "gpu_lost": Case(
        create("gpu_lost"), weights, operation=computed, sticky=True, bad=[{"kind": "lost"}]
    ),
    "gpu_memory_pressure": Case(
        create("gpu_memory_pressure", free="1KiB"),
        weights,
        operation=computed,
        sticky=True,
        bad=[
            {"free": "much"},
            {"free": 0},
            {"share": 0.5},
            {"share": 2.0, "free": None},
            {"total": -1},
        ],
    ),
    "slow_compute": Case(
        create("slow_compute", delay="1ms"), object, bad=[{"delay": "soon"}, {"rank": -1}]
    ),
}

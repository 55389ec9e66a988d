"""Measure watched optimizer steps in a supervised run, and the memory count of an emulated device."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from steps import Loop
from timing import Figure, compare, interleaved, percent

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.runs.torch_steps import watch_training
from pytest_mlchaos.sites import load as load_sites
from pytest_mlchaos.sites.torch_train import trained_parameters

NEEDS = "torch"
SIDES: dict[str, Callable[[], Any]] = {
    "bare": contextlib.nullcontext,
    "optimizers are remembered": trained_parameters,
    "gradients are recorded, behind a strike": watch_training,
    "memory is counted": lambda: trial(Schedule((create("gpu_oom", budget="1GB"),)), Patches()),
}


def measure(quick: bool) -> list[Figure]:
    """Measure a step of about 1 ms over ready batches."""
    import steps
    import torch

    torch.set_num_threads(1)
    load_faults()
    load_sites()
    steps.SIDES.update(SIDES)
    loop = Loop(256, 96, 60, loaded=False)
    samples = interleaved(
        20 if quick else 120, {side: functools.partial(loop.seconds, side) for side in SIDES}
    )
    return [
        compare(f"step: {side}", samples, side, "bare", percent, "%") for side in list(SIDES)[1:]
    ]

"""Measure a training step of about 1 ms in an armed trial in which nothing is due."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

from timing import Figure, Samples, Spread, compare, interleaved, percent

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites

NEEDS = "torch"
WARM_STEPS = 40
FAR = 10**9
SIDES: dict[str, Callable[[], Any]] = {
    "bare": contextlib.nullcontext,
    "bare again": contextlib.nullcontext,
    "armed": lambda: trial(Schedule((create("gpu_oom", at=FAR),)), Patches()),
    "armed, forward too": lambda: trial(
        Schedule((create("gpu_oom", phase="forward", at=FAR),)), Patches()
    ),
}


@dataclasses.dataclass
class Loop:
    """A training loop over random data."""

    width: int
    batch: int
    steps: int
    loaded: bool

    def __post_init__(self) -> None:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        middle = (
            [torch.nn.Linear(self.width, self.width), torch.nn.ReLU()] if self.width > 1 else []
        )
        self.model = torch.nn.Sequential(*middle, torch.nn.Linear(self.width, 1))
        self.optimizer = (torch.optim.Adam if middle else torch.optim.SGD)(
            self.model.parameters(), lr=1e-6
        )
        count = self.batch * (self.steps + WARM_STEPS)
        self.data = DataLoader(TensorDataset(torch.randn(count, self.width)), batch_size=self.batch)
        self.batches: Any = self.data if self.loaded else list(self.data)

    def seconds(self, side: str) -> float:
        """Return the median time of a step in one epoch, after steps in which the interpreter
        adapts.
        """
        with SIDES[side]():
            batches = iter(self.batches)
            return statistics.median(
                [self._step(batches) for _ in range(WARM_STEPS + self.steps)][WARM_STEPS:]
            )

    def _step(self, batches: Any) -> float:
        start = time.perf_counter()
        features, *_ = next(batches)
        self.optimizer.zero_grad()
        self.model(features).sum().backward()
        self.optimizer.step()
        return time.perf_counter() - start


def measure(quick: bool) -> list[Figure]:
    """Measure a loop over ready batches and one over a DataLoader, with a step of 1 ms and an empty
    one.
    """
    import torch

    torch.set_num_threads(1)
    load_faults()
    load_sites()
    return [figure for loaded in (False, True) for figure in _variant(loaded, 40 if quick else 120)]


def _variant(loaded: bool, rounds: int) -> list[Figure]:
    real, tiny = (
        _interleaved(loop, rounds) for loop in (Loop(256, 96, 60, loaded), Loop(1, 1, 200, loaded))
    )
    step = Spread.of(real["bare"]).median
    where = f"step, {'DataLoader' if loaded else 'no loader'}"
    found = [
        compare(
            f"{where}: bare again (the noise)",
            real,
            "bare again",
            "bare",
            percent,
            "%",
            note=f"step {step * 1e6:.0f} µs",
        )
    ]
    for side in ("armed", "armed, forward too"):
        found.append(compare(f"{where}: {side}", real, side, "bare", percent, "%", budget=1))
        found.append(_derived(f"{where}: {side}, derived", tiny, side, step))
    return found


def _interleaved(loop: Loop, rounds: int) -> Samples:
    return interleaved(rounds, {side: functools.partial(loop.seconds, side) for side in SIDES})


def _derived(what: str, tiny: Samples, side: str, step: float) -> Figure:
    """Return what the hooks add to an almost empty step, as a share of the real one."""
    figure = compare(
        what, tiny, side, "bare", lambda one, other: (one - other) / step * 100, "%", budget=1
    )
    added, bare = figure.measured.median * step * 1e4, figure.raw["bare"].median * 1e6
    return dataclasses.replace(
        figure, note=f"{added:.2f} µs on an almost empty step of {bare:.0f} µs"
    )

"""Measure the time to arm and disarm a trial."""

from __future__ import annotations

import contextlib
import functools
import sys
import timeit
from collections.abc import Callable
from typing import Any

from timing import Figure, compare, interleaved

from pytest_mlchaos import Fault, Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine import randomness
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites

NEEDS = "torch"
TIMES = 5
TARGET_BUDGET = 1000.0
FAR = 10**9


def _trial(
    *faults: Fault, timeout: float | None = None
) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: trial(Schedule(faults), Patches(), timeout=timeout)


@contextlib.contextmanager
def _random_numbers() -> Any:
    with randomness.preserve_state():
        randomness.seed_all("trial", 0)
        yield


def measure(quick: bool) -> list[Figure]:
    """Measure trials with an empty body, minus an empty context, with torch loaded."""
    import torch.utils.data  # noqa: F401  # its sites are only armed if it is loaded

    load_faults()
    load_sites()
    contexts: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        "empty": contextlib.nullcontext,
        "only random numbers": _random_numbers,
        "default sites": _trial(create("gpu_oom", at=FAR)),
        "default sites, 60 s time limit": _trial(create("gpu_oom", at=FAR), timeout=60.0),
        "train.forward too": _trial(create("gpu_oom", phase="forward", at=FAR)),
        "a call target (json:dumps)": _trial(create("call_failure", target="json:dumps", at=FAR)),
    }
    sides = {
        name: functools.partial(timeit.Timer(functools.partial(_enter, make)).timeit, TIMES)
        for name, make in contexts.items()
    }
    samples = interleaved(20 if quick else 150, sides)
    searched = f"{len(sys.modules)} modules are searched for aliases once"
    return [
        compare(
            f"arm, disarm: {name}",
            samples,
            name,
            "empty",
            _microseconds,
            "µs",
            budget=TARGET_BUDGET if "target" in name else None,
            note=searched if "target" in name else "",
        )
        for name in list(contexts)[1:]
    ]


def _microseconds(one: float, other: float) -> float:
    return (one - other) / TIMES * 1e6


def _enter(make: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
    with make():
        pass

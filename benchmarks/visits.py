"""Measure one visit of a site when nothing is due."""

from __future__ import annotations

import functools
import timeit
from typing import Any

from timing import Figure, compare, interleaved

from pytest_mlchaos import Schedule, visit
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites

CALLS = 5_000
BUDGET = {"controller.visit, a fault far away": 150.0}
OUTSIDE = "pytest_mlchaos.visit outside of a trial"


def measure(quick: bool) -> list[Figure]:
    """Measure each way to visit a site, minus an empty loop."""
    load_faults()
    load_sites()
    schedule = Schedule((create("gpu_oom", phase="optimizer", at=10**9),))
    with trial(schedule, Patches()) as controller:
        names: dict[str, Any] = {
            "controller": controller,
            "visit": visit,
            "payload": object(),
            "plain": lambda site, payload: payload,
        }
        inside = {
            "empty": "pass",
            "a call of an empty function, for scale": "plain('train.step', payload)",
            "controller.visit, a fault far away": "controller.visit('train.step', payload)",
            "controller.visit, a site without faults": "controller.visit('bench.site', payload)",
            "controller.begin, a fault far away": "controller.begin('train.step', payload)",
            "pytest_mlchaos.visit in a trial": "visit('bench.site', payload)",
        }
        found = _per_call(inside, names, quick)
    return found + _per_call(
        {"empty": "pass", OUTSIDE: "visit('bench.site', payload)"}, names, quick
    )


def _per_call(statements: dict[str, str], variables: dict[str, Any], quick: bool) -> list[Figure]:
    sides = {
        name: functools.partial(timeit.Timer(statement, globals=variables).timeit, CALLS)
        for name, statement in statements.items()
    }
    samples = interleaved(100 if quick else 1000, sides)
    names = [name for name in sides if name != "empty"]
    return [
        compare(
            f"visit: {name}", samples, name, "empty", _nanoseconds, "ns", budget=BUDGET.get(name)
        )
        for name in names
    ]


def _nanoseconds(one: float, other: float) -> float:
    return (one - other) / CALLS * 1e9

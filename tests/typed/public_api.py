"""Show type checkers the public API.

``nox -s types`` checks this file with mypy and pyright, both strict. It is never run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, assert_type

import pytest

from pytest_mlchaos import (
    Controller,
    CrashOutcome,
    CrashReport,
    CrashState,
    Fault,
    Load,
    Mlchaos,
    MlchaosError,
    Patches,
    PipelineRun,
    Run,
    Service,
    Visit,
    World,
    WorldRun,
    assert_converged,
    assert_no_drift,
    assert_not_worse,
    assert_same_state,
    assert_slo,
    batches,
    chaos,
    site,
    visit,
)
from pytest_mlchaos.errors import NotRecovered, SimulatedCrash, Verdict
from pytest_mlchaos.testing import Case, StrikeResult, conformance, strike


def train(workdir: Path, epochs: int = 1) -> dict[str, float]:
    """Stand for a subject."""
    return {"loss": 1.0 / epochs, "files": float(len(list(workdir.iterdir())))}


@chaos.crash
def test_bare(mlchaos: Mlchaos, tmp_path: Path) -> None:
    """A bare decorator keeps the function's type."""
    run = mlchaos.run(train, tmp_path, max_restarts=2, isolation="process")
    assert_type(run, Run)
    assert_type(run.restarts, int)
    assert_type(run.lost_steps, int)
    assert_type(run.golden, Run)
    run.assert_recovered(rtol=1e-4)
    run.assert_converged(below=0.5, by=6)
    mlchaos.run(train, tmp_path, max_restart=2)  # type: ignore[call-arg]  # a misspelt option, too


assert_type(test_bare(Mlchaos(Path()), Path()), None)


@chaos.flaky_storage(error="ENOSPC", op="write", at=[1, 2], path="*.pt")
@chaos.gpu_oom(at=chaos.EVERY, phase=chaos.one_of("forward", "backward"))
@chaos.settings(max_trials=20, budget="5m")
def test_called(mlchaos: Mlchaos, tmp_path: Path) -> None:
    """Decorators with arguments stack."""
    report = mlchaos.explore_crashes(
        train, tmp_path, 3, durability="power", jobs=2, timeout="2m", compare=["*.pt"]
    )
    assert_type(report, CrashReport)
    assert_type(report.states, list[CrashState])
    assert_type(report.outcomes, list[CrashOutcome])
    assert_type(report.max_lost_steps, int)
    assert_type(report.recovery_time, float | None)
    report.assert_recovers(max_lost_steps=100)


pytestmark = [chaos.crash(at=3)]
marked = pytest.param(1, marks=chaos.crash(at=3))


def test_other_areas(mlchaos: Mlchaos, tmp_path: Path) -> None:
    """A world, a service, a pipeline, a script."""
    world = mlchaos.world(ranks=2, restarts=1, timeout="1m")
    assert_type(world, World)
    ranks = world.run(train, tmp_path)
    assert_type(ranks, WorldRun)
    assert_type(ranks.ranks[0].exitcode, int | None)
    ranks.assert_failed_fast(within=5)
    service = mlchaos.serve(train)
    assert_type(service, Service)
    load = service.drive(["/"])
    assert_type(load, Load)
    assert_type(load.latency(0.99), float)
    assert_type(load.error_rate, float)
    load.assert_slo(p99="150ms")
    piped = mlchaos.pipeline(train, tmp_path)
    assert_type(piped, PipelineRun)
    assert_type(piped.again(), PipelineRun)
    piped.assert_same_output(ignore="*.log")
    script = mlchaos.script("train.py", "--out", tmp_path)
    assert_type(script, Callable[..., None])
    assert_type(mlchaos.clock.now(), float)


def test_functions() -> None:
    """The oracles, and what passes a site keeps its type."""
    assert_converged([1.0, 0.5], below=0.6)
    assert_same_state({"w": 1}, {"w": 1}, rtol=1e-3)
    assert_no_drift([1.0], [1.0], alpha=0.01)
    assert_not_worse([0.9], [0.9], margin=0.01)
    assert_slo([0.1], errors=1, p99="150ms")
    assert_type(visit("sensor.read", 1.5, unit="K"), float)
    for batch in batches([[1, 2], [3, 4]]):
        assert_type(batch, list[int])


@chaos.register
class StuckSensor(Fault):
    """A fault of the user's own."""

    site: ClassVar[str] = "sensor.read"
    value: float = 0.0

    def apply(self, visit: Visit) -> Any:
        """Return what the sensor repeats."""
        assert_type(visit.index, int)
        visit.note(rows=3)
        return self.value


assert_type(StuckSensor(at=[1], value=2.0), StuckSensor)
# A misspelt parameter is found before the test runs
StuckSensor(valu=2.0)  # type: ignore[call-arg]
test_promises = conformance(Case(StuckSensor(value=1.0), payload=lambda: 0.5))
assert_type(strike(StuckSensor(at=0), [1.0]), StrikeResult)


@site("feed.poll", "A message, asked of a feed. Payload: the feed.")
def arm_poll(controller: Controller, patches: Patches, key: Any) -> None:
    """A site of the user's own."""
    gate = controller.begin(key, object())
    if gate is not None:
        with gate:
            gate.wait()
            asyncio.run(gate.wait_async())
    patches.set(asyncio, "poll", print)
    patches.on_undo(print)


def test_errors() -> None:
    """Verdicts are assertion errors; a crash is not an ``Exception``."""
    verdict: type[AssertionError] = Verdict
    base: type[MlchaosError] = NotRecovered
    crash: type[BaseException] = SimulatedCrash
    print(verdict, base, crash)

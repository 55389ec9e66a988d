"""Measure how fast virtual time passes: an hour of outage with back-off, and hours per second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from timing import Figure, Spread, interleaved, real_seconds

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites

BUDGET = 50.0
HOUR = 3600.0
STEPS = 500
STEP_SECONDS = 60.0
THREADS = 4


def fetch() -> int:
    """Stand for a call of a store that is down."""
    return 42


def _patiently() -> None:
    for attempt in range(20):
        try:
            fetch()
        except ConnectionError:
            time.sleep(2.0**attempt)
        else:
            return
    raise AssertionError("the outage did not end")


def _many_waits() -> None:
    for _ in range(STEPS):
        time.sleep(STEP_SECONDS)


def _in_threads(function: Callable[[], None]) -> None:
    threads = [threading.Thread(target=function) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _timed(schedule: Schedule, work: Callable[[], None], least: float) -> float:
    with trial(schedule, Patches(), clock="virtual") as controller:
        start, before = real_seconds(), controller.clock.now()
        work()
        seconds = real_seconds() - start
        if controller.clock.reason or controller.clock.now() - before < least:
            raise AssertionError(f"time was not virtual: {controller.clock.reason}")
    return seconds


def measure(quick: bool) -> list[Figure]:
    """Measure the outage in milliseconds, and the virtual hours of a real second."""
    load_faults()
    load_sites()
    down = create("feature_store_down", target=f"{__name__}:fetch", duration="1h", at=0)
    outage, nothing = Schedule((down,), 0), Schedule((), 0)
    samples = interleaved(
        5 if quick else 30,
        {
            "outage": lambda: _timed(outage, _patiently, HOUR),
            "outage in threads": lambda: _timed(outage, lambda: _in_threads(_patiently), HOUR),
            "waits": lambda: _timed(nothing, _many_waits, STEPS * STEP_SECONDS),
            "waits in threads": lambda: _timed(
                nothing, lambda: _in_threads(_many_waits), STEPS * STEP_SECONDS
            ),
        },
    )
    names = {"outage": "1 thread", "outage in threads": f"{THREADS} threads"}
    figures = [
        Figure(
            what=f"an hour of outage with exponential back-off, {name}",
            unit="ms",
            measured=Spread.of(seconds * 1e3 for seconds in samples[side]),
            quiet=min(samples[side]) * 1e3,
            budget=BUDGET,
        )
        for side, name in names.items()
    ]
    for side, name in {"waits": "1 thread", "waits in threads": f"{THREADS} threads"}.items():
        hours = [STEPS * STEP_SECONDS / HOUR / seconds for seconds in samples[side]]
        figures.append(
            Figure(
                what=f"virtual hours per real second, waits of 1 min, {name}",
                unit="h/s",
                measured=Spread.of(hours),
                quiet=max(hours),
            )
        )
    return figures

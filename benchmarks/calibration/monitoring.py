"""Cases of watched alerts: a drift monitor that looks at each batch."""

from __future__ import annotations

from typing import Any

from pytest_mlchaos import DriftMonitor
from pytest_mlchaos.monitoring.alerts import Check
from pytest_mlchaos.monitoring.timeline import Change, Moment, Struck, Timeline, is_in_time

from . import Case, draw

__all__ = ["CASES"]

SITE = "data.batch"
BATCHES = 20
BEGIN = 8


def _watched(rng: Any, n: int, shape: str, shift: float) -> Timeline:
    """Return what a watch notes of a monitor. A shift begins at one of the batches."""
    check = Check(DriftMonitor(draw(rng, n, shape)).update, frozenset({SITE}))
    size = min(max(n // 10, 20), 500)
    timeline, on = Timeline(), False
    for visit in range(BATCHES):
        batch = draw(rng, size, shape)
        if visit >= BEGIN and shift:
            batch = batch + shift
            timeline.events.append(Struck("shift", "shift", SITE, visit, _moment(visit)))
        is_on = bool(check.check(SITE, batch))
        if is_on != on:
            timeline.events.append(Change(is_on, _moment(visit)))
        on = is_on
    timeline.end = _moment(BATCHES - 1)
    return timeline


def _moment(visit: int) -> Moment:
    return Moment(float(visit), {SITE: visit + 1})


def null(rng: Any, n: int, shape: str) -> bool:
    """Return True if the alert fires without any fault."""
    return _watched(rng, n, shape, 0.0).fired


def effect(rng: Any, n: int, shape: str, share: float) -> bool:
    """Return True if the alert fires in time after the shift, and not before."""
    timeline = _watched(rng, n, shape, share)
    [seen] = timeline.seen()
    return not timeline.before_faults() and bool(is_in_time(seen, ("visits", 10)))


CASES: dict[str, Case] = {
    "watch (DriftMonitor)": Case(
        null=null,
        effect=effect,
        alarm="the alert fires without a fault, in 20 batches",
        found="a shift by 1 standard deviation is seen within 10 batches, and nothing before",
        power={500: 0.9},
        sizes=(50, 500),
    ),
}

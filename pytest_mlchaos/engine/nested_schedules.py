"""Run code under a schedule of its own, inside a trial that declares no fault."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from ..core.interrupts import uninterruptible
from ..core.journal import Journal
from ..core.policy import check_fault
from ..core.schedule import Schedule
from ..core.sites import SITES, name_of
from .continuous_faults import activate_continuous_faults
from .controller import Controller
from .counters import ScheduledFault
from .patching import Patches

__all__ = ["under_schedule"]


@uninterruptible
def under_schedule(controller: Controller, schedule: Schedule) -> Iterator[Journal]:
    """Count visits from 0 inside, and let the faults of a schedule strike.

    Restore everything at the end. The journal of the strikes inside is given.
    """
    check_fault(*schedule.faults)
    controller.hear()
    kept = {name: getattr(controller, name) for name in _SWAPPED}
    controller._counters, controller.crash, controller.names, controller.elsewhere = (
        {},
        None,
        {},
        {},
    )
    controller.journal, controller.injected = Journal(controller.hear), []
    controller.fault_ended, controller.claims, controller.schedule = None, [], schedule
    controller.scheduled = [
        ScheduledFault(fault, place, schedule.seed) for place, fault in enumerate(schedule.faults)
    ]
    forks = controller.forks
    patches = Patches()
    try:
        with (
            forks.paused() if forks is not None and not forks.name else contextlib.nullcontext(),
            patches,
            contextlib.ExitStack() as resources,
        ):
            controller.resources = resources
            _arm_missing(controller, patches)
            activate_continuous_faults(controller)
            controller.changed()
            yield controller.journal
    finally:
        for name, value in kept.items():
            setattr(controller, name, value)
        controller.changed()


_SWAPPED = (
    *("_counters", "crash", "names", "elsewhere", "journal", "injected", "fault_ended", "claims"),
    *("schedule", "scheduled", "resources", "restarts", "attempts", "_strikes_before"),
    "activate_continuous_faults",
)


def _arm_missing(controller: Controller, patches: Patches) -> None:
    """Arm the sites of the schedule that the trial has not armed."""
    with patches.together():
        for key in {fault.key: None for fault in controller.schedule.faults}:
            site = SITES.get(name_of(key))
            if (
                site is not None
                and key not in controller.armed
                and (site.needs is None or importlib.util.find_spec(site.needs) is not None)
            ):
                site.arm(controller, patches, key)

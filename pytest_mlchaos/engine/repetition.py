"""Let the faults of a trial strike once more, for an assertion that repeats a call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..core.interrupts import uninterruptible
from ..core.journal import Journal
from .controller import Controller
from .counters import ProcessCounts, ScheduledFault

__all__ = ["repeated"]


@uninterruptible
def repeated(controller: Controller, counts: ProcessCounts) -> Iterator[Journal]:
    """Let the same faults strike once more inside, from these counts on.

    Restore everything at the end. The journal of the strikes inside is given.
    """
    controller.hear()
    kept = (
        controller._counters,
        controller.crash,
        controller.scheduled,
        controller.names,
        controller.elsewhere,
    )
    also = controller.journal, controller.injected, controller.fault_ended
    controller._counters, controller.crash, controller.names, controller.elsewhere = (
        {},
        None,
        {},
        {},
    )
    controller.journal, controller.injected = Journal(controller.hear), []
    controller.scheduled = [
        ScheduledFault(fault, place, controller.schedule.seed)
        for place, fault in enumerate(controller.schedule.faults)
    ]
    controller.go_on_from(counts)
    try:
        with (
            controller.forks.paused()
            if controller.forks is not None and not controller.forks.name
            else contextlib.nullcontext()
        ):
            yield controller.journal
    finally:
        (
            controller._counters,
            controller.crash,
            controller.scheduled,
            controller.names,
            controller.elsewhere,
        ) = kept
        controller.journal, controller.injected, controller.fault_ended = also

"""Faults that are at work all the time: opened when the test's body begins, or a process of the subject's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.faults import Fault
from ..core.interrupts import Uninterruptible, deferred
from ..errors import BadArgument
from .controller import Controller
from .counters import ScheduledFault
from .error_origin import is_own, mark

__all__ = ["ContinuousEffect", "activate_continuous_faults", "refuse_in_process"]


class ContinuousEffect:
    """What a continuous fault is told, and tells."""

    def __init__(self, controller: Controller, scheduled: ScheduledFault) -> None:
        self._controller = controller
        self._scheduled = scheduled

    @property
    def active(self) -> bool:
        """Whether it may strike now."""
        controller, scheduled, times = self._controller, self._scheduled, self._scheduled.fault.times
        return controller.at_work(scheduled) and (times is None or scheduled.struck < times)

    @property
    def memory(self) -> dict[Any, Any]:
        """The fault's own, for as long as the (simulated) process lives."""
        return self._scheduled.memory

    def strike(self, error: BaseException | None = None, **details: Any) -> bool:
        """Record that it strikes now; in the trial without faults, only that it could."""
        if self._controller.probing:
            self._scheduled.eligible = [0]
            return False
        self._controller.note(self._scheduled, **details)
        if error is not None:
            mark(error, own_words=is_own(self._scheduled.fault))  # not kept: its frames would hold on to memory that the subject has freed
        return True

    def claim(self, error: Callable[[BaseException], bool]) -> None:
        """Errors for which this holds are the fault's doing, whoever raises them."""
        self._controller.claims.append(error)

    def remark(self, text: str) -> None:
        """What is to be said where it never strikes."""
        self._scheduled.remark = text


def activate_continuous_faults(controller: Controller, *, fresh: bool = False) -> None:
    """Open what the schedule's continuous faults keep open until the controller's body ends; ``fresh``: in the subject's own process."""

    def open_all() -> None:
        for scheduled in controller.scheduled:
            fault = scheduled.fault
            if fault.continuous and fault.applies_to(controller.attributes) and (fresh or not fault.requires_process):
                with deferred():
                    controller.resources.enter_context(Uninterruptible(fault.activate(ContinuousEffect(controller, scheduled))))

    controller.activate_continuous_faults = open_all  # the body may start over
    open_all()


def refuse_in_process(faults: list[Fault]) -> None:
    """Raise ``BadArgument`` for a fault that works in a process of the subject's own alone."""
    for fault in faults:
        if fault.requires_process:
            raise BadArgument(f'{fault!r} {fault.requires_process}: say mlchaos.run(..., isolation="process"), or set it for all')

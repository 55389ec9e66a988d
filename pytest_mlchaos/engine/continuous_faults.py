"""Activate continuous faults at the start of the test's body, or of a process of the subject."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.faults import Fault
from ..core.interrupts import Uninterruptible, deferred
from ..core.policy import check_strike
from ..errors import BadArgument
from .controller import Controller
from .counters import ScheduledFault
from .error_origin import is_own, mark

__all__ = ["ContinuousEffect", "activate_continuous_faults", "refuse_in_process"]


class ContinuousEffect:
    """The interface between a continuous fault and the controller. See ``core.sites.Effect``."""

    def __init__(self, controller: Controller, scheduled: ScheduledFault) -> None:
        self._controller = controller
        self._scheduled = scheduled

    @property
    def active(self) -> bool:
        """Return True if the fault may strike now."""
        controller, scheduled, times = (
            self._controller,
            self._scheduled,
            self._scheduled.fault.times,
        )
        return controller.at_work(scheduled) and (times is None or scheduled.struck < times)

    @property
    def memory(self) -> dict[Any, Any]:
        """Return the fault's own memory, which lasts as long as the (simulated) process."""
        return self._scheduled.memory

    def strike(self, error: BaseException | None = None, **details: object) -> bool:
        """Record a strike. In the trial without faults, record only that a strike is possible."""
        if self._controller.probing:
            self._scheduled.eligible = [0]
            return False
        self._controller.note(self._scheduled, **details)
        if error is not None:
            # Do not store the error: the frames of its traceback would keep memory alive that the
            # subject has freed.
            mark(error, own_words=is_own(self._scheduled.fault))
        return True

    def claim(self, error: Callable[[BaseException], bool]) -> None:
        """Count each exception for which this predicate is true as injected."""
        self._controller.claims.append(error)

    def remark(self, text: str) -> None:
        """Set the text to report if the fault never strikes."""
        self._scheduled.remark = text


def activate_continuous_faults(controller: Controller, *, fresh: bool = False) -> None:
    """Open the contexts of the schedule's continuous faults until the controller's body ends.

    Args:
        controller: The controller of the trial.
        fresh: True in a process of the subject, which also activates faults that require one.
    """

    def open_all() -> None:
        for scheduled in controller.scheduled:
            fault = scheduled.fault
            if (
                fault.continuous
                and fault.concerns(controller.attributes)
                and (fresh or not fault.requires_process)
            ):
                check_strike(fault)
                with deferred():
                    controller.resources.enter_context(
                        Uninterruptible(fault.activate(ContinuousEffect(controller, scheduled)))
                    )

    controller.activate_continuous_faults = open_all  # the body may start again
    open_all()


def refuse_in_process(faults: list[Fault]) -> None:
    """Raise ``BadArgument`` for a fault that requires a process of the subject."""
    for fault in faults:
        if fault.requires_process:
            raise BadArgument(
                f'{fault!r} {fault.requires_process}. Use mlchaos.run(..., isolation="process"), '
                f"or set it for all tests"
            )

"""Faults that are at work all the time: opened when the test's body begins, or a process of the subject's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.faults import Fault
from ..core.interrupts import Uninterruptible, deferred
from ..errors import BadArgument
from .controller import Controller
from .counters import Plan
from .error_origin import is_own, mark

__all__ = ["PlanEffect", "activate_continuous_faults", "refuse_in_process"]
__tracebackhide__ = True  # a failure shows the user's code, not ours


class PlanEffect:
    """What a fault of a plan that is at work all the time is told, and tells."""

    def __init__(self, controller: Controller, plan: Plan) -> None:
        self._controller = controller
        self._plan = plan

    @property
    def active(self) -> bool:
        """Whether it may strike now."""
        controller, plan, times = self._controller, self._plan, self._plan.fault.times
        return controller.at_work(plan) and (times is None or plan.struck < times)

    @property
    def memory(self) -> dict[Any, Any]:
        """The fault's own, for as long as the (simulated) process lives."""
        return self._plan.memory

    def strike(self, error: BaseException | None = None, **details: Any) -> bool:
        """Record that it strikes now; in the trial without faults, only that it could."""
        if self._controller.probing:
            self._plan.eligible = [0]
            return False
        self._controller.note(self._plan, **details)
        if error is not None:
            mark(error, own_words=is_own(self._plan.fault))  # not kept: its frames would hold on to memory that the subject has freed
        return True

    def claim(self, error: Callable[[BaseException], bool]) -> None:
        """Errors for which this holds are the fault's doing, whoever raises them."""
        self._controller.claims.append(error)

    def remark(self, text: str) -> None:
        """What is to be said where it never strikes."""
        self._plan.remark = text


def activate_continuous_faults(controller: Controller, *, fresh: bool = False) -> None:
    """Open what the schedule's continuous faults keep open until the controller's body ends; ``fresh``: in the subject's own process."""

    def open_all() -> None:
        for plan in controller.plans:
            fault = plan.fault
            if fault.continuous and fault.applies_to(controller.attributes) and (fresh or not fault.requires_process):
                with deferred():
                    controller.resources.enter_context(Uninterruptible(fault.activate(PlanEffect(controller, plan))))

    controller.activate_continuous_faults = open_all  # the body may start over
    open_all()


def refuse_in_process(faults: list[Fault]) -> None:
    """Raise ``BadArgument`` for a fault that works in a process of the subject's own alone."""
    for fault in faults:
        if fault.requires_process:
            raise BadArgument(f'{fault!r} {fault.requires_process}: say mlchaos.run(..., isolation="process"), or set it for all')

"""Run the control trials of watched alerts: one without faults, and one with strong faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from ..core.faults import EVERY, Fault, fields_of
from ..core.policy import cap_severity
from ..core.schedule import Schedule
from ..core.settings import Settings
from ..engine.controller import Controller
from ..errors import BadArgument, FalseAlarm, FaultError, Inconclusive, InjectionForbidden
from .counted_calls import named_assertions
from .trial_runner import SKIPPED, Body, is_failure

if TYPE_CHECKING:
    from ..monitoring.verdicts import Watch

__all__ = ["AlertControls"]

STRONGEST_SEVERITY = 5


class AlertControls:
    """The control trials of one test."""

    def __init__(self, item: pytest.Function, body: Body) -> None:
        self._body = body
        self._is_expected = "mlchaos" in item.fixturenames and bool(
            named_assertions(item.function, ["watch"])
        )
        self._was_quiet = False  # True once a trial without faults has shown that alerts are quiet

    def before(self, schedule: Schedule, settings: Settings) -> None:
        """Run the test without faults, if its code names ``watch``.

        This comes first, because an alert may stay on from one trial to the next.
        """
        if self._is_expected and self._body.judging and schedule.faults:
            self._run_without_faults(schedule, settings)

    def had_trial_without_faults(self) -> None:
        """Note that a search has run the test without faults."""
        self._was_quiet = True

    def after(self, schedule: Schedule, settings: Settings) -> None:
        """Run the missing control trials for the alerts that the last trial has watched."""
        controller = self._body.controller
        watches = [] if controller is None else list(controller.visit_listeners.watches)
        if not watches or not self._body.judging:
            return
        if not self._was_quiet and schedule.faults:
            self._run_without_faults(schedule, settings)
        for number, watch in enumerate(watches):
            if watch._expected == "quiet":
                self._need_alarm(number, watch, schedule, settings)

    def _run_without_faults(self, schedule: Schedule, settings: Settings) -> None:
        controller = self._controlled(schedule, settings, "quiet")
        if controller is None:
            return
        self._was_quiet = True
        for watch in controller.visit_listeners.watches:
            if watch._expected == "fired" and watch._timeline.fired:
                raise FalseAlarm(watch._describe_false_alarm())

    def _need_alarm(
        self, number: int, watch: Watch, schedule: Schedule, settings: Settings
    ) -> None:
        """Raise ``Inconclusive`` unless strong faults make an alert fire."""
        faults = (
            [watch._control]
            if watch._control is not None
            else [strongest(fault) for fault in schedule.faults]
        )
        strong = Schedule(tuple(faults), schedule.seed)
        name = watch._name
        if not faults:
            raise Inconclusive(
                f"{name} was quiet, but this test has no fault that could make it fire, so its "
                f"silence proves nothing. Give a positive control, for example "
                f"mlchaos.watch(..., control=chaos.corrupt_batch(at=chaos.EVERY))"
            )
        controller = self._controlled(strong, settings, "loud")
        again: Sequence[Any] = () if controller is None else controller.visit_listeners.watches
        if number < len(again) and again[number]._timeline.fired:
            return
        raise Inconclusive(
            f"{name} was quiet, and also in the positive control, under {strong.line}. An alert "
            f"that was never seen firing proves nothing. Name a fault that it must see, as in "
            f"mlchaos.watch(..., control=chaos.corrupt_batch(at=chaos.EVERY))"
        )

    def _controlled(
        self, schedule: Schedule, settings: Settings, control: str
    ) -> Controller | None:
        """Return the controller of a control trial. What the test asserts there does not count."""
        kept = self._body.controller, self._body.missed, self._body.strikes_here, self._body.idle
        self._body.idle = ""
        try:
            self._body.run(schedule, settings, probing=control == "quiet", control=control)
        except FalseAlarm as error:
            if control == "quiet":
                error.add_note("mlchaos: this is the control trial, without any fault")
                raise
        except BaseException as error:
            # The test may fail under strong faults, and may expect an error that does not come
            # without faults. Only the alerts are judged.
            if not is_failure(error) or isinstance(
                error, (*SKIPPED, BadArgument, FaultError, InjectionForbidden)
            ):
                raise
        finally:
            found = self._body.controller
            self._body.controller, self._body.missed = kept[:2]
            self._body.strikes_here, self._body.idle = kept[2:]
        return found


def strongest(fault: Fault) -> Fault:
    """Return a fault at full strength at every visit."""
    changes: dict[str, Any] = {"ramp": None}
    if not fault.continuous:
        changes |= {"at": EVERY, "p": None, "times": None}
    scales = getattr(fault, "scales", {})
    if scales and "severity" in fields_of(type(fault)):
        defaults = {field.name: field.default for field in dataclasses.fields(fault)}
        changes |= {name: defaults[name] for name in scales if name in defaults}
        changes["severity"] = cap_severity(STRONGEST_SEVERITY)
    try:
        return dataclasses.replace(fault, **changes)
    except BadArgument:
        # Its parameters exclude a severity.
        return dataclasses.replace(fault, at=EVERY, p=None, times=None, ramp=None)

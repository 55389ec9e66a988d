"""Look at an alert while a trial runs, and note when faults struck and when it fired."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from .. import errors
from ..core.journal import Strike
from ..core.phases import listened_by
from ..core.recording import recorded_by
from ..core.sites import Key
from ..engine.controller import Controller
from .alerts import Alert, BrokenAlert, Check, describe_site
from .timeline import Change, Moment, Struck, Timeline

__all__ = ["AlertObserver", "kind_of"]


class AlertObserver:
    """Listens to the visits, the strikes and the errors of a trial, for one alert.

    It does not look during golden runs. The plugin runs the whole test without faults instead,
    because a golden run starts with the state that the faults have left in the alert.
    """

    def __init__(self, controller: Controller, alert: Alert) -> None:
        self.name, self.broken = alert.name, ""
        self.timeline = Timeline(lasts=alert.lasts)
        self._alert = alert
        self._controller = controller
        self._lock = threading.RLock()
        self._on = False
        self._quiet = 0
        self._ended = False
        self._results = len(controller.results)
        self._strikes = len(controller.journal), controller.visit_listeners.strikes
        self._of_fault = {one.text: one.fault for one in controller.scheduled}
        self._first_visits = dict(controller.passed())

    def begin(self) -> None:
        """Look from now on, until ``finish`` or the end of the test's body."""
        self._controller.visit_listeners.add(self)
        self._controller.resources.enter_context(listened_by(self))
        self._controller.resources.enter_context(self._alert.watching(self._fire))
        self._controller.resources.callback(self.finish)

    # -- what the trial announces ------------------------------------------------------------------

    def before(self) -> None:
        """Look at the alert before a visit."""
        self.look()

    def after(self, key: Key, payload: Any) -> None:
        """Let a check look at what has passed."""
        if not self._is_looking:
            return
        with self._asking():
            self._set(self._alert.check(key, payload))

    def struck(self, strike: Strike) -> None:
        """Note a strike."""
        fault = self._of_fault.get(strike.fault)
        if self._is_looking and fault is not None:
            with self._lock:
                moment = self._now()
                struck = Struck(strike.fault, kind_of(fault), fault.key, strike.visit, moment)
                self.timeline.events.append(struck)

    def quiet(self, on: bool) -> None:
        """Note the start and the end of a golden run."""
        self._quiet += 1 if on else -1

    def faulted(self, on: bool) -> None:
        """Ignore crash states: no alert of this process can see them."""

    def raised(self, error: BaseException) -> None:
        """Take the error that ended a subject for the alert, if it is one."""
        is_own = any(error is injected for injected in self._controller.injected)
        if self._is_looking and not is_own and self._alert.matches(error):
            self._fire()

    # -- what the watch asks -----------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """Return True if no fault can strike, because the trial is without faults."""
        return self._controller.probing or not self._controller.scheduled

    @property
    def drawn(self) -> bool:
        """Return True if a search drew the schedule."""
        return self._controller.drawn

    @property
    def never_asked(self) -> str:
        """Return the reason why a check has seen nothing, or an empty text."""
        if not isinstance(self._alert, Check) or self._alert.asked:
            return ""
        return (
            f"{self.name} was never called, because nothing passed {describe_site(self._alert.keys)} "
            f"while it was watched. Name the site of your data with site="
        )

    @property
    def struck_elsewhere(self) -> bool:
        """Return True if a fault struck in a different process, where the alert is not seen."""
        controller = self._controller
        all_strikes = len(controller.journal) - self._strikes[0]
        return all_strikes > controller.visit_listeners.strikes - self._strikes[1]

    def look(self) -> None:
        """Ask the alert if it is on now."""
        if self._is_looking:
            with self._asking():
                self._set(self._alert.state())

    def finish(self) -> None:
        """Look for the last time."""
        if not self._ended:
            with self._controller.visit_listeners.aside():
                self.look()
            self.timeline.end = self._now()
            self._ended = True

    def leave(self, error: BaseException | None) -> bool:
        """End a ``with`` block. Return True for the exception that is the alert."""
        fired = self._is_looking and error is not None and self._alert.matches(error)
        if fired:
            is_seen = bool(self.timeline.events) and isinstance(self.timeline.events[-1], Change)
            if not is_seen:
                self._fire()
        self.finish()
        return fired

    def mark_runs(self) -> None:
        """Let the results of the runs since the beginning count as judged."""
        for handed in self._controller.results[self._results :]:
            handed.looked = True

    def note_judgement(self, oracle: str, judges: bool) -> None:
        """Note if an assertion had anything to judge."""
        judgements = self._controller.judgements
        judgements[oracle] = judgements.get(oracle, False) or judges

    # -- noting ------------------------------------------------------------------------------------

    @property
    def _is_looking(self) -> bool:
        return not self._ended and not self._quiet and not self.broken

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Ask the user's alert inside: its assertions are not judgements of the test."""
        with self._lock:
            made, errors.made = errors.made, None
            try:
                with recorded_by(lambda entry: None):
                    yield
            except BrokenAlert as error:
                self.broken = str(error)
            finally:
                errors.made = made

    def _set(self, on: bool | None) -> None:
        if on is None or on == self._on:
            return
        self._on = on
        self.timeline.events.append(Change(on, self._now()))

    def _fire(self) -> None:
        """Note a single event."""
        if self._is_looking:
            with self._lock:
                self.timeline.events.append(Change(True, self._now()))

    def _now(self) -> Moment:
        keys = {fault.key for fault in self._of_fault.values()}
        counters = self._controller._counters
        passed = {key: counters[key].passed for key in keys if key in counters}
        return Moment(self._controller.clock.now(), passed)


def kind_of(fault: Any) -> str:
    """Return a fault's name with its kind: ``corrupt_batch nan``, ``latency_spike (gradual)``."""
    kind = getattr(fault, "kind", None)
    named = f"{fault.name} {kind}" if isinstance(kind, str) else str(fault.name)
    return f"{named} (gradual)" if fault.ramp is not None else named

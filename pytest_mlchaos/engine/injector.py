"""What happens at a visit where something is due: the slow path of the controller."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..core.clock import Clock
from ..core.faults import EVERY, Fault
from ..core.journal import Journal, Strike
from ..core.privacy import error_text, remember_text
from ..core.schedule import Schedule
from ..core.sites import Visit, derive_seed, name_of
from ..errors import BadArgument, MlchaosError, PayloadMismatch
from .attribution import about, put_down
from .changes import fingerprint
from .counters import Lane, Plan
from .error_origin import broken, is_meant, is_own
from .forks import Forks
from .remote_state import shipped_error

__all__ = ["Strikes"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

PROBED_VISITS = 2
"""Visits at which a fault may measure its parameters: the second step differs from the first (optimizer state exists)."""


class _Seen(NamedTuple):
    """A visit before a fault is applied to it."""

    payload: Any
    fingerprint: bytes | None
    effects: tuple[float, int, int]

    def changed(self, visit: Visit) -> bool:
        """Return True unless the fault left all as it was. Without a fingerprint there is no telling."""
        if self.fingerprint is None or self.effects != _effects(visit):
            return True
        return fingerprint(visit.payload) != self.fingerprint


def _effects(visit: Visit) -> tuple[float, int, int]:
    return visit.delay, len(visit.deferred_actions), visit.kept_contexts


def _seen(fault: Fault, visit: Visit) -> _Seen:
    """Remember a visit. The package's own faults know themselves whether they changed something: their payloads may be large."""
    ours = type(fault).__module__.partition(".")[0] == __name__.partition(".")[0]
    alone = visit.payload is None or ((ours or visit.source is not None) and not fault.compared)
    return _Seen(visit.payload, None if alone else fingerprint(visit.payload), _effects(visit))


class Strikes:
    """Applies the faults that are due, or lets them measure, and puts down what struck."""

    schedule: Schedule
    clock: Clock
    journal: Journal
    broken: MlchaosError | None
    drawn: bool
    forks: Forks | None
    _claims: threading.local
    _lock: threading.Lock

    def _apply_due(self, lane: Lane, visit: Visit) -> None:
        seed = self.schedule.seed
        if self.forks is not None:
            for plan in lane.plans:
                plan.struck = self.forks.struck(plan.place)
        with self._lock:
            due = [plan for plan in lane.plans if plan.is_due(visit.index)]
            for plan in lane.plans:
                plan.resolve(visit.index)
        for plan in lane.plans:
            if plan.observes and self._wanted(plan, visit):
                visit.memory, visit.is_scheduled = plan.memory, plan.is_due
                self._guarded(plan.fault, lambda plan=plan: plan.fault.observe(visit), "observe()")
        for plan in due:
            if self._wanted(plan, visit):
                visit.seed = derive_seed(seed, plan.fault.name, plan.place, visit.index)
                with self._claimed(plan) as claimed:
                    if claimed:
                        self._apply(plan, visit)
                if visit.error is not None or visit.delay == math.inf:
                    return  # nothing comes behind a failure, or behind a wait that never ends

    @contextlib.contextmanager
    def _claimed(self, plan: Plan) -> Iterator[bool]:
        """Give False if other processes have made all strikes meanwhile; otherwise none of them takes the one that is about to be made."""
        forks, times = self.forks, plan.fault.times
        if forks is None or times is None:
            yield True
            return
        self._claims.plan = plan if forks.claim(plan.place, times) else None
        claimed = self._claims.plan is not None
        try:
            yield claimed
        finally:
            if claimed and self._claims.plan is plan:  # nothing has struck, or not yet
                forks.release(plan.place)
            self._claims.plan = None

    def _probe(self, lane: Lane, visit: Visit) -> None:
        for plan in lane.plans:
            if self._wanted(plan, visit) and plan.fault.possible(visit):
                plan.eligible.append(visit.index)
                if len(plan.eligible) <= PROBED_VISITS:
                    visit.measures = plan.measures
                    self._guarded(plan.fault, lambda plan=plan: plan.fault.probe(visit))

    def _wanted(self, plan: Plan, visit: Visit) -> bool:
        where = plan.fault.where
        if where is None:
            return True
        try:
            return bool(where(visit))
        except Exception as error:  # whatever a user's code raises
            mistake = BadArgument(
                f"{plan.fault.name}: where= raised {error_text(error)}, at visit {visit.index} of {visit.site}. It takes the "
                "visit, and returns True if the fault may strike there"
            )
            mistake.__cause__ = error
            self._tool_error(plan.fault, mistake, "where=")
            raise

    def _apply(self, plan: Plan, visit: Visit) -> None:
        def record(details: Mapping[str, Any]) -> None:
            plan.strikes.append((visit.attributes.get("rank"), visit.index))
            strike = Strike(plan.text, visit.site, visit.index, {**about(), **details})
            put_down(strike, self.clock.now() + visit.delay, plan.fault.key)
            self._struck(plan, strike)
            if visit.error is not None:
                if is_own(plan.fault):
                    remember_text(visit.error, str(visit.error))
                self.inject(visit.error)

        visit.recorder, visit.records_itself, visit.details, visit.memory = record, False, {}, plan.memory
        before = _seen(plan.fault, visit)
        try:
            payload = plan.fault.apply(visit)
        except BaseException as error:  # a crash is one
            if visit.source is not None and visit.source.owns(error):  # the end of the loader, or a mistake of the user's in it
                record(visit.details)
                raise
            if isinstance(error, PayloadMismatch) and self._passes_over(plan):
                plan.mismatch = plan.mismatch or error.with_traceback(None)
                return
            if not is_meant(error, visit, plan.fault):
                self._tool_error(plan.fault, error, "apply()")
            visit.error = error.with_traceback(None) if isinstance(error, StopIteration) else error  # see Gate.check
            record(visit.details)
            return
        if payload is not None:
            visit.payload = payload
        if inspect.iscoroutine(payload) and not inspect.isawaitable(before.payload):
            payload.close()
            self._tool_error(plan.fault, TypeError("it returned a coroutine; apply() has to be a plain function"), "apply()")
        if not visit.records_itself and before.changed(visit):
            record(visit.details)

    def _passes_over(self, plan: Plan) -> bool:
        """Return True if a fault may leave out visits with nothing to strike: a search, a chance or EVERY chose them, not the test."""
        return self.drawn or plan.fault.p is not None or plan.fault.at is EVERY

    def note(self, plan: Plan, **details: Any) -> None:
        """A fault that is not bound to a visit has taken effect."""
        self._struck(plan, Strike(plan.text, name_of(plan.fault.key), 0, details))

    def _struck(self, plan: Plan, strike: Strike) -> None:
        plan.struck, plan.total = plan.struck + 1, plan.total + 1
        if self.forks is not None:
            if getattr(self._claims, "plan", None) is plan:
                self._claims.plan = None
            else:
                self.forks.count_strike(plan.place)
            if self.forks.name:
                strike = dataclasses.replace(strike, details={**strike.details, "process": self.forks.name})
        self.journal.append(strike)
        self._told(plan, strike)

    def _told(self, plan: Plan, strike: Strike) -> None:
        """A fault is about to take effect; its strike is in the journal."""
        raise NotImplementedError

    def inject(self, error: BaseException) -> None:
        """Remember that an exception is a fault's doing."""
        raise NotImplementedError

    def _guarded(self, fault: Fault, call: Any, what: str = "probe()") -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # whatever a user's code raises
            self._tool_error(fault, error, what)

    def _tool_error(self, fault: Fault, error: BaseException, what: str) -> None:
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, MlchaosError):
            error = broken(fault, error, what)
        self.broken = self.broken or error
        if self.forks is not None and self.forks.name:
            self.forks.tell("broken", *shipped_error(error))
        raise error from error.__cause__

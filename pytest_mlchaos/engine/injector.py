"""Apply faults at a visit: the slow path of the controller."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.faults import EVERY, Fault
from ..core.journal import Strike
from ..core.policy import check_strike
from ..core.privacy import error_text, remember_text
from ..core.ramps import strength
from ..core.sites import Visit, derive_seed
from ..errors import BadArgument, MlchaosError, PayloadMismatch, PolicyRefused
from .attribution import about, attribute_strike
from .changes import fingerprint
from .counters import ScheduledFault, VisitCounter
from .error_origin import fault_error, is_meant, is_own
from .other_servers import in_other_server
from .remote_state import pack_error

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["Injector"]

MAX_STRUCK_TABLES = 64
"""A pipeline keeps this many struck tables, to tell what is passed on."""
PROBED_VISITS = 2
"""The number of visits at which a fault may measure its parameters.

The second step differs from the first (optimizer state exists).
"""


class _Seen(NamedTuple):
    """The state of a visit before a fault is applied."""

    payload: Any
    fingerprint: bytes | None
    effects: tuple[float, int, int]

    def changed(self, visit: Visit) -> bool:
        """Return False if the fault changed nothing. Without a fingerprint, assume that it did."""
        if self.fingerprint is None or self.effects != _effects(visit):
            return True
        return fingerprint(visit.payload) != self.fingerprint


def _effects(visit: Visit) -> tuple[float, int, int]:
    return visit.delay, len(visit.deferred_actions), visit.kept_contexts


def _seen(fault: Fault, visit: Visit) -> _Seen:
    """Record the state of a visit.

    Built-in faults know if they changed their payload, and payloads may be large.
    """
    ours = type(fault).__module__.partition(".")[0] == __name__.partition(".")[0]
    alone = visit.payload is None or ((ours or visit.source is not None) and not fault.compared)
    return _Seen(visit.payload, None if alone else fingerprint(visit.payload), _effects(visit))


class Injector:
    """Apply the faults that are due at a visit, or let them measure, and record the strikes."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        # The fault for which this thread has claimed a strike.
        self._claims = threading.local()

    def apply_due(self, counter: VisitCounter, visit: Visit) -> None:
        """Let faults observe the visit, and apply those that are due."""
        seed = self._controller.schedule.seed
        if self._controller.forks is not None:
            for scheduled in counter.scheduled:
                scheduled.struck = self._controller.forks.struck(scheduled.index)
        with self._controller.lock:
            due = [scheduled for scheduled in counter.scheduled if scheduled.is_due(visit.index)]
            for scheduled in counter.scheduled:
                scheduled.resolve(visit.index)
        for scheduled in counter.scheduled:
            if scheduled.observes and self._wanted(scheduled, visit):
                visit.memory, visit.is_scheduled = scheduled.memory, scheduled.is_due
                self._guarded(
                    scheduled.fault,
                    lambda scheduled=scheduled: scheduled.fault.observe(visit),
                    "observe()",
                )
        for scheduled in due:
            if self._wanted(scheduled, visit):
                visit.seed = derive_seed(seed, scheduled.fault.name, scheduled.index, visit.index)
                with self._claimed(scheduled) as claimed:
                    if claimed:
                        self._apply(scheduled, visit)
                if visit.error is not None or visit.delay == math.inf:
                    # No fault can strike after a failure or an endless wait.
                    return

    @contextlib.contextmanager
    def _claimed(self, scheduled: ScheduledFault) -> Iterator[bool]:
        """Give False if other processes have made all strikes.

        If not, reserve one strike for this process.
        """
        forks, times = self._controller.forks, scheduled.fault.times
        if forks is None or times is None:
            yield True
            return
        self._claims.scheduled = scheduled if forks.claim(scheduled.index, times) else None
        claimed = self._claims.scheduled is not None
        try:
            yield claimed
        finally:
            if claimed and self._claims.scheduled is scheduled:
                # It has not struck, at least not yet.
                forks.release(scheduled.index)
            self._claims.scheduled = None

    def probe(self, counter: VisitCounter, visit: Visit) -> None:
        """Note which faults could strike at the visit, and let them measure their parameters."""
        for scheduled in counter.scheduled:
            visit.measures = scheduled.measures
            if self._wanted(scheduled, visit) and scheduled.fault.possible(visit):
                scheduled.eligible.append(visit.index)
                if visit.attributes.get("in_set_up", self._controller.in_set_up):
                    scheduled.outside.add(visit.index)
                if len(scheduled.eligible) <= PROBED_VISITS:
                    self._guarded(
                        scheduled.fault, lambda scheduled=scheduled: scheduled.fault.probe(visit)
                    )

    def _is_of_other_server(self, fault: Fault, visit: Visit) -> bool:
        """Return True for a file of a server beside the subject, unless the fault names files."""
        return (
            bool(self._controller.inside)
            and visit.site.startswith("storage")
            and getattr(fault, "path", None) is None
            and in_other_server()
        )

    def _wanted(self, scheduled: ScheduledFault, visit: Visit) -> bool:
        if self._is_of_other_server(scheduled.fault, visit):
            return False
        where = scheduled.fault.where
        if where is None:
            return True
        try:
            return bool(where(visit))
        except Exception as error:  # a user's predicate may raise anything
            mistake = BadArgument(
                f"{scheduled.fault.name}: where= raised {error_text(error)}, at visit "
                f"{visit.index} of {visit.site}. It takes the "
                "visit, and returns True if the fault may strike there"
            )
            mistake.__cause__ = error
            self._tool_error(scheduled.fault, mistake, "where=")
            raise

    def _apply(self, scheduled: ScheduledFault, visit: Visit) -> None:
        def record(details: Mapping[str, Any]) -> None:
            scheduled.strikes.append((visit.attributes.get("rank"), visit.index))
            strike = Strike(scheduled.text, visit.site, visit.index, {**about(), **details})
            begun = self._controller.clock.now()
            ended = begun + max(visit.delay, visit.lasting)
            lasts = visit.lasting > visit.delay
            attribute_strike(strike, begun, ended, scheduled.fault.key, lasts=lasts)
            self._controller.fault_ended = max(self._controller.fault_ended or ended, ended)
            self.record(scheduled, strike)
            if visit.error is not None:
                if is_own(scheduled.fault):
                    remember_text(visit.error, str(visit.error))
                self._controller.inject(visit.error)

        visit.recorder, visit.records_itself, visit.details, visit.memory = (
            record,
            False,
            {},
            scheduled.memory,
        )
        visit.lasting = 0.0
        kept = self._controller.struck_tables
        wanted = self._controller.inside == "mlchaos.pipeline" and len(kept) < MAX_STRUCK_TABLES
        visit.struck_tables = kept if wanted else None
        try:
            check_strike(scheduled.fault, visit)
        except PolicyRefused as error:
            self._tool_error(scheduled.fault, error, "policy")
        before = _seen(scheduled.fault, visit)
        try:
            fault = scheduled.fault.at_visit(visit.index)
            if fault is not scheduled.fault:
                visit.details["strength"] = round(strength(fault, visit.index), 4)
            payload = fault.strike(visit)
        except BaseException as error:  # BaseException, because a crash is one
            # The end of the loader, or an error in the user's loader.
            if visit.source is not None and visit.source.owns(error):
                record(visit.details)
                raise
            if isinstance(error, PayloadMismatch) and self._passes_over(scheduled):
                scheduled.mismatch = scheduled.mismatch or error.with_traceback(None)
                return
            if not is_meant(error, visit, scheduled.fault):
                self._tool_error(scheduled.fault, error, "apply()")
            # See Gate.check.
            visit.error = error.with_traceback(None) if isinstance(error, StopIteration) else error
            record(visit.details)
            return
        if payload is not None:
            visit.payload = payload
        if inspect.iscoroutine(payload) and not inspect.isawaitable(before.payload):
            payload.close()
            self._tool_error(
                scheduled.fault,
                TypeError("it returned a coroutine. apply() must be a plain function"),
                "apply()",
            )
        if not visit.records_itself and before.changed(visit):
            record(visit.details)

    def _passes_over(self, scheduled: ScheduledFault) -> bool:
        """Return True if a fault may skip visits with nothing to strike.

        It may if a search, a probability or EVERY chose the visit, but not if the test did.
        """
        return (
            self._controller.drawn or scheduled.fault.p is not None or scheduled.fault.at is EVERY
        )

    def record(self, scheduled: ScheduledFault, strike: Strike) -> None:
        """Count a strike, and add it to the journal."""
        scheduled.struck, scheduled.total = scheduled.struck + 1, scheduled.total + 1
        if self._controller.forks is not None:
            if getattr(self._claims, "scheduled", None) is scheduled:
                self._claims.scheduled = None
            else:
                self._controller.forks.count_strike(scheduled.index)
            if self._controller.forks.name and self._controller.own_rank.number is None:
                strike = dataclasses.replace(
                    strike, details={**strike.details, "process": self._controller.forks.name}
                )
        if self._controller.own_rank.number is not None:
            strike = strike.of_rank(self._controller.own_rank.number)
        seconds = self._controller.clock.peek() - self._controller.began
        self._controller.journal.append(strike, seconds)
        self._controller.tell_strike(scheduled, strike)

    def _guarded(self, fault: Fault, call: Callable[..., Any], what: str = "probe()") -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # a user's fault may raise anything
            self._tool_error(fault, error, what)

    def _tool_error(self, fault: Fault, error: BaseException, what: str) -> None:
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, MlchaosError):
            error = fault_error(fault, error, what)
        self._controller.broken = self._controller.broken or error
        if self._controller.forks is not None and self._controller.forks.name:
            self._controller.forks.tell("broken", *pack_error(error))
        raise error from error.__cause__
